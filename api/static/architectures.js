// Fields without an effect on the architectures of the chosen checkpoints: quiet, with the reason above them. Typed
// values stay, because another checkpoint may have a use for them. The facts stand on the options and on the fields.

import { grey } from "./samplers.js";
import { _, ngettext } from "./texts.js";

const labelOf = (box) => box.closest(".field").querySelector("label").textContent.trim();
const joined = (words) => new Intl.ListFormat(document.documentElement.lang).format(words);

// `sd1: sdxl:sdxl_clip_l_skip`: architectures, each with the flag that the field needs there.
const needs = (box) => new Map(box.dataset.architectures.split(" ").map((one) => one.split(":")));

const quietly = (families, remedy) => remedy ? _("No effect on %(families)s unless “%(remedy)s” is ticked", { families, remedy }) : _("No effect on %(families)s", { families });

export function followArchitectures(form) {
  const boxes = [...form.querySelectorAll("[data-architectures]")];
  const selects = ["checkpoint", "hires.checkpoint", "refiner.checkpoint"].map((name) => form.elements[name]);

  // The chosen checkpoints; a second pass that is not asked for has none.
  function chosen() {
    const used = selects.filter((select) => select.value && (select.name !== "hires.checkpoint" || form.elements.hires.checked));
    return used.map((select) => select.selectedOptions[0].dataset);
  }

  function whyIdle(box, files) {
    const flags = needs(box);
    const needed = files.filter((file) => flags.has(file.architecture)).map((file) => flags.get(file.architecture));
    if (needed.some((flag) => !flag || form.elements[flag].checked)) return undefined;
    return { remedy: needed.length ? labelOf(form.elements[needed[0]]) : "" };
  }

  function tell(group, idle, families) {
    const all = group.querySelectorAll(".group-body [data-default]").length === idle.length;
    const places = { what: joined(idle.map(({ box }) => labelOf(box))), families, remedy: idle[0]?.remedy };
    let words = "";
    if (idle.length && all) words = places.remedy ? _("These settings have no effect on %(families)s unless “%(remedy)s” is ticked.", places) : _("These settings have no effect on %(families)s.", places);
    else if (idle.length && places.remedy) words = ngettext("%(what)s has no effect on %(families)s unless “%(remedy)s” is ticked.", "%(what)s have no effect on %(families)s unless “%(remedy)s” is ticked.", idle.length, places);
    else if (idle.length) words = ngettext("%(what)s has no effect on %(families)s.", "%(what)s have no effect on %(families)s.", idle.length, places);
    const hint = place(group);
    if (hint.textContent !== words) hint.textContent = words; // a reader says what is written, also if it is the same
  }

  function place(group) {
    const there = group.querySelector('[data-shows="no-effect"]');
    if (there) return there;
    const hint = Object.assign(document.createElement("p"), { className: "hint no-effect span-all" });
    hint.dataset.shows = "no-effect";
    hint.setAttribute("role", "status");
    group.querySelector(".group-body").prepend(hint);
    return hint;
  }

  function follow() {
    const files = chosen();
    const isKnown = files.length > 0 && files.every((file) => file?.architecture);
    const families = joined([...new Set(files.map((file) => file?.family))]);
    const idle = boxes.flatMap((box) => {
      const why = isKnown ? whyIdle(box, files) : undefined;
      grey(box, why !== undefined, why ? quietly(families, why.remedy) : "");
      return why ? [{ box, remedy: why.remedy }] : [];
    });
    for (const group of new Set(boxes.map((box) => box.closest(".group")))) tell(group, idle.filter(({ box }) => group.contains(box)), families);
  }

  form.addEventListener("change", follow);
  addEventListener("pageshow", follow); // what a browser has put back itself
  follow();
  return { follow };
}
