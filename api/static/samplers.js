// The fields of the chosen sampler: its schedules, and those options that it or its schedule has a use for. The facts
// stand on the options of the selects, so that page and farm never disagree.

import { _ } from "./texts.js";

const taken = (option) => option?.dataset.takes?.split(" ") ?? [];
const inAll = (select) => [...select.options].flatMap(taken);

function narrow(sampler, schedule) {
  const goes = sampler.selectedOptions[0]?.dataset.schedules?.split(" ");
  for (const option of schedule.options) {
    option.disabled = option.hidden = goes !== undefined && option.value !== "" && !goes.includes(option.value);
  }
  if (schedule.selectedOptions[0]?.disabled) schedule.value = [...schedule.options].find((option) => !option.disabled).value;
}

// What a pass has a use for: `automatic` is the schedule that the sampler names.
function usedBy(sampler, schedule) {
  const [chosen] = sampler.selectedOptions;
  const name = schedule.value === "automatic" ? chosen?.dataset.automatic : schedule.value;
  return [...taken(chosen), ...taken([...schedule.options].find((option) => option.value === name))];
}

export function grey(box, isUseless, why) {
  const field = box.closest(".field");
  field.classList.toggle("is-useless", isUseless);
  field.title = isUseless ? why : "";
}

export function followSamplers(form) {
  const passes = [["sampler", "schedule"], ["hires.sampler", "hires.schedule"]];
  const selects = passes.map((names) => names.map((name) => form.elements[name]));
  const [first, second] = selects;
  const boxes = [...new Set(first.flatMap(inAll))].filter(Boolean).map((name) => form.elements[name]);

  function follow() {
    const used = new Set([first, ...(form.elements.hires.checked ? [second] : [])].flatMap((pass) => usedBy(...pass)));
    const why = _("%(sampler)s with this schedule has no use for it", { sampler: first[0].value });
    for (const box of boxes) grey(box, !used.has(box.name), why);
  }

  for (const [sampler, schedule] of selects) {
    sampler.addEventListener("change", () => { narrow(sampler, schedule); follow(); });
    schedule.addEventListener("change", follow);
    if (!schedule.matches("[aria-invalid]")) narrow(sampler, schedule);
  }
  form.elements.hires.addEventListener("change", follow);
  follow();
}
