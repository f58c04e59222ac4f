// Keeps a page as the server would draw it now. Events of a job move its bars; anything else that changes is fetched
// as the page itself and swapped in, part by part (`data-part`), so that each thing is drawn by one template only.
// Without events (none on this page, too many streams, a proxy in between) the page is fetched every `data-poll` ms.

import { hold } from "./held.js";
import { _ } from "./texts.js";

const PAUSE = 300; // milliseconds that changes are gathered for before one fetch
const PREVIEW = 1000; // milliseconds between two previews of an image
const PATIENCE = 8000; // milliseconds that an answer may take
const QUIET = 10_000; // milliseconds without an event, after which the stream may be one that nobody writes to any more
const FRESH = 8000; // milliseconds that the answer to a press stays in sight
const LOST = 2; // looks in a row that came to nothing

const main = document.querySelector("main");
const address = () => main.dataset.live ?? location.href; // of a form that was refused it is another than the page's own
const drawn = new Map(parts(document).map((part) => [part.dataset.part, part.outerHTML]));
const asked = new Map(); // image -> when its preview was asked for
let wanted = false;
let busy = false;
let failures = 0;
let fading = 0;
let tag = "";

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
    await pause(Number(main.dataset.pause ?? PAUSE)); // a page of many pictures takes the server longer to draw
    wanted = false;
    await look();
  }
  busy = false;
}

async function look() {
  try {
    const headers = { Accept: "text/html", "X-Live": "1" };
    if (tag) headers["If-None-Match"] = tag;
    const answer = await fetch(address(), { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (answer.status >= 500) throw new Error(answer.statusText);
    failures = 0;
    if (answer.status === 304) return sayOfConnection(""); // nothing has changed since it was last drawn
    if (!answer.ok || answer.redirected) return sayOfConnection(_("This page has changed: load it again."));
    draw(parsed(await answer.text()));
    tag = wanted ? "" : answer.headers.get("ETag"); // what a press put off is drawn next time
    sayOfConnection("");
  } catch {
    failures += 1; // the next event or poll tries again
    if (failures >= LOST) sayOfConnection(_("Connection lost, trying again."));
  }
  return undefined;
}

function sayOfConnection(words) {
  const place = document.querySelector('[data-shows="connection"]');
  if (place.textContent !== words) place.textContent = words;
}

const parsed = (text) => new DOMParser().parseFromString(text, "text/html");

function draw(page) {
  for (const part of parts(page)) swap(part.dataset.part, part);
  for (const choices of page.querySelectorAll("[data-choices]")) choose(document.getElementById(choices.id), choices);
  tellMoments();
  tellNews();
  main.dispatchEvent(new Event("drawn"));
}

function swap(name, part) {
  const old = main.querySelector(`[data-part="${name}"]`);
  const html = part.outerHTML;
  if (!old || drawn.get(name) === html) return;
  if (old.matches(":active")) { // a press that has begun ends where it began
    wanted = true;
    return;
  }
  drawn.set(name, html);
  const giveBack = hold(old);
  keepPreview(old, part);
  old.replaceWith(document.adoptNode(part));
  giveBack(part);
}

// A list that has grown long gets the box that searches it, as the page would draw it now.
function lengthen(old, fresh) {
  old.toggleAttribute("data-more", fresh.hasAttribute("data-more"));
  const pick = fresh.closest(".pick");
  if (!pick || old.closest(".pick")) return;
  const isFocused = old === document.activeElement;
  old.replaceWith(document.adoptNode(pick));
  fresh.replaceWith(old);
  if (isFocused) old.focus();
}

// What can be chosen; what was chosen stays, also where it is not there any more.
function choose(old, fresh) {
  const choices = (list) => [...list.options].map((option) => [option.value, option.label, ...Object.values(option.dataset)].join("\n")).join("\n\n");
  if (!old || old.closest(".pick")?.querySelector("input").value) return; // or it is searched
  if (old.matches("select")) lengthen(old, fresh);
  if (choices(old) === choices(fresh)) return;
  const chosen = old.selectedOptions?.[0];
  const value = chosen?.value || fresh.value; // read now: each option that leaves a select has it choose another one
  old.replaceChildren(...fresh.children);
  if (!chosen) return; // what a box proposes
  if (chosen.value && ![...old.options].some((option) => option.value === value)) old.append(chosen);
  old.value = value;
}

// The last preview stays until the next one has arrived.
function keepPreview(old, part) {
  const [shown, next] = [old, part].map((side) => side.querySelector("[data-preview]"));
  if (!shown?.src || !next) return;
  const source = next.src;
  next.src = shown.src;
  next.hidden = false;
  if (source) load(next, source);
}

function load(image, source) {
  const next = new Image();
  next.onload = () => { image.src = next.src; image.hidden = false; };
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
  else if (phase === "steps") tellStep(card, _("step %(step)s of %(steps)s", { step, steps }));
}

function tellStep(card, words) {
  card.querySelector('[data-shows="words"]').textContent = words;
  const state = main.querySelector('[data-shows="state"][data-single]');
  if (state) state.textContent = words;
}

// The job's bar is the mean of its images' bars.
function move(bar, value) {
  const whole = main.querySelector("progress.of-job");
  if (whole) whole.value += (value - bar.value) / Number(main.dataset.images);
  bar.value = value;
}

// Only what is there is asked for: an event says that it is.
function onPreview(event) {
  const { index } = JSON.parse(event.data);
  const image = main.querySelector(`[data-index="${index}"] [data-preview]`);
  if (!image || performance.now() - (asked.get(index) ?? -PREVIEW) < PREVIEW) return;
  asked.set(index, performance.now());
  load(image, `${image.dataset.preview}?at=${Date.now()}`);
}

function poll(milliseconds, isWanted = () => true) {
  setInterval(() => { if (!document.hidden && isWanted()) refresh(); }, milliseconds);
}

function listen(stream) {
  const source = new EventSource(stream);
  let streams = false;
  let heard = performance.now();
  source.onopen = () => { streams = true; };
  source.onerror = () => { streams = false; };
  source.addEventListener("progress", onProgress);
  source.addEventListener("preview", onPreview);
  for (const kind of ["image", "job"]) source.addEventListener(kind, refresh);
  for (const kind of ["progress", "image", "job"]) source.addEventListener(kind, () => { heard = performance.now(); });
  source.addEventListener("end", () => { source.close(); streams = false; refresh(); });
  poll(Number(main.dataset.poll), () => isOpen() && (!streams || waits() || performance.now() - heard > QUIET));
}

// A button that changes something: the answer is the page as it is then, drawn in place, so that nobody loses theirs.
async function press(form, button) {
  const body = new FormData(form, button);
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    if (!answer.ok) return location.reload();
    if (new URL(answer.url).pathname !== location.pathname) return location.assign(answer.url);
    const page = parsed(await answer.text());
    draw(page);
    const notices = main.querySelector(".notices");
    notices.replaceChildren(...page.querySelector(".notices").children);
    notices.classList.add("is-fresh"); // over the page: in sight wherever that is scrolled to, and nothing moves
    clearTimeout(fading);
    fading = setTimeout(() => { notices.replaceChildren(); notices.classList.remove("is-fresh"); }, FRESH);
  } catch {
    sayOfConnection(_("Connection lost: that was not done. Try again."));
  }
  return undefined;
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-presses]")) return;
  event.preventDefault();
  press(event.target, event.submitter);
});

