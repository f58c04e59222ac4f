// Keeps a page as the server would draw it now. Events of a job move its bars; anything else that changes is fetched
// as the page itself and swapped in, part by part (`data-part`), so that each thing is drawn by one template only.
// Of a job's images only those that events name are fetched: there may be a thousand.
// Without events (none on this page, too many streams, a proxy in between) the page is fetched every `data-poll` ms.
// The studio shows many jobs: what happens to them is fetched as a page of their strips alone (`data-strips`).

import { askFarm } from "./farm.js";
import { hold } from "./held.js";
import { _ } from "./texts.js";

const PAUSE = 300; // milliseconds that changes are gathered for before one fetch
const PREVIEW = 1000; // milliseconds between two previews of an image
const PATIENCE = 8000; // milliseconds that an answer may take
const QUIET = 10_000; // milliseconds without an event, after which the stream may be one that nobody writes to any more
const FRESH = 8000; // milliseconds that the answer to a press stays in sight
const LOST = 2; // looks in a row that came to nothing
const STREAMS = 2; // at most at a time: browsers have few connections to one server
const SURE = { seconds: 1.5, share: 0.03 }; // what must have been seen of a job before its end is predicted

const main = document.querySelector("main");
const address = () => main.dataset.live ?? location.href; // of a form that was refused it is another than the page's own
const strips = () => main.dataset.strips ?? address();
const drawn = new Map(parts(document).map((part) => [part.dataset.part, part.outerHTML]));
const asked = new Map(); // preview -> when it was asked for
const tags = new Map(); // page -> what was drawn of it last
const wanted = new Set(); // pages to fetch
const changed = new Set(); // images of this page's job that are to be redrawn
const SOME = "some"; // stands for a page of these alone
const streams = new Map(); // address of a stream -> what is heard from it
const seen = new Map(); // the same -> when its job was first seen under way, and how far it was
const { title } = document;
let busy = false;
let failures = 0;
let fading = 0;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const isOpen = (job) => job.matches('[data-open="yes"]') || job.querySelector('[data-open="yes"]') !== null;
const openJobs = () => [...document.querySelectorAll("[data-events]")].filter(isOpen);
const jobOf = (stream) => document.querySelector(`[data-events="${stream}"]`);
const waits = () => main.querySelector('[data-shows="waiting"]') !== null; // why changes without an event

function parts(root) {
  return [...root.querySelectorAll("[data-part]")];
}

// One fetch for all that happened since the last one; what happens meanwhile leads to another.
export async function refresh(page = strips()) {
  wanted.add(page);
  if (busy) return;
  busy = true;
  while (wanted.size) {
    await pause(Number(main.dataset.pause ?? PAUSE)); // a page of many pictures takes the server longer to draw
    const pages = [...wanted];
    wanted.clear();
    for (const one of pages) await look(one);
  }
  busy = false;
}

// The address of a job's head and of the images that have changed: there may be a thousand of others.
function withOnly(images) {
  const page = new URL(address(), location.href);
  page.searchParams.set("images", images.join(","));
  return page;
}

function redraw(index) {
  if (main.dataset.strips) return refresh();
  changed.add(index);
  return refresh(SOME);
}

async function look(page) {
  const some = page === SOME ? [...changed] : [];
  for (const one of some) changed.delete(one);
  try {
    const headers = { Accept: "text/html", "X-Live": "1" };
    if (tags.get(page)) headers["If-None-Match"] = tags.get(page);
    const answer = await askFarm(page === SOME ? withOnly(some) : page, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer) return undefined;
    if (answer.status >= 500) throw new Error(answer.statusText);
    failures = 0;
    if (answer.status === 304) return sayOfConnection(""); // nothing has changed since it was last drawn
    if (!answer.ok || answer.redirected) return sayOfConnection(_("This page has changed: load it again."));
    draw(parsed(await answer.text()), page === SOME ? address() : page);
    if (page === SOME) tags.clear(); // the whole page is another now than when it was drawn last
    else tags.set(page, wanted.has(page) ? "" : answer.headers.get("ETag")); // what a press put off is drawn next time
    sayOfConnection("");
  } catch {
    failures += 1; // the next event or poll tries again
    for (const one of some) changed.add(one);
    if (failures >= LOST) sayOfConnection(_("Connection lost, trying again."));
  }
  return undefined;
}

