// Finds a setting by its name in any language that the farm speaks: the folding groups show those that have the words
// alone, and are as they were when the box is empty again.

import { _, ngettext } from "./texts.js";

const named = (field) => [field.dataset.foundBy, field.querySelector("label, legend")?.textContent, field.closest("fieldset")?.querySelector("legend")?.textContent];

export function startFinding(form) {
  const part = form.querySelector('[data-shows="find"]');
  if (!part) return;
  const [box, told] = [part.querySelector("input"), part.querySelector("output")];
  const groups = [...form.querySelectorAll(".group")];
  let opened; // the groups that were open before anything was looked for

  function find() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const isLooking = words.length > 0;
    if (isLooking) opened ??= new Set(groups.filter((group) => group.open));
    let found = 0;
    for (const group of groups) {
      let inside = 0;
      for (const field of group.querySelectorAll(".field")) {
        const text = [...named(field), group.querySelector(".group-title").textContent].join(" ").toLowerCase();
        const has = words.every((word) => text.includes(word));
        field.classList.toggle("is-unfound", !has);
        inside += has ? 1 : 0;
      }
      group.classList.toggle("is-unfound", isLooking && inside === 0);
      if (isLooking) group.open = inside > 0;
      else if (opened) group.open = opened.has(group);
      found += inside;
    }
    if (!isLooking) opened = undefined;
    told.textContent = !isLooking ? "" : found ? ngettext("%(num)s setting found", "%(num)s settings found", found) : _("No setting is called that.");
  }

  box.addEventListener("input", find);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) event.preventDefault(); // it finds, and renders nothing
    if (event.key !== "Escape" || !box.value) return;
    box.value = "";
    find();
  });
  part.hidden = false;
  if (box.value) find(); // what a browser has put back itself
}
