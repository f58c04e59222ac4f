// Says what was done, and for ten seconds how to undo it.

import { _ } from "./texts.js";

const SHOWN = 10_000; // milliseconds
let fading = 0;
let undo = null;

// An open viewer lies over everything, so that it has a place of its own for this.
const place = () => document.querySelector(".viewer[open] .toast") ?? document.querySelector(".toast");

function hide() {
  for (const old of document.querySelectorAll(".toast")) old.hidden = true;
}

export function say(words, undoing = null) {
  hide();
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
  fading = setTimeout(() => { hide(); undo = null; }, SHOWN);
}

// What a viewer says that has closed, the page goes on to say.
export function sayOnPage() {
  const said = document.querySelector(".viewer:not([open]) .toast:not([hidden])");
  if (!said) return;
  const toast = place();
  toast.replaceChildren(...said.childNodes);
  [said.hidden, toast.hidden] = [true, false];
}

export function undoLast() {
  const undoing = undo;
  undo = null;
  undoing?.();
}
