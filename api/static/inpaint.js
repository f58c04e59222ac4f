// The room for inpainting: the picture is rendered where it was drawn on, and its result is the next picture. Earlier ones
// stay at hand with their masks, in this browser.

import { followArchitectures } from "./architectures.js";
import { startBoxes } from "./boxes.js";
import { startDraft } from "./draft.js";
import { startWaiting } from "./early.js";
import { askFarm } from "./farm.js";
import { startGroups } from "./groups.js";
import { draw, refresh } from "./live.js";
import { followSamplers } from "./samplers.js";
import { startSizes } from "./sizes.js";
import { startSource } from "./source.js";
import { startSubmitting } from "./submit.js";
import { _ } from "./texts.js";
import { startCounting } from "./tokens.js";

const UPLOADS = "/api/v1/uploads";
const MOST = 12; // pictures that can be gone back to
const PAUSE = 400; // milliseconds after a change until it is kept
const LARGEST = 200_000; // characters of a mask that is kept with an earlier picture

const main = document.querySelector("main");
const form = document.querySelector(".composer");
const part = (name) => document.querySelector(`[data-shows="${name}"]`);
const tool = (name) => document.querySelector(`[data-room="${name}"]`);
const divider = document.getElementById("divider");
const stop = document.getElementById("stop-painting");
const [before, growing, versus] = ["before", "growing", "versus"].map(part);
const kept = form.elements["img2img.picture"];
const masked = form.elements["img2img.mask.picture"];
const SIDES = ["left", "right", "top", "bottom"].map((side) => form.elements[`img2img.outpaint.${side}`]);
const extension = () => SIDES.map((side) => Number(side.value) || 0);
const isExtended = (sides) => sides.some((side) => side > 0);

// `rounds` are the pictures with their masks, `at` the one on the easel; `sent` is what the job `job` was asked about until
// its result is there, and then `last`; `result` is that result.
const KEPT = `stepfarm.inpaint.${form.dataset.owner}`;
let room = { rounds: [], at: -1, job: 0, sent: null, last: null, result: "" };
let keeping = 0;
let asked; // what a press of Render is about

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {}; // a browser that keeps nothing
  }
}

function store() {
  const light = (one) => (one && one.mask.length > LARGEST ? { ...one, mask: "", isMasked: false } : one);
  const bare = (one) => one && { ...one, mask: "", isMasked: false };
  for (const cut of [light, bare]) {
    try {
      localStorage.setItem(KEPT, JSON.stringify({ ...room, rounds: room.rounds.map(cut), sent: cut(room.sent), last: cut(room.last) }));
      return;
    } catch {} // no room for the masks: the pictures are kept
  }
}

// The mask of the picture on the easel, noted with it.
function note() {
  clearTimeout(keeping);
  keeping = 0;
  const now = source.state();
  if (room.rounds[room.at]?.picture === now.picture) room.rounds[room.at] = now;
  store();
}

function showRounds() {
  part("rounds").hidden = room.rounds.length < 2;
  tool("back").disabled = room.at < 1;
  const items = room.rounds.map(({ picture }, at) => {
    const [item, button, image] = ["li", "button", "img"].map((name) => document.createElement(name));
    Object.assign(image, { src: `${UPLOADS}/${picture}`, alt: _("Picture %(number)s", { number: at + 1 }) });
    Object.assign(button, { type: "button", onclick: () => goTo(at) });
    if (at === room.at) button.setAttribute("aria-current", "true");
    button.append(image);
    item.append(button);
    return item;
  });
  part("rounds").querySelector("ol").replaceChildren(...items);
}

function addRound() {
  const now = source.state();
  if (!now.picture || room.rounds[room.at]?.picture === now.picture) return;
  room.rounds = [...room.rounds, now].slice(-MOST);
  room.at = room.rounds.length - 1;
  showRounds();
  store();
}

async function goTo(at) {
  note();
  room.at = at;
  await source.goTo(room.rounds[at]);
  showRounds();
  compare();
  store();
}

function cut() { before.style.clipPath = `inset(0 ${100 - Number(divider.value)}% 0 0)`; }

// The earlier picture lies over the result, up to the divider; an extended picture where it was extended.
function compare() {
  const isResult = room.result !== "" && kept.value === room.result && room.last !== null;
  before.hidden = versus.hidden = !isResult;
  if (!isResult) return;
  const image = before.firstElementChild;
  const [left, right, top, bottom] = room.last.sides;
  image.onload = () => {
    const [wide, high] = [image.naturalWidth + left + right, image.naturalHeight + top + bottom];
    const share = (pixels, of) => `${(100 * pixels) / of}%`;
    Object.assign(image.style, {
      left: share(left, wide),
      top: share(top, high),
      width: share(image.naturalWidth, wide),
      height: share(image.naturalHeight, high),
    });
  };
  image.src = `${UPLOADS}/${room.last.picture}`;
  tool("again").disabled = isExtended(room.last.sides) || !room.last.mask;
  tool("save").href = `${UPLOADS}/${room.result}`;
  divider.value = 50;
  cut();
}