function sayOfConnection(words) {
  const place = document.querySelector('[data-shows="connection"]');
  if (place.textContent !== words) place.textContent = words;
}

export const parsed = (text) => new DOMParser().parseFromString(text, "text/html");

// Draws what a page says; `origin` is its address, to be fetched again for what cannot be drawn just now.
export function draw(page, origin = address()) {
  arrange(page);
  for (const part of parts(page)) swap(part.dataset.part, part, origin);
  for (const choices of page.querySelectorAll("[data-choices]")) choose(document.getElementById(choices.id), choices);
  tellMoments();
  tellNews();
  main.dispatchEvent(new Event("drawn"));
}

// Of a list of parts, what is new is put in its place, what is gone is taken out, and what stays is not moved.
function arrange(page) {
  for (const fresh of page.querySelectorAll("[data-list]")) {
    const old = main.querySelector(`[data-list="${fresh.dataset.list}"]`);
    if (!old) continue;
    const named = (list, name) => [...list.children].find((one) => one.dataset.part === name);
    for (const one of [...old.children]) if (!named(fresh, one.dataset.part)) one.remove();
    [...fresh.children].forEach((one, place) => {
      if (named(old, one.dataset.part)) return;
      drawn.set(one.dataset.part, one.outerHTML);
      old.insertBefore(document.importNode(one, true), old.children[place] ?? null);
    });
  }
}

