// Everything typed into the form is kept in this browser: it is there again after a reload, a crash or another page, and
// what fills the form in or clears it can be taken back for some seconds.

import { drawLacking, lacking } from "./items.js";
import { _ } from "./texts.js";

const PAUSE = 300; // milliseconds without a change before the draft is kept
const OFFER = 10_000; // milliseconds that undoing is offered

const toast = document.querySelector('[data-shows="toast"]');
let fading = 0;
let undrawn = {}; // fields of the draft that the farm has not drawn yet: they stay in it

const isBox = (one) => one.name && one.name !== "csrf_token" && !["file", "hidden", "submit", "button", "fieldset"].includes(one.type);
const boxes = (form) => [...form.elements].filter(isBox);
const usual = (box) => (box.type === "checkbox" || !box.dataset.default ? [] : [box.dataset.default]);

// The fields of a form by name, each as a list of texts, as a form sends them.
export function values(form) {
  const found = {};
  for (const box of boxes(form)) {
    found[box.name] ??= [];
    if (box.type !== "checkbox" || box.checked) found[box.name].push(box.value);
  }
  return found;
}

function write(box, text) {
  box.value = text;
  if (!box.options || box.value === text) return;
  if (text) box.add(new Option(text, text, false, true)); // a file beyond the first ones, or one that has gone
  else box.selectedIndex = 0;
}

// Puts values into the form: all fields, those without a value as they usually are, or the fields of these names only;
// never into boxes that somebody has `typed` into meanwhile.
export function put(form, fields, names, typed = new Set()) {
  const places = {};
  const changed = [];
  if (!names) undrawn = {};
  for (const box of boxes(form)) {
    const place = (places[box.name] ??= { next: 0 });
    if (typed.has(box) || (names && !names.includes(box.name))) continue;
    const texts = fields[box.name] ?? usual(box);
    const [was, wasTicked] = [box.value, box.checked];
    if (box.type === "checkbox") box.checked = texts.includes(box.value) && box.value !== "";
    else write(box, texts[place.next++] ?? "");
    if (box.value !== was || box.checked !== wasTicked) changed.push(box);
  }
  for (const box of changed) box.dispatchEvent(new Event("change", { bubbles: true }));
  if (changed.length) dispatchEvent(new Event("pageshow")); // what hangs on boxes follows, as after going back
}

const hide = () => { toast.hidden = true; };

// Says what was done and offers to undo it, for as long as a person is at it.
export function offerUndo(words, undo) {
  const fade = () => {
    clearTimeout(fading);
    fading = setTimeout(() => (toast.matches(":hover, :focus-within") ? fade() : hide()), OFFER);
  };
  toast.querySelector("span").textContent = words;
  toast.querySelector("button").onclick = () => { undo(); hide(); };
  toast.hidden = false;
  fade();
}

function stored(name) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? undefined;
  } catch {
    return undefined; // a browser that keeps nothing
  }
}

function store(name, draft) {
  for (const kept of [draft, { ...draft, source: undefined }]) {
    try {
      localStorage.setItem(name, JSON.stringify(kept));
      return;
    } catch {} // no room for a drawn mask: the rest is kept
  }
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

async function giveBack(form, fields) {
  const typed = new Set();
  const note = ({ target }) => typed.add(target);
  form.addEventListener("input", note);
  if (Object.keys(lacking(form, fields)).length) await drawLacking(form, fields);
  form.removeEventListener("input", note);
  put(form, fields, undefined, typed);
  undrawn = lacking(form, fields);
}

// The fields of the form, and those of the draft that it lacks.
function whole(form) {
  const found = values(form);
  for (const [name, texts] of Object.entries(undrawn)) found[name] = [...(found[name] ?? []), ...texts];
  return found;
}

// Gives the form back as it was left. What a page fills in counts before that, once, and can be taken back.
async function restore(form, draft) {
  const { filled } = form.dataset;
  if (!draft || form.querySelector("#notice.is-bad")) return;
  if (!filled || history.state?.isFilled) {
    await giveBack(form, draft.fields);
    if (draft.source && !history.state?.source) history.replaceState({ ...history.state, source: draft.source }, "");
    return;
  }
  const fresh = values(form);
  if (filled !== "all") put(form, draft.fields, Object.keys(fresh).filter((name) => !filled.split(" ").includes(name)));
  const isTyped = boxes(form).some((box) => !isSame(draft.fields[box.name] ?? [], usual(box)) && box.value !== "");
  const isOffered = document.getElementById("typed-before") !== null;
  if (isTyped && !isOffered && !isSame(values(form), draft.fields)) offerUndo(_("The form is filled in."), () => giveBack(form, draft.fields));
}

// Before anything else reads the fields. Where the draft has more of them than the form, the farm is asked for these.
export async function startDraft(form) {
  const name = ["stepfarm.draft", form.dataset.owner, form.dataset.draft].filter((part) => part !== undefined).join(".");
  let timer = 0;

  function keep() {
    clearTimeout(timer);
    timer = 0;
    store(name, { fields: whole(form), source: history.state?.source });
  }

  await restore(form, stored(name));
  history.replaceState({ ...history.state, isFilled: true }, "");
  for (const kind of ["input", "change", "click"]) form.addEventListener(kind, () => { timer ||= setTimeout(keep, PAUSE); });
  addEventListener("pagehide", keep);

  const clear = form.querySelector("[data-clears]");
  if (!clear) return;
  clear.hidden = false;
  clear.addEventListener("click", () => {
    const before = whole(form);
    put(form, {});
    offerUndo(_("The form is cleared."), () => giveBack(form, before));
    form.elements.prompt.focus();
  });
}
