// Keys that work on every page, and the list of them. Where a person types, keys are letters.

const LONGEST = 1500; // milliseconds between the two keys of one shortcut
const list = document.getElementById("shortcuts");
let went = -LONGEST; // when "g" was pressed

const isTyping = (element) => element.closest("input:not([type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable]");
const page = (key) => document.querySelector(`[data-goes="${CSS.escape(key)}"]`);

function write() {
  const prompt = document.getElementById("prompt");
  if (prompt) prompt.focus();
  else location.assign(page("s").href);
}

function search() {
  const box = [...document.querySelectorAll('main input[type="search"]')].find((one) => one.checkVisibility());
  if (box) box.focus();
  else if (page("p")) location.assign(page("p").href);
}

const does = { n: write, "/": search, "?": () => list.showModal(), g: () => { went = performance.now(); } };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const target = performance.now() - went < LONGEST ? page(event.key) : undefined;
  went = -LONGEST;
  if (!target && !(event.key in does)) return;
  event.preventDefault();
  if (target) location.assign(target.href);
  else does[event.key]();
});
