// The neighbours of boxes: sliders, and buttons that fill them in.

export function startBoxes(form) {
  const { width, height, seed } = form.elements;

  // Numbers that people try out get a slider beside the box; it reaches as far as what is typed.
  for (const box of form.querySelectorAll("[data-slides]")) {
    const slider = document.createElement("input");
    const [least, most, stride] = box.dataset.slides.split(" ").map(Number);
    const follow = () => {
      const value = Number((box.value.trim() || box.dataset.default).replace(",", "."));
      if (Number.isNaN(value)) return;
      Object.assign(slider, { min: Math.min(least, value), max: Math.max(most, value), value });
    };
    Object.assign(slider, { type: "range", tabIndex: -1, step: stride });
    slider.setAttribute("aria-hidden", "true");
    follow();
    slider.addEventListener("input", () => { box.value = slider.value; });
    for (const kind of ["input", "change"]) box.addEventListener(kind, follow);
    addEventListener("pageshow", follow); // what a browser has put back itself
    box.after(slider);
  }

  const does = {
    swap: () => {
      [width.value, height.value] = [height.value, width.value];
      width.dispatchEvent(new Event("change", { bubbles: true }));
    },
    seed: (button) => { seed.value = button.dataset.seed; },
  };
  for (const button of form.querySelectorAll("[data-does]")) {
    if (!(button.dataset.does in does)) continue;
    button.hidden = "last" in button.dataset; // until there is one
    button.addEventListener("click", () => does[button.dataset.does](button));
  }
}
