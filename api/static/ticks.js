// Below the values of a row that varies stand those that its setting can have, to be ticked: checkpoints, samplers,
// schedules. The box of values stays what is sent: ticks write into it, and follow what is typed there.

import { _ } from "./texts.js";

const MOST = 60; // values that are offered
const VALUE = /\s*(?:"((?:[^"]|"")*)"|([^,\n]*))\s*(?:[,\n]|$)/y;

// The values of a list as people type it; one with a comma stands in quotes.
function listed(text) {
  const found = [];
  VALUE.lastIndex = 0;
  while (VALUE.lastIndex < text.length) {
    const [, inQuotes, plain] = VALUE.exec(text);
    const value = inQuotes?.replaceAll('""', '"') ?? plain.trim();
    if (value) found.push(value);
  }
  return found;
}

const quoted = (value) => (/[,"\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const isSame = (one, other) => one.toLowerCase() === other.toLowerCase();

// What a setting can have, and what people call it: the choices of a list, or boxes that are ticked for it.
function offers(form, name) {
  const controls = [form.elements[name] ?? []].flatMap((one) => (one instanceof RadioNodeList ? [...one] : one));
  const options = controls.flatMap((one) => [...(one.options ?? one.list?.options ?? [])]).filter((one) => one.value && !one.disabled);
  const boxes = controls.filter((one) => one.matches('[type="checkbox"][value]'));
  return [...options.map((one) => [one.value, one.label]), ...boxes.map((one) => [one.value, one.labels[0].textContent])].slice(0, MOST);
}

export function startTicking(form, field, values) {
  const part = Object.assign(document.createElement("fieldset"), { className: "ticks", hidden: true });
  field.closest(".vary-row").append(part);
  let drawn; // the offers that stand there

  function follow() {
    const typed = listed(values.value);
    for (const box of part.querySelectorAll("input")) box.checked = typed.some((one) => isSame(one, box.value));
  }

  function draw() {
    const offered = offers(form, field.value);
    const isDrawn = JSON.stringify(offered) === JSON.stringify(drawn);
    if (isDrawn) return follow(); // a new box would take the click that is under way, and the focus
    drawn = offered;
    const labels = offered.map(([value, words]) => {
      const label = Object.assign(document.createElement("label"), { className: "check" });
      label.append(Object.assign(document.createElement("input"), { type: "checkbox", value }), words);
      return label;
    });
    part.replaceChildren(Object.assign(document.createElement("legend"), { textContent: _("Values to choose from") }), ...labels);
    part.hidden = labels.length === 0;
    return follow();
  }

  part.addEventListener("change", ({ target }) => {
    const others = listed(values.value).filter((one) => !isSame(one, target.value));
    values.value = [...others, ...(target.checked ? [target.value] : [])].map(quoted).join(", ");
    values.dispatchEvent(new Event("input", { bubbles: true }));
  });
  form.addEventListener("change", ({ target }) => { if (!part.contains(target)) draw(); }); // another sampler has other schedules
  values.addEventListener("input", follow);
  addEventListener("pageshow", draw); // what a browser has put back itself
  draw();
}