function swap(name, part, origin) {
  const old = main.querySelector(`[data-part="${name}"]`);
  const html = part.outerHTML;
  if (!old || drawn.get(name) === html) return;
  if (old.matches(":active")) { // a press that has begun ends where it began
    wanted.add(origin);
    return;
  }
  drawn.set(name, html);
  const giveBack = hold(old);
  keepPreviews(old, part);
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

// The last preview of each image stays until the next one has arrived.
function keepPreviews(old, part) {
  for (const shown of old.querySelectorAll("[data-preview][src]")) {
    const next = part.querySelector(`[data-preview="${shown.dataset.preview}"]`);
    if (!next) continue;
    const source = next.src;
    next.src = shown.src;
    next.hidden = false;
    if (source) load(next, source);
  }
}

function load(image, source) {
  const next = new Image();
  next.onload = () => { image.src = next.src; image.hidden = false; };
  next.src = source;
}

function onProgress(job, event) {
  const { index, attempt, step, steps, phase } = JSON.parse(event.data);
  const card = job?.querySelector(`[data-index="${index}"]`);
  if (!card) return undefined;
  const bar = card.querySelector("progress");
  if (!bar || card.dataset.attempt !== String(attempt) || card.dataset.phase !== phase) return redraw(index);
  move(job, bar, steps ? step / steps : 0);
  if (phase === "steps" && step === steps) return redraw(index); // no more steps to count
  if (phase === "steps") tellStep(job, card, _("step %(step)s of %(steps)s", { step, steps }));
  return undefined;
}

function tellStep(job, card, words) {
  const own = card.querySelector('[data-shows="words"]');
  if (own) own.textContent = words;
  const state = job.querySelector('[data-shows="state"][data-single]');
  if (state) state.textContent = words;
}

// The job's bar is the mean of its images' bars.
function move(job, bar, value) {
  const whole = job.querySelector("progress.of-job");
  if (whole) whole.value += (value - bar.value) / Number(job.dataset.images);
  bar.value = value;
  tellProgress();
}

// Only what is there is asked for: an event says that it is.
function onPreview(job, event) {
  const { index } = JSON.parse(event.data);
  const image = job?.querySelector(`[data-index="${index}"] [data-preview]`);
  if (!image || performance.now() - (asked.get(image.dataset.preview) ?? -PREVIEW) < PREVIEW) return;
  asked.set(image.dataset.preview, performance.now());
  load(image, `${image.dataset.preview}?at=${Date.now()}`);
}

function poll(page, milliseconds, isWanted = () => true) {
  setInterval(() => { if (!document.hidden && isWanted()) refresh(page()); }, milliseconds);
}

function listen(stream) {
  const source = new EventSource(stream);
  const heard = { source, isOn: false, at: performance.now() };
  source.onopen = () => { heard.isOn = true; };
  source.onerror = () => { heard.isOn = false; };
  source.addEventListener("progress", (event) => onProgress(jobOf(stream), event));
  source.addEventListener("preview", (event) => onPreview(jobOf(stream), event));
  source.addEventListener("image", (event) => redraw(JSON.parse(event.data).index));
  source.addEventListener("job", () => refresh());
  for (const kind of ["progress", "image", "job"]) source.addEventListener(kind, () => { heard.at = performance.now(); });
  source.addEventListener("end", () => { source.close(); heard.isOn = false; refresh(); });
  return heard;
}

// The latest jobs that have not ended are listened to; the others are looked after by polling.
function follow() {
  const open = openJobs().slice(0, STREAMS).map((job) => job.dataset.events);
  for (const [stream, { source }] of streams) {
    if (open.includes(stream)) continue;
    source.close();
    streams.delete(stream);
  }
  for (const stream of open) if (!streams.has(stream)) streams.set(stream, listen(stream));
}

const isHeard = (job) => {
  const heard = streams.get(job.dataset.events);
  return heard?.isOn && performance.now() - heard.at <= QUIET;
};
const isBehind = () => { const open = openJobs(); return open.length > 0 && (waits() || !open.every(isHeard)); };

// The messages of a page, over this one: in sight wherever that is scrolled to, and nothing moves.
export function tell(page) {
  const notices = main.querySelector(".notices");
  notices.replaceChildren(...page.querySelector(".notices").children);
  notices.classList.add("is-fresh");
  clearTimeout(fading);
  fading = setTimeout(() => { notices.replaceChildren(); notices.classList.remove("is-fresh"); }, FRESH);
}

// The element that was pressed stays where it is, though there may be more or less to see above it afterwards.
function inPlace(form, change) {
  const { part } = form.closest("[data-part]")?.dataset ?? {};
  const top = () => main.querySelector(`[data-part="${part}"]`)?.getBoundingClientRect().top;
  const before = top();
  change();
  scrollBy(0, (top() ?? before) - before || 0);
}

// A button that changes something: the answer is the page as it is then, drawn in place, so that nobody loses theirs.
async function press(form, button) {
  const body = new FormData(form, button);
  if (form.dataset.stays) body.set("back", form.dataset.stays); // without scripts it leads elsewhere
  try {
    const answer = await askFarm(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    if (!answer) return undefined;
    if (!answer.ok) return location.reload();
    if (new URL(answer.url).pathname !== location.pathname) return location.assign(answer.url);
    const page = parsed(await answer.text());
    inPlace(form, () => { draw(page); tell(page); });
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

const lasting = (seconds) => (seconds < 60 ? _("%(seconds)s s", { seconds }) : _("%(minutes)s min %(seconds)s s", { minutes: Math.floor(seconds / 60), seconds: seconds % 60 }));

// How long something has taken so far: it goes on without an event.
function tellSince() {
  for (const place of main.querySelectorAll("[data-so-far]")) {
    place.since ??= performance.now() - Number(place.dataset.soFar) * 1000; // by one clock: the server's may be another
    place.textContent = lasting(Math.round((performance.now() - place.since) / 1000));
  }
}

// How far it all is stands in the tab's title, and how long each job will take beside it, by what was seen of it.
function tellProgress() {
  const bars = [...main.querySelectorAll("progress.of-job")];
  const share = bars.reduce((sum, bar) => sum + bar.value, 0) / bars.length;
  document.title = bars.length ? `(${Math.round(100 * share)} %) ${title}` : title;
  for (const job of openJobs()) tellLeft(job);
}

function tellLeft(job) {
  const [bar, place] = [job.querySelector("progress.of-job"), job.querySelector("[data-left]")];
  if (!bar?.value || !place) return;
  const now = performance.now() / 1000;
  const first = seen.get(job.dataset.events);
  if (!first || bar.value < first.share) seen.set(job.dataset.events, { at: now, share: bar.value });
  else if (bar.value - first.share > SURE.share && now - first.at > SURE.seconds) {
    const left = ((1 - bar.value) * (now - first.at)) / (bar.value - first.share);
    place.textContent = _("about %(time)s left", { time: lasting(Math.max(1, Math.round(left))) });
  }
}

function tellAll() {
  follow();
  tellProgress();
}

tellMoments();
tellAll();
main.addEventListener("drawn", tellAll);
setInterval(tellSince, 1000);
poll(strips, Number(main.dataset.eventsPoll ?? main.dataset.poll), isBehind);
if (!main.dataset.events) poll(address, Number(main.dataset.poll));
