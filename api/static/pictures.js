// The gallery: pictures come as one scrolls, are chosen by ticks (with shift up to the last one), and what is done with
// them is done in place, with ten seconds to undo it.

import { act } from "./act.js";
import { askFarm } from "./farm.js";
import { _, ngettext } from "./texts.js";
import { startViewer } from "./viewer.js";

const DENSITY = "stepfarm-density";
const gallery = document.querySelector('[data-shows="gallery"]');
const form = document.querySelector(".chosen");
const ticks = () => [...gallery.querySelectorAll(".tile:not(.is-gone) .tick input")];
let last = null; // the tick that was set last
let loading = null;

document.documentElement.classList.add("can-choose");
document.cookie = `timezone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=31536000; samesite=lax`;

function startDensity() {
  const slider = document.querySelector("[data-density]");
  const show = () => gallery.style.setProperty("--tile", `${slider.value}rem`);
  slider.value = localStorage.getItem(DENSITY) ?? slider.value;
  slider.closest("label").hidden = false;
  slider.addEventListener("input", () => { show(); localStorage.setItem(DENSITY, slider.value); });
  show();
}

// The next page: its groups join those that are there.
function more() {
  const link = document.querySelector("[data-next]");
  if (!link) return Promise.resolve(false);
  loading ??= load(link).finally(() => { loading = null; });
  return loading;
}

async function load(link) {
  const answer = await askFarm(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return false; // the link stays to be pressed
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const known = new Map([...gallery.children].map((group) => [group.dataset.group, group.querySelector(".grid")]));
  for (const group of page.querySelectorAll(".group-of-tiles")) {
    const grid = known.get(group.dataset.group);
    if (grid) grid.append(...group.querySelectorAll(".tile"));
    else gallery.append(document.adoptNode(group));
  }
  const next = page.querySelector("[data-next]");
  if (next) link.href = next.getAttribute("href");
  else link.remove();
  return true;
}

function watchEnd() {
  const link = document.querySelector("[data-next]");
  if (!link || !window.IntersectionObserver) return;
  new IntersectionObserver(([seen]) => { if (seen.isIntersecting) more(); }, { rootMargin: "600px" }).observe(link);
  link.addEventListener("click", (event) => { event.preventDefault(); more(); });
}

function chosen() {
  return ticks().filter((tick) => tick.checked).map((tick) => tick.value);
}

function showChosen() {
  const isAll = form.elements.all?.checked;
  const some = chosen();
  form.classList.toggle("has-some", Boolean(isAll || some.length));
  form.querySelector("[data-compares]").hidden = isAll || some.length < 2 || some.length > 4;
  const words = some.length ? ngettext("%(num)s picture chosen", "%(num)s pictures chosen", some.length) : _("Tick pictures to do something with them.");
  form.querySelector('[data-shows="chosen"]').textContent = isAll ? _("All of them are chosen") : words;
}

gallery.addEventListener("click", (event) => {
  const tick = event.target.closest(".tick input");
  if (!tick) return;
  const all = ticks();
  if (event.shiftKey && last && last !== tick) {
    const [from, to] = [all.indexOf(last), all.indexOf(tick)].sort((one, other) => one - other);
    for (const one of all.slice(from, to + 1)) one.checked = tick.checked;
  }
  last = tick;
  showChosen();
});

form?.addEventListener("change", showChosen);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]") || !form) return;
  for (const tick of ticks()) tick.checked = false;
  if (form.elements.all) form.elements.all.checked = false;
  showChosen();
});

form?.querySelector("[data-compares]").addEventListener("click", () => location.assign(`/compare?of=${chosen().join(",")}`));

// What the form would send, as the API takes it.
function which() {
  if (!form.elements.all?.checked) return { ids: chosen() };
  const filter = { tag: [...form.querySelectorAll('[name="with"]')].map((one) => one.value) };
  for (const one of form.querySelectorAll('input[type="hidden"]')) {
    if (!["csrf_token", "back", "with", "order"].includes(one.name)) filter[one.name] = one.value;
  }
  return { filter };
}

form?.addEventListener("submit", async (event) => {
  const action = event.submitter?.value;
  if (!["delete", "favourite", "unfavourite", "tag", "untag"].includes(action)) return; // a file, or another page
  event.preventDefault();
  const asked = which();
  if (asked.ids?.length === 0) return;
  const tag = action.endsWith("tag") ? form.elements.tag.value : "";
  if (!await act(action, asked, { tag, ids: asked.ids ?? ticks().map((tick) => tick.value) })) return;
  for (const tick of ticks()) tick.checked = false;
  for (const gone of gallery.querySelectorAll(".is-gone .tick input")) gone.checked = false;
  if (form.elements.all) form.elements.all.checked = false;
  showChosen();
});

startDensity();
watchEnd();
startViewer(more);
if (form) showChosen();
