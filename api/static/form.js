// Makes the form quicker to use; every field works without it.

const form = document.querySelector(".composer");
const { checkpoint, width, height, sampler, schedule, seed } = form.elements;

// Ctrl+Enter (or Cmd+Enter) submits from any field.
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
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

// Only the schedules that the sampler takes can be chosen.
function offerSchedules() {
  const taken = sampler.selectedOptions[0].dataset.schedules.split(" ");
  for (const option of schedule.options) option.disabled = option.hidden = !taken.includes(option.value);
  if (schedule.selectedOptions[0]?.disabled) schedule.value = taken[0];
}
sampler.addEventListener("change", offerSchedules);
if (!schedule.matches("[aria-invalid]")) offerSchedules();

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
