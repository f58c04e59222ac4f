// The studio beside its form: parts of a picture's parameters are used in place, the latest seed is at hand, and a person who
// wants it hears when pictures are done.

import { offerUndo, put, values } from "./draft.js";
import { askFarm } from "./farm.js";
import { parsed } from "./live.js";
import { startMenus } from "./menus.js";
import { _ } from "./texts.js";

const TELL = "stepfarm.notify";
const main = document.querySelector("main");
const form = document.querySelector(".composer");
const strips = () => [...document.querySelectorAll(".job-strip")];

// A change that this form has no fields for is drawn as a page: more items of a list, a picture to start from.
function isBeyond(fresh, names) {
  if (names) return false;
  const needs = Object.entries(fresh).some(([name, texts]) => texts.length > 0 && texts.some(Boolean) && !form.elements[name]);
  return needs || (fresh["img2img.picture"] ?? []).length > 0;
}

async function use(address) {
  const answer = await askFarm(address, { headers: { Accept: "text/html" } });
  if (!answer) return undefined;
  const page = answer.ok && parsed(await answer.text()).querySelector(".composer");
  if (!page) return location.assign(address);
  const names = page.dataset.filled === "all" ? undefined : page.dataset.filled.split(" ");
  const [before, fresh] = [values(form), values(page)];
  if (isBeyond(fresh, names)) return location.assign(address);
  put(form, fresh, names);
  form.elements.prompt.focus();
  offerUndo(_("The form is filled in."), () => put(form, before));
  return undefined;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-uses]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  link.closest("details")?.removeAttribute("open");
  use(link.href).catch(() => location.assign(link.href));
});

startMenus();

function offerSeed() {
  const button = form.querySelector("[data-last]");
  const seed = strips()[0]?.dataset.seed;
  button.hidden = seed === undefined || seed === "-1";
  button.dataset.seed = seed ?? "";
  button.querySelector("span").textContent = seed ?? "";
}

const box = document.querySelector("[data-notifies] input");
let open = new Set();

function notify() {
  const still = new Set(strips().filter((job) => job.dataset.open === "yes").map((job) => job.id));
  for (const job of strips()) {
    if (!open.has(job.id) || still.has(job.id) || !box.checked || !document.hidden) continue;
    new Notification(_("%(job)s is done", { job: job.getAttribute("aria-label") }), { body: job.dataset.name, tag: job.id });
  }
  open = still;
}

if (globalThis.Notification) {
  const kept = () => { try { return localStorage.getItem(TELL) === "yes"; } catch { return false; } };
  box.checked = Notification.permission === "granted" && kept();
  box.closest("label").hidden = false;
  box.addEventListener("change", async () => {
    if (box.checked) box.checked = (await Notification.requestPermission()) === "granted";
    try { localStorage.setItem(TELL, box.checked ? "yes" : "no"); } catch {}
  });
}

main.addEventListener("drawn", () => { offerSeed(); notify(); });
offerSeed();
notify();
