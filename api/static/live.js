// Keeps a page as the server would draw it now. Events of a job move its bars; anything else that changes is fetched
// as the page itself and swapped in, part by part (`data-part`), so that each thing is drawn by one template only.
// Without events (none on this page, too many streams, a proxy in between) the page is fetched every `data-poll` ms.

const PAUSE = 300; // milliseconds that changes are gathered for before one fetch
const PREVIEW = 1000; // milliseconds between two previews of an image

const main = document.querySelector("main");
const drawn = new Map(parts(document).map((part) => [part.dataset.part, part.outerHTML]));
const asked = new Map(); // image -> when its preview was asked for
let wanted = false;
let busy = false;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const isOpen = () => main.querySelector('[data-open="yes"]') !== null;
const waits = () => main.querySelector('[data-shows="waiting"]') !== null; // why changes without an event

function parts(root) {
  return [...root.querySelectorAll("[data-part]")];
}

// One fetch for all that happened since the last one; what happens meanwhile leads to another.
async function refresh() {
  wanted = true;
  if (busy) return;
  busy = true;
  while (wanted) {
    await pause(PAUSE);
    wanted = false;
    await redraw().catch(() => {}); // the next event or poll tries again
  }
  busy = false;
}

async function redraw() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Live": "1" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts(fresh)) swap(part.dataset.part, part);
  tellMoments();
  tellNews();
}

function swap(name, part) {
  const old = main.querySelector(`[data-part="${name}"]`);
  const html = part.outerHTML;
  if (!old || drawn.get(name) === html || old.contains(document.activeElement)) return;
  drawn.set(name, html);
  keepPreview(old, part);
  old.replaceWith(document.adoptNode(part));
}

// The last preview stays until the next one has arrived.
function keepPreview(old, part) {
  const [shown, next] = [old, part].map((side) => side.querySelector("[data-preview]"));
  if (!shown || !next) return;
  const source = next.src;
  next.src = shown.src;
  load(next, source);
}

function load(image, source) {
  const next = new Image();
  next.onload = () => { image.src = next.src; };
  next.src = source;
}

function onProgress(event) {
  const { index, attempt, step, steps, phase } = JSON.parse(event.data);
  const card = main.querySelector(`[data-index="${index}"]`);
  if (!card) return;
  const bar = card.querySelector("progress");
  if (!bar || card.dataset.attempt !== String(attempt) || card.dataset.phase !== phase) return refresh();
  move(bar, steps ? step / steps : 0);
  if (phase === "steps" && step === steps) refresh(); // no more steps to count
  else if (phase === "steps") card.querySelector('[data-shows="words"]').textContent = `step ${step} of ${steps}`;
  showPreview(card.querySelector("[data-preview]"), index, `attempt=${attempt}&step=${step}`);
}

// The job's bar is the mean of its images' bars.
function move(bar, value) {
  const whole = main.querySelector("progress.of-job");
  if (whole) whole.value += (value - bar.value) / Number(main.dataset.images);
  bar.value = value;
}

function showPreview(image, index, version) {
  if (!image || performance.now() - (asked.get(index) ?? -PREVIEW) < PREVIEW) return;
  asked.set(index, performance.now());
  load(image, `${image.dataset.preview}?${version}`);
}

function poll(milliseconds, isWanted = () => true) {
  setInterval(() => { if (!document.hidden && isWanted()) refresh(); }, milliseconds);
}

function listen(address) {
  const source = new EventSource(address);
  let streams = false;
  source.onopen = () => { streams = true; };
  source.onerror = () => { streams = false; };
  source.addEventListener("progress", onProgress);
  for (const kind of ["image", "job"]) source.addEventListener(kind, refresh);
  source.addEventListener("end", () => { source.close(); streams = false; refresh(); });
  poll(Number(main.dataset.poll), () => isOpen() && (!streams || waits()));
}

// Screen readers hear how the job stands when that changes; the place they listen to is never swapped.
function tellNews() {
  const [news, words] = ["news", "state"].map((name) => main.querySelector(`[data-shows="${name}"]`));
  if (news && words && news.textContent !== words.textContent) news.textContent = words.textContent;
}

// Moments in the person's own time and language.
function tellMoments() {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of main.querySelectorAll("time:not([title])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

tellMoments();
if (!main.dataset.events) poll(Number(main.dataset.poll));
else if (isOpen()) listen(main.dataset.events);
