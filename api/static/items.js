// What a draft has more of than the form: items of a list beyond those drawn, pictures that these hold, further texts of a
// list. The farm draws them, as in a form that it gives back to be corrected.

const isItem = (name) => /\.\d+\./.test(name) && !name.startsWith("sweep.");
const named = (part, name) => [...part.querySelectorAll(`[name="${CSS.escape(name)}"]`)];

function isLacking(form, [name, texts]) {
  const [given, own] = [texts.filter(Boolean), named(form, name)];
  if (given.length === 0) return false;
  if (own.length === 0) return isItem(name);
  if (own[0].type !== "checkbox") return given.length > own.length;
  return isItem(name) && !given.every((text) => own.some((box) => box.value === text));
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

export const lacks = (form, fields) => Object.entries(fields).some((field) => isLacking(form, field));

// Draws what the form lacks of these fields; without the farm it stays as it is.
export async function drawLacking(form, fields) {
  const body = new FormData();
  body.set("csrf_token", form.elements.csrf_token.value);
  for (const [name, texts] of Object.entries(fields)) for (const text of texts) body.append(name, text);
  const answer = await fetch("/typed", { method: "POST", body }).catch(() => null);
  if (!answer?.ok) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".composer");
  for (const without of drawn.querySelectorAll("noscript")) without.remove(); // else its boxes are the form's
  for (const field of Object.entries(fields).filter((one) => isLacking(form, one))) take(form, drawn, field[0]);
}
