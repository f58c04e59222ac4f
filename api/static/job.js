// The page of a job: its pictures in the whole window, what is done to them there, and the parameters as text to take along.

import { refresh } from "./live.js";
import { startMenus } from "./menus.js";
import { _ } from "./texts.js";
import "./viewer.js";

document.addEventListener("marked", () => refresh());
startMenus();

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
