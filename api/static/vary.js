// Axes of a sweep: a button beside each field that can, and beside Render what it would be, asked of the farm.

import { askFarm } from "./farm.js";
import { grey } from "./samplers.js";
import { _ } from "./texts.js";
import { startTicking } from "./ticks.js";

const PAUSE = 400; // milliseconds without a change before the farm is asked

export function startVarying(form) {
  const group = form.querySelector("#group-vary");
  const says = form.querySelector('[data-shows="sweep-says"]');
  const rows = [...group.querySelectorAll(".vary-row")].map((row) => [row.querySelector("select"), row.querySelector("textarea")]);
  let timer = 0;
  let turn = 0;

  // Shows and hides as the chosen settings need it: the name of a LoRA, how choices are drawn, how many pictures there are.
  function follow() {
    for (const of of group.querySelectorAll("[data-of]")) {
      const isNamed = of.dataset.of.split(" ").includes(of.closest(".vary-row").querySelector("select").value);
      of.hidden = !isNamed;
      for (const box of of.querySelectorAll("input")) box.disabled = !isNamed;
    }
    grey(form.elements.count, rows.some(([field]) => field.value), _("One picture for each combination of values"));
  }

  async function ask() {
    const mine = (turn += 1);
    if (!rows.some(([field]) => field.value)) {
      says.textContent = "";
      return;
    }
    const answer = await askFarm("/vary", { method: "POST", body: new FormData(form) });
    if (answer?.ok && mine === turn) says.textContent = await answer.text();
  }

  for (const [field, values] of rows) startTicking(form, field, values);

  const askSoon = () => { follow(); clearTimeout(timer); timer = setTimeout(() => ask().catch(() => {}), PAUSE); };
  for (const kind of ["input", "change"]) form.addEventListener(kind, askSoon);
  askSoon();

  function vary(name) {
    const [field, values] = rows.find(([one]) => one.value === name) ?? rows.find(([one]) => !one.value) ?? rows[0];
    group.open = true;
    field.value = name;
    field.dispatchEvent(new Event("change", { bubbles: true }));
    values.focus();
  }

  const names = new Set([...rows[0][0].options].map((option) => option.value));
  for (const label of form.querySelectorAll(".above > label")) {
    const name = label.htmlFor;
    if (!names.has(name)) continue;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "link vary-this", textContent: _("vary") });
    button.append(Object.assign(document.createElement("span"), { className: "unseen", textContent: ` ${label.textContent.trim()}` }));
    button.addEventListener("click", () => vary(name));
    label.after(button);
  }
}
