// Pictures that are compared move and grow together; two lie over each other with a divider, or take turns.

import { zooming } from "./zoom.js";

const TURN = 800; // milliseconds
const compared = document.querySelector('[data-shows="compared"]');
const figures = [...compared.querySelectorAll("figure")];
const images = figures.map((figure) => figure.querySelector("img"));
const how = document.querySelector("[data-how]");
const divider = document.querySelector("[data-divider]");
const isCalm = matchMedia("(prefers-reduced-motion)").matches;
let at = 0;
let turning = 0;

how.hidden = false;
document.documentElement.classList.add("can-zoom");
for (const figure of figures) figure.querySelector(".frame-of").dataset.frame = "";
zooming(compared, () => images);

function cut() {
  const isCut = compared.classList.contains("is-slider");
  figures.at(-1).style.clipPath = isCut ? `inset(0 0 0 ${divider.value}%)` : "";
}

function turn() {
  at = (at + 1) % figures.length;
  figures.forEach((figure, index) => figure.classList.toggle("is-shown", index === at));
}

function choose(name) {
  for (const mode of ["slider", "blink"]) compared.classList.toggle(`is-${mode}`, mode === name);
  if (divider) divider.hidden = name !== "slider";
  cut();
  clearInterval(turning);
  at = -1;
  turn();
  if (name === "blink" && !isCalm) turning = setInterval(turn, TURN); // by the space bar alone where motion is not wanted
}

how.addEventListener("change", (event) => choose(event.target.value));
divider?.addEventListener("input", cut);
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !compared.classList.contains("is-blink")) return;
  event.preventDefault();
  clearInterval(turning);
  turn();
});
