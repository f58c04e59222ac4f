// The page of a job: pictures one after the other in the whole window, and the parameters as text to take along.

import { _ } from "./texts.js";

const viewer = document.querySelector(".viewer");
const part = (name) => viewer.querySelector(`[data-shows="${name}"]`);
const pictures = () => [...document.querySelectorAll("[data-views]")];
let at = 0;

function show(step) {
  const all = pictures();
  at = (at + step + all.length) % all.length;
  const shown = all[at].querySelector("img");
  Object.assign(part("whole"), { src: all[at].href, alt: shown.alt });
  part("place").textContent = all.length > 1 ? `${_("%(at)s of %(total)s", { at: at + 1, total: all.length })} · ${all[at].dataset.views}` : all[at].dataset.views;
  for (const button of viewer.querySelectorAll("[data-steps]")) button.hidden = all.length < 2;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-views]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  at = pictures().indexOf(link);
  show(0);
  viewer.showModal();
});

for (const button of viewer.querySelectorAll("[data-steps]")) button.addEventListener("click", () => show(Number(button.dataset.steps)));
viewer.addEventListener("click", (event) => { if (event.target === viewer || event.target === part("whole")) viewer.close(); });
viewer.addEventListener("close", () => pictures()[at]?.focus());
viewer.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) show(step);
});

// A long prompt can be unfolded.
function fold() {
  const prompt = document.querySelector(".prompt");
  const whole = document.querySelector(".whole");
  if (whole && !whole.open) whole.hidden = prompt.scrollHeight <= prompt.clientHeight + 1;
}
addEventListener("resize", fold);
document.querySelector("main").addEventListener("drawn", fold);
fold();

// Without a secure connection browsers keep the clipboard from pages: the text is then marked, ready to be copied.
for (const button of document.querySelectorAll("[data-copies]")) {
  const text = document.getElementById(button.dataset.copies);
  button.hidden = false;
  button.addEventListener("click", async () => {
    text.select();
    try {
      await navigator.clipboard.writeText(text.value);
      button.textContent = _("Copied");
    } catch {
      button.textContent = _("Selected: press Ctrl C");
    }
  });
}
