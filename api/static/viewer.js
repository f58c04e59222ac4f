// The viewer of the gallery: one picture in the whole window, by keys, by hand, and by finger.

import { act, more } from "./pictures.js";
import { _ } from "./texts.js";
import { say, undoLast } from "./toast.js";
import { zooming } from "./zoom.js";

const viewer = document.querySelector(".viewer");
const part = (name) => viewer.querySelector(`[data-shows="${name}"]`);
const button = (name) => viewer.querySelector(`[data-does="${name}"]`);
const links = () => [...document.querySelectorAll(".tile:not(.is-gone) [data-views]")];
const [whole, stage, side, keys] = ["whole", "stage", "side", "keys"].map(part);
let shown = null; // the link of the picture in sight
let marked = null; // the picture to compare another one with

const place = (link) => link.closest(".tile");
const id = () => place(shown).dataset.id;
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
  shown = link;
  whole.src = link.dataset.views;
  whole.alt = link.querySelector("img").alt;
  zoom.set(1);
  const all = links();
  const at = all.indexOf(link);
  part("place").textContent = _("%(at)s of %(all)s · %(words)s", { at: at + 1, all: all.length, words: whole.alt });
  button("previous").disabled = at === 0;
  tellFavourite();
  if (!side.hidden) tellParameters();
  if (at > all.length - 4) more();
  for (const near of [all[at + 1], all[at - 1]]) if (near) new Image().src = near.dataset.views;
}

function tellFavourite() {
  button("favourite").setAttribute("aria-pressed", place(shown).classList.contains("is-favourite"));
}

async function tellParameters() {
  const link = shown;
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok || shown !== link) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  side.replaceChildren(document.adoptNode(page.querySelector('[data-part="about"]')));
}

async function step(by) {
  let all = links();
  const at = all.indexOf(shown) + by;
  if (at >= all.length && await more()) all = links();
  if (all[at]) show(all[at]);
}

function toggle(panel, name) {
  panel.hidden = !panel.hidden;
  if (name) button(name).setAttribute("aria-expanded", !panel.hidden);
  draw();
}

async function remove() {
  const [gone, all] = [shown, links()];
  const at = all.indexOf(gone);
  const next = all[at + 1] ?? all[at - 1];
  if (!await act("delete", { ids: [place(gone).dataset.id] })) return;
  if (next) show(next);
  else viewer.close();
}

function compare() {
  const other = marked ?? links()[links().indexOf(shown) - 1]?.closest(".tile").dataset.id;
  if (other && other !== id()) return location.assign(`/compare?of=${other},${id()}`);
  marked = id();
  return say(_("Marked: go to another picture and press Compare again."));
}

// The page of the job enlarges by a form of its own; here the same is sent.
function upscale() {
  const [job, index] = id().split(".");
  const form = Object.assign(document.createElement("form"), { method: "post", action: `/jobs/${job}/images/${index}/upscale`, hidden: true });
  form.append(document.querySelector('input[name="csrf_token"]').cloneNode(true));
  viewer.append(form);
  form.submit();
}

function save() {
  const end = shown.dataset.views.split(".").pop();
  Object.assign(document.createElement("a"), { href: shown.dataset.views, download: `${shown.dataset.save}.${end}` }).click();
}

function vary() {
  const [job, index] = id().split(".");
  location.assign(`/?from=${job}&image=${index}`);
}

const pixels = () => zoom.set(zoom.scale() > 1 ? 1 : Math.max(1 / least(), 2));
const does = {
  previous: () => step(-1),
  next: () => step(1),
  favourite: async () => {
    await act(place(shown).classList.contains("is-favourite") ? "unfavourite" : "favourite", { ids: [id()] });
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

document.querySelector('[data-shows="gallery"]').addEventListener("click", (event) => {
  const link = event.target.closest("[data-views]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  viewer.showModal();
  show(link);
});
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
  whole.removeAttribute("src");
  (links().includes(shown) ? shown : links()[0])?.focus();
});
