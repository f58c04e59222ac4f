// Long lists of model files: a box above a list, in which words leave only the choices that hold them.

const IN_SIGHT = 8; // choices of a list while it is searched

const listOf = (box) => box.closest(".pick").querySelector("select");
const boxOf = (element) => element.closest?.(".pick")?.querySelector("[data-narrows]");
const heading = (option) => option.parentElement.label ?? "";

function narrow(box) {
  const list = listOf(box);
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (option) => words.every((word) => `${heading(option)} ${option.label}`.toLowerCase().includes(word));
  for (const option of list.options) option.hidden = !holds(option);
  for (const group of list.querySelectorAll("optgroup")) group.hidden = [...group.children].every((one) => one.hidden);
  const found = [...list.options].filter((one) => !one.hidden && !one.disabled);
  list.size = words.length ? Math.min(Math.max(found.length, 2), IN_SIGHT) : 0;
  return found;
}

function close(box) {
  box.value = "";
  narrow(box);
}

document.addEventListener("input", ({ target }) => { if (target.matches("[data-narrows]")) narrow(target); });

document.addEventListener("keydown", (event) => {
  const box = boxOf(event.target);
  if (!box?.value) {
    if (event.target === box && event.key === "Enter") event.preventDefault(); // it searches, and submits nothing
    return;
  }
  const list = listOf(box);
  if (event.key === "ArrowDown" && event.target === box) {
    event.preventDefault();
    list.focus();
  }
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  const [first] = narrow(box);
  if (event.key === "Enter" && event.target === box && first) {
    list.value = first.value;
    list.dispatchEvent(new Event("change", { bubbles: true }));
  }
  close(box);
  list.focus();
});

document.addEventListener("click", ({ target }) => {
  const box = target.matches("option") && boxOf(target);
  if (box?.value) close(box);
});

document.addEventListener("focusout", (event) => {
  const box = boxOf(event.target);
  if (box?.value && !box.closest(".pick").contains(event.relatedTarget)) close(box);
});

document.documentElement.classList.add("can-pick");