// Screen readers hear how the job stands when that changes; the place they listen to is never swapped.
function tellNews() {
  const [news, words] = ["news", "state"].map((name) => main.querySelector(`[data-shows="${name}"]`));
  if (news && words && news.textContent !== words.textContent) news.textContent = words.textContent;
}

// Of the page; the person's own where they write that language in another way, as in another country.
function languageOf() {
  const { lang } = document.documentElement;
  return navigator.languages.find((one) => one.split("-")[0] === lang) ?? lang;
}

// Moments in the person's own time, in the language of the page.
function tellMoments() {
  const format = new Intl.DateTimeFormat(languageOf(), { dateStyle: "medium", timeStyle: "short" });
  for (const time of main.querySelectorAll("time:not([title])")) {
    time.title = time.textContent;
    time.textContent = format.format(new Date(time.dateTime));
  }
}

// How long something has taken so far: it goes on without an event.
function tellSince() {
  for (const place of main.querySelectorAll("[data-so-far]")) {
    place.since ??= performance.now() - Number(place.dataset.soFar) * 1000; // by one clock: the server's may be another
    const seconds = Math.round((performance.now() - place.since) / 1000);
    place.textContent = seconds < 60 ? _("%(seconds)s s", { seconds }) : _("%(minutes)s min %(seconds)s s", { minutes: Math.floor(seconds / 60), seconds: seconds % 60 });
  }
}

tellMoments();
setInterval(tellSince, 1000);
if (!main.dataset.events) poll(Number(main.dataset.poll));
else if (isOpen()) listen(main.dataset.events);
