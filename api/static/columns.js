// How many pictures stand beside each other: a slider, kept in this browser.

for (const slider of document.querySelectorAll("[data-columns]")) {
  const name = `stepfarm.columns.${slider.dataset.columns}`;
  const show = () => document.documentElement.style.setProperty(`--columns-${slider.dataset.columns}`, slider.value);
  try {
    slider.value = localStorage.getItem(name) ?? slider.value;
  } catch {} // a browser that keeps nothing
  slider.addEventListener("input", () => {
    show();
    try { localStorage.setItem(name, slider.value); } catch {}
  });
  slider.closest("label").hidden = false;
  show();
}
