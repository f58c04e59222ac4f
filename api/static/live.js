// Keeps a page as the server would draw it now. Events of a job move its bars; anything else that changes is fetched
// as the page itself and swapped in, part by part (`data-part`), so that each thing is drawn by one template only.
// Without events (none on this page, too many streams, a proxy in between) the page is fetched every `data-poll` ms.

const main = document.querySelector("main");
const drawn = new Map(parts(document).map((part) => [part.dataset.part, part.outerHTML]));
let pending = null;

function parts(root) {
  return [...root.querySelectorAll("[data-part]")];
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of parts(fresh)) swap(part.dataset.part, part);
  tellMoments(main);
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
  showPreview(next, source);
}

function showPreview(preview, source) {
  const next = new Image();
  next.onload = () => { preview.src = next.src; };
  next.src = source;
}

// At most one fetch a second, however many events ask for it.
function refreshSoon() {
  pending ??= setTimeout(async () => {
    await refresh().catch(() => {}); // the next event or poll tries again
    pending = null;
  }, 300);
}

function onProgress(event) {
  const { index, attempt, step, steps, phase } = JSON.parse(event.data);
  const card = main.querySelector(`[data-index="${index}"]`);
  if (!card) return;
  const bar = card.querySelector("progress");
  if (!bar || card.dataset.attempt !== String(attempt) || card.dataset.phase !== phase) return refreshSoon();
  bar.value = steps ? step / steps : 0;
  if (phase === "steps") card.querySelector('[data-shows="words"]').firstChild.data = `step ${step} of ${steps}`;
  const preview = card.querySelector("[data-preview]");
  if (preview) showPreview(preview, `${preview.dataset.preview}?attempt=${attempt}&step=${step}`);
}

const isOpen = () => main.querySelector('[data-open="yes"]') !== null;

function poll(milliseconds, wanted = () => true) {
  setInterval(() => { if (!document.hidden && wanted()) refreshSoon(); }, milliseconds);
}

function listen(address) {
  const source = new EventSource(address);
  let streams = false;
  source.onopen = () => { streams = true; };
  source.onerror = () => { streams = false; };
  source.addEventListener("progress", onProgress);
  source.addEventListener("end", () => { source.close(); refreshSoon(); });
  for (const kind of ["image", "job"]) source.addEventListener(kind, refreshSoon);
  poll(Number(main.dataset.poll), () => isOpen() && !streams);
}

// Moments in the person's own time and language.
function tellMoments(root) {
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time:not([title])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

tellMoments(main);
if (!main.dataset.events) poll(Number(main.dataset.poll));
else if (isOpen()) listen(main.dataset.events);
