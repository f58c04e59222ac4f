// One picture in the whole window, by keys, by hand, and by finger; before and after it come those that the page shows.

import { act } from "./act.js";
import { askFarm } from "./farm.js";
import { _ } from "./texts.js";
import { say, sayOnPage, undoLast } from "./toast.js";
import { zooming } from "./zoom.js";

const viewer = document.querySelector(".viewer");
const part = (name) => viewer.querySelector(`[data-shows="${name}"]`);
const button = (name) => viewer.querySelector(`[data-does="${name}"]`);
const [whole, stage, side, keys] = ["whole", "stage", "side", "keys"].map(part);
const abouts = new Map(); // id -> the page about a picture, as far as it was asked for
let more = () => Promise.resolve(false); // brings further pictures onto the page
let shown = ""; // the id of the picture in sight: its place may be redrawn meanwhile
let marked = null; // the picture to compare another one with

const idOf = (link) => link.closest("[data-picture]").dataset.picture;
const place = () => document.querySelector(`[data-picture="${shown}"]`);
const indexes = () => shown.split(".");

// A picture that stands twice on a page is one: its first place counts.
function links() {
  const found = new Map();
  for (const link of document.querySelectorAll("[data-picture]:not(.is-gone) [data-views]")) if (!found.has(idOf(link))) found.set(idOf(link), link);
  return [...found.values()];
}

const at = (all) => all.findIndex((link) => idOf(link) === shown);
const fit = () => Math.min(1, stage.clientWidth / whole.naturalWidth, stage.clientHeight / whole.naturalHeight) || 1;
const least = () => (whole.naturalWidth < 200 ? Math.min(stage.clientWidth / whole.naturalWidth, stage.clientHeight / whole.naturalHeight) : fit());
const zoom = zooming(stage, () => [whole], { onSwipe: step, fitted: least });

function draw() {
  whole.style.marginLeft = `${-whole.naturalWidth / 2}px`;
  whole.style.marginTop = `${-whole.naturalHeight / 2}px`;
  stage.classList.toggle("is-pixels", zoom.scale() * least() >= 2);
  zoom.draw();
}

function show(link) {
  shown = idOf(link);
  whole.src = link.dataset.views;
  whole.alt = link.querySelector("img").alt;
  zoom.set(1);
  const all = links();
  const now = at(all);
  part("place").textContent = _("%(at)s of %(all)s · %(words)s", { at: now + 1, all: all.length, words: link.dataset.words ?? whole.alt });
  button("previous").disabled = now === 0;
  tellFavourite();
  if (!side.hidden) tellParameters();
  if (now > all.length - 4) more();
  for (const near of [all[now + 1], all[now - 1]]) if (near) new Image().src = near.dataset.views;
}

async function ask(id) {
  const answer = await askFarm(`/pictures/${id.replace(".", "/")}`, { headers: { Accept: "text/html" } }).catch(() => null);
  const text = answer?.ok ? await answer.text().catch(() => "") : "";
  if (!text) abouts.delete(id); // to be asked for again
  return text ? new DOMParser().parseFromString(text, "text/html") : null;
}

function about(id) {
  if (!abouts.has(id)) abouts.set(id, ask(id));
  return abouts.get(id);
}

// The gallery knows its favourites; of other pages' pictures their own page says it.
async function tellFavourite() {
  const id = shown;
  const page = place()?.matches(".tile") ? null : await about(id);
  if (shown !== id) return;
  if (page) place()?.classList.toggle("is-favourite", page.querySelector('[value="unfavourite"]') !== null);
  button("favourite").setAttribute("aria-pressed", String(place()?.classList.contains("is-favourite") ?? false));
}

async function tellParameters() {
  const id = shown;
  side.replaceChildren(); // those of the picture before
  const words = (await about(id))?.querySelector('[data-part="about"]');
  if (words && shown === id) side.replaceChildren(document.importNode(words, true));
}

async function step(by) {
  let all = links();
  const next = at(all) + by;
  if (next >= all.length && await more()) all = links();
  if (all[next]) show(all[next]);
}

function toggle(panel, name) {
  panel.hidden = !panel.hidden;
  if (name) button(name).setAttribute("aria-expanded", !panel.hidden);
  draw();
}

async function remove() {
  const all = links();
  const next = all[at(all) + 1] ?? all[at(all) - 1];
  if (!next) viewer.close(); // so that the page says how to undo it
  if (await act("delete", { ids: [shown] }) && next) show(next);
}

function compare() {
  const all = links();
  const before = all[at(all) - 1];
  const other = marked ?? (before && idOf(before));
  if (other && other !== shown) return location.assign(`/compare?of=${other},${shown}`);
  marked = shown;
  return say(_("Marked: go to another picture and press Compare again."));
}

// The page of the job enlarges by a form of its own; here the same is sent.
function upscale() {
  const [job, index] = indexes();
  const form = Object.assign(document.createElement("form"), { method: "post", action: `/jobs/${job}/images/${index}/upscale`, hidden: true });
  form.append(document.querySelector('input[name="csrf_token"]').cloneNode(true));
  viewer.append(form);
  form.submit();
}

function save() {
  const [job, index] = indexes();
  const end = whole.src.split(".").pop();
  Object.assign(document.createElement("a"), { href: whole.src, download: `stepfarm-${job}-${index}.${end}` }).click();
}

function vary() {
  const [job, index] = indexes();
  location.assign(`/?from=${job}&image=${index}`);
}

const pixels = () => zoom.set(zoom.scale() > 1 ? 1 : Math.max(1 / least(), 2));
const does = {
  previous: () => step(-1),
  next: () => step(1),
  favourite: async () => {
    await act(place()?.classList.contains("is-favourite") ? "unfavourite" : "favourite", { ids: [shown] });
    tellFavourite();
  },
  info: () => { toggle(side, "info"); if (!side.hidden) tellParameters(); },
  size: () => { pixels(); draw(); },
  keys: () => toggle(keys),
  close: () => viewer.close(),
  delete: remove,
  save, vary, upscale, compare,
};
const ofKeys = {
  ArrowLeft: does.previous, ArrowRight: does.next, f: does.favourite, d: remove, Delete: remove, z: undoLast, i: does.info,
  s: save, v: vary, u: upscale, c: compare, "?": does.keys, 0: () => zoom.set(1), 1: () => zoom.set(1 / least()),
  "+": () => zoom.by(1.5), "=": () => zoom.by(1.5), "-": () => zoom.by(1 / 1.5),
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-picture] [data-views]:not([data-opens])");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  viewer.showModal();
  show(link);
});
document.addEventListener("marked", () => abouts.clear());
viewer.addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-does]");
  if (pressed) does[pressed.dataset.does]();
});
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input,textarea,select")) return;
  const pressed = ofKeys[event.key];
  if (!pressed) return;
  event.preventDefault();
  pressed();
  stage.classList.toggle("is-pixels", zoom.scale() * least() >= 2);
});
stage.addEventListener("dblclick", does.size);
whole.addEventListener("load", draw);
addEventListener("resize", () => { if (viewer.open) draw(); });
viewer.addEventListener("close", () => {
  sayOnPage();
  whole.removeAttribute("src");
  const all = links();
  (all[at(all)] ?? all[0])?.focus();
});

// A page that shows its pictures gradually says how it brings more of them.
export function startViewer(brings) { more = brings; }
