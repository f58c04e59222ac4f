// The folding groups: their titles tell what is set in them, and what hangs on a box is quiet while that is not ticked.

const LONG = 24; // letters of a value that a title shows

const isTicked = (box) => box.type === "checkbox";
// Of an item of a list, the title tells what it is.
const isTold = (name) => !name.endsWith(".picture") && (!/\.\d+\./.test(name) || name.endsWith(".model"));
const value = (box) => (isTicked(box) ? (box.checked ? "on" : "") : box.value.trim());

function words(box) {
  const label = box.ariaLabel ?? box.closest(".field").querySelector("label").textContent.trim();
  if (isTicked(box)) return label;
  const chosen = box.selectedOptions?.[0].textContent ?? value(box);
  return `${label} ${chosen.length > LONG ? `${chosen.slice(0, LONG)}…` : chosen}`;
}

function tell(group) {
  const boxes = [...group.querySelectorAll("[data-default]")].filter((box) => !box.matches(":disabled"));
  const set = boxes.filter((box) => !["", box.dataset.default].includes(value(box)) && isTold(box.name));
  group.querySelector('[data-shows="set"]').textContent = set.map(words).join(" · ");
}

// A change inside ticks the box that it hangs on: nobody sets a size for a pass that is not wanted.
function hang(part, box) {
  const show = () => part.classList.toggle("is-idle", !box.checked);
  box.addEventListener("change", show);
  part.addEventListener("input", () => {
    if (box.checked) return;
    box.checked = true;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  });
  show();
}

export function startGroups(form) {
  for (const part of form.querySelectorAll("[data-needs]")) hang(part, form.elements[part.dataset.needs]);
  for (const group of form.querySelectorAll(".group")) {
    for (const kind of ["input", "change"]) group.addEventListener(kind, () => tell(group));
    addEventListener("pageshow", () => tell(group)); // what a browser has put back itself
  }
}
