// Makes the form quicker to use; every field works without it.

import { startDropping } from "./drop.js";
import { startGroups } from "./groups.js";
import { followSamplers } from "./samplers.js";
import { startSource } from "./source.js";
import { startCounting } from "./tokens.js";
import { startInstants } from "./when.js";

const form = document.querySelector(".composer");
const { checkpoint, width, height, seed } = form.elements;

// Ctrl+Enter (or Cmd+Enter) submits from any field.
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.querySelector(".primary").click();
});

// One press, one job. A page that comes back from the history can be used again.
form.addEventListener("submit", () => setTimeout(() => { form.querySelector(".primary").disabled = true; }));
addEventListener("pageshow", () => { form.querySelector(".primary").disabled = false; });

// An empty size shows the chosen checkpoint's own.
function showNative() {
  const native = checkpoint.selectedOptions[0]?.dataset.native;
  if (!native) return;
  width.placeholder = height.placeholder = native;
  form.querySelector('[data-shows="native"]').textContent = `${native} × ${native}`;
}
checkpoint.addEventListener("change", showNative);
showNative();

// Numbers that people try out get a slider beside the box.
for (const box of form.querySelectorAll("[data-slides]")) {
  const slider = document.createElement("input");
  [slider.min, slider.max, slider.step] = box.dataset.slides.split(" ");
  slider.type = "range";
  slider.tabIndex = -1;
  slider.setAttribute("aria-hidden", "true");
  slider.value = box.value;
  slider.addEventListener("input", () => { box.value = slider.value; });
  box.addEventListener("input", () => { slider.value = box.value; });
  box.after(slider);
}

const does = {
  swap: () => { [width.value, height.value] = [height.value, width.value]; },
  seed: (button) => { seed.value = button.dataset.seed; },
};
for (const button of form.querySelectorAll("[data-does]")) {
  button.hidden = false;
  button.addEventListener("click", () => does[button.dataset.does](button));
}
form.querySelector('[data-shows="shortcut"]').hidden = false;
if (!form.elements.prompt.value && !location.hash) form.elements.prompt.focus();

followSamplers(form);
startGroups(form);
startCounting(form);
startInstants(form);
const source = startSource(form);
startDropping(form, source);
