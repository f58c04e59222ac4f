// Says what was done, and for ten seconds how to undo it.

import { _ } from "./texts.js";

const SHOWN = 10_000; // milliseconds
let fading = 0;
let undo = null;

// An open viewer lies over everything, so that it has a place of its own for this.
const place = () => document.querySelector(".viewer[open] .toast") ?? document.querySelector(".toast");

export function say(words, undoing = null) {
  for (const old of document.querySelectorAll(".toast")) old.hidden = true;
  undo = undoing;
  const toast = place();
  toast.replaceChildren(words);
  if (undo) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: _("Undo") });
    button.addEventListener("click", undoLast);
    toast.append(button);
  }
  toast.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { toast.hidden = true; undo = null; }, SHOWN);
}

export function undoLast() {
  const undoing = undo;
  undo = null;
  undoing?.();
}
