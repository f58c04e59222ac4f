// The gallery: pictures come as one scrolls, are chosen by ticks (with shift up to the last one), and what is done with
// them is done in place, with ten seconds to undo it.

import { postJson } from "./api.js";
import { _, ngettext } from "./texts.js";
import { say } from "./toast.js";

const ACTIONS = "/api/v1/pictures/actions";
const DENSITY = "stepfarm-density";
const gallery = document.querySelector('[data-shows="gallery"]');
const form = document.querySelector(".chosen");
const ticks = () => [...gallery.querySelectorAll(".tile:not(.is-gone) .tick input")];
const tile = (id) => gallery.querySelector(`[data-id="${id}"]`);
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

// The next page: its days join those that are there.
export function more() {
  const link = document.querySelector("[data-next]");
  if (!link) return Promise.resolve(false);
  loading ??= load(link).finally(() => { loading = null; });
  return loading;
}

async function load(link) {
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!answer?.ok) return false; // the link stays to be pressed
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const day of page.querySelectorAll(".day")) {
    const known = gallery.querySelector(`.day[data-day="${day.dataset.day}"] .grid`);
    if (known) known.append(...day.querySelectorAll(".tile"));
    else gallery.append(document.adoptNode(day));
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

function mark(ids, action) {
  for (const id of ids) {
    if (action === "delete" || action === "restore") tile(id)?.classList.toggle("is-gone", action === "delete");
    else if (action.endsWith("favourite")) tile(id)?.classList.toggle("is-favourite", action === "favourite");
  }
  gallery.dispatchEvent(new CustomEvent("marked"));
}

// Does something to pictures and says so; a deletion can be undone.
export async function act(action, asked, tag = "") {
  const ids = asked.ids ?? ticks().map((tick) => tick.value);
  try {
    let [done, undo] = [0, []];
    for (let isAll = false; !isAll;) {
      const answer = await postJson(ACTIONS, { action, tag, ...asked });
      [done, isAll] = [done + answer.pictures, answer.is_all || !answer.pictures];
      if (answer.undo) undo.push(answer.undo);
    }
    mark(ids, action);
    const words = action === "delete" ? ngettext("%(num)s picture deleted.", "%(num)s pictures deleted.", done) : ngettext("%(num)s picture changed.", "%(num)s pictures changed.", done);
    say(words, undo.length ? () => restore(undo, ids) : null);
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

async function restore(moments, ids) {
  try {
    let done = 0;
    for (const undo of moments) done += (await postJson(ACTIONS, { action: "restore", undo })).pictures;
    mark(ids, "restore");
    say(ngettext("%(num)s picture is back.", "%(num)s pictures are back.", done));
  } catch (error) {
    say(error.message);
  }
}

form?.addEventListener("submit", async (event) => {
  const action = event.submitter?.value;
  if (!["delete", "favourite", "unfavourite", "tag", "untag"].includes(action)) return; // a file, or another page
  event.preventDefault();
  const asked = which();
  if (asked.ids?.length === 0) return;
  if (!await act(action, asked, action.endsWith("tag") ? form.elements.tag.value : "")) return;
  for (const tick of ticks()) tick.checked = false;
  for (const gone of gallery.querySelectorAll(".is-gone .tick input")) gone.checked = false;
  if (form.elements.all) form.elements.all.checked = false;
  showChosen();
});

startDensity();
watchEnd();
if (form) showChosen();
