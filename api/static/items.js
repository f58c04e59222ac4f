// What a draft has more of than the form: items of a list beyond those drawn, pictures that these hold, further texts of a
// list. The farm draws them, as in a form that it gives back to be corrected.

import { askFarm } from "./farm.js";

const PATIENCE = 3000; // milliseconds that the form waits for the farm

const isItem = (name) => /\.\d+\./.test(name) && !name.startsWith("sweep.");
const named = (part, name) => [...part.querySelectorAll(`[name="${CSS.escape(name)}"]`)];

function isLacking(form, [name, texts]) {
  const [given, own] = [texts.filter(Boolean), named(form, name)];
  if (given.length === 0) return false;
  if (own.length === 0) return isItem(name);
  if (own[0].type !== "checkbox") return given.length > own.length;
  return isItem(name) && !given.every((text) => own.some((box) => box.value === text));
}

// The texts of a field that no box of the form is for.
function beyond(form, name, texts) {
  const own = named(form, name);
  return own[0]?.type === "checkbox" ? texts.filter((text) => !own.some((box) => box.value === text)) : texts.slice(own.length);
}

// Takes what belongs to a field from a form that the farm has drawn.
function take(form, drawn, name) {
  const [theirs] = named(drawn, name);
  if (!theirs) return; // it came with another one of its item
  const own = form.querySelector(`#${CSS.escape(name)}`);
  const pictures = theirs.closest(".held-pictures");
  if (!own) form.querySelector(`#${theirs.closest(".group").id} .group-body`)?.append(theirs.closest("fieldset"));
  else if (pictures) {
    own.parentElement.querySelector(".held-pictures")?.remove();
    own.before(pictures);
  } else own.after(...named(drawn, name).slice(named(form, name).length));
}

// What the form lacks of these fields, by name.
export function lacking(form, fields) {
  const found = Object.entries(fields).filter((field) => isLacking(form, field));
  return Object.fromEntries(found.map(([name, texts]) => [name, beyond(form, name, texts)]));
}

// Draws what the form lacks of these fields; without the farm it stays as it is.
export async function drawLacking(form, fields) {
  const body = new FormData();
  body.set("csrf_token", form.elements.csrf_token.value);
  for (const [name, texts] of Object.entries(fields)) for (const text of texts) body.append(name, text);
  const answer = await askFarm("/typed", { method: "POST", body, signal: AbortSignal.timeout(PATIENCE) }).catch(() => null);
  const page = answer?.ok ? await answer.text().catch(() => "") : "";
  const drawn = new DOMParser().parseFromString(page, "text/html").querySelector(".composer");
  if (!drawn) return;
  for (const without of drawn.querySelectorAll("noscript")) without.remove(); // else its boxes are the form's
  for (const field of Object.entries(fields).filter((one) => isLacking(form, one))) take(form, drawn, field[0]);
}