const tellAsked = (words) => { part("asked").textContent = words; };

// A result becomes the picture on the easel.
async function arrive(address, sent) {
  const answer = await askFarm(address);
  if (!answer?.ok) return tellAsked(_("The result could not be read: press it again."));
  for (const side of SIDES) {
    side.value = side.dataset.default;
    side.dispatchEvent(new Event("input", { bubbles: true })); // its slider follows
  }
  await source.take(await answer.blob());
  Object.assign(room, { last: sent, result: kept.value });
  compare();
  store();
  return tellAsked(_("Done: the result is on the easel."));
}

// The page as it is drawn now: what the job is doing, and its results once it has ended.
function look() {
  const painting = document.querySelector(".painting");
  if (!room.sent || painting.dataset.job !== String(room.job) || painting.dataset.open === "yes") return;
  const { sent } = room;
  room.sent = null;
  growing.hidden = true;
  store();
  const result = painting.querySelector("[data-result]");
  if (result) arrive(result.dataset.result, sent).catch(() => tellAsked(_("The result could not be read: press it again.")));
}

// Everything fetched from now on is about this job.
function point() {
  if (!room.job) return;
  main.dataset.live = `/inpaint?job=${room.job}`;
  main.dataset.strips = `/inpaint/painting?job=${room.job}`;
  stop.action = `/jobs/${room.job}/cancel`;
  stop.elements.back.value = main.dataset.live;
}

function lacks() {
  if (!kept.value) return _("Choose a picture first.");
  if (!masked.checked && !isExtended(extension())) return _("Paint over what is to change, or extend a side.");
  return "";
}

await startDraft(form);
startBoxes(form);
followSamplers(form);
const architectures = followArchitectures(form);
startGroups(form);
startCounting(form);
const sizes = startSizes(form, { isOwn: true });
const source = startSource(form, async () => { await sizes.follow({ isNew: true }); addRound(); compare(); tellAsked(""); });

// One after the other: an extended picture has no mask.
form.addEventListener("formdata", ({ formData }) => {
  if (!isExtended(extension())) return;
  formData.delete("img2img.mask.picture");
  formData.delete("img2img.mask.file");
});
form.addEventListener("submit", (event) => {
  const words = lacks();
  tellAsked(words);
  if (words) return event.preventDefault();
  asked = { ...source.state(), sides: extension() };
  if (masked.checked && isExtended(asked.sides)) tellAsked(_("The picture is extended first: its mask is not used."));
  return undefined;
});
const early = startWaiting(form); // once it is known what is asked for
startSubmitting(form, early.wait, {
  back: "/inpaint",
  onTaken(page, address) {
    Object.assign(room, { job: Number(new URL(address).searchParams.get("job")), sent: asked });
    point();
    note();
    draw(page);
  },
});

divider.addEventListener("input", cut);
part("easel").addEventListener("pointerdown", () => { divider.value = 0; cut(); }); // one draws on the result
tool("back").addEventListener("click", () => goTo(room.at - 1));
tool("again").addEventListener("click", async () => {
  const { mask, isMasked } = room.last;
  await source.goTo({ ...source.state(), mask, isMasked });
  divider.value = 0;
  cut();
  note();
  tellAsked(_("The same mask again: change the words or press Render."));
  form.elements.prompt.focus();
});
for (const kind of ["change", "input"]) form.addEventListener(kind, () => { keeping ||= setTimeout(note, PAUSE); });
addEventListener("pagehide", note);

document.addEventListener("click", (event) => {
  const result = event.target.closest("[data-result]");
  if (result && room.last) arrive(result.dataset.result, room.last).catch(() => {});
});
// The preview grows over the easel, wherever the page has drawn it.
new MutationObserver(() => {
  const preview = document.querySelector(".painting [data-preview][src]");
  if (!preview || preview.hidden || !room.sent || growing.src === preview.src) return; // what it changes is seen here too
  growing.src = preview.src;
  growing.hidden = false;
}).observe(main, { subtree: true, attributeFilter: ["src", "hidden"], childList: true });
main.addEventListener("drawn", () => { sizes.follow(); architectures.follow(); look(); early.goOff(); });

for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => {
  if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (kind === "drop" && file) source.take(file);
});

// A picture of a job becomes an upload first; the page comes again with it.
async function send(path) {
  const body = new FormData();
  body.set("csrf_token", form.elements.csrf_token.value);
  body.set("to", "inpaint");
  const answer = await askFarm(path, { method: "POST", body, headers: { Accept: "text/html" } });
  if (answer?.ok && new URL(answer.url).pathname === location.pathname) location.replace(answer.url);
  else tellAsked(_("This picture cannot be taken here."));
}

Object.assign(room, stored());
point();
showRounds();
if (form.dataset.sends) send(form.dataset.sends).catch(() => tellAsked(_("This picture cannot be taken here.")));
else if (kept.value) { addRound(); compare(); }
if (room.job) refresh();
early.goOff();
