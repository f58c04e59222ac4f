// Long lists: a box above a list, in which words leave only the choices that hold them, or that they find. Of very many
// model files (`data-more`) a list has the first ones, and the farm is asked for those that hold the words.

import { askFarm } from "./farm.js";

const IN_SIGHT = 8; // choices of a list while it is searched
const PAUSE = 250; // milliseconds without a key before the farm is asked
const asking = new WeakMap(); // box -> how to stop its question

const listOf = (box) => box.closest(".pick").querySelector("select");
const boxOf = (element) => element.closest?.(".pick")?.querySelector("[data-narrows]");
const heading = (option) => option.parentElement.label ?? "";

function narrow(box) {
  const list = listOf(box);
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const holds = (option) => words.every((word) => [heading(option), option.label, option.dataset.foundBy].join(" ").toLowerCase().includes(word));
  for (const option of list.options) option.hidden = !holds(option) && !option.hasAttribute("data-found");
  for (const group of list.querySelectorAll("optgroup")) group.hidden = [...group.children].every((one) => one.hidden);
  const found = [...list.options].filter((one) => !one.hidden && !one.disabled);
  list.size = words.length ? Math.min(Math.max(found.length, 2), IN_SIGHT) : 0;
  return found;
}

// The choice stays, in a list of others too.
function replace(list, options, words) {
  const chosen = list.selectedOptions[0];
  for (const option of options.querySelectorAll("option")) option.toggleAttribute("data-found", words !== "");
  list.replaceChildren(...options.children);
  if (!chosen) return;
  chosen.removeAttribute("data-found");
  if (![...list.options].some((one) => one.value === chosen.value)) list.append(chosen);
  list.value = chosen.value;
}

async function ask(box, pause = PAUSE) {
  const list = listOf(box);
  if (!list.matches("[data-more]")) return;
  asking.get(box)?.abort();
  const question = new AbortController();
  asking.set(box, question);
  await new Promise((resolve) => setTimeout(resolve, pause));
  if (question.signal.aborted) return;
  const words = box.value.trim();
  try {
    const wanted = new URLSearchParams({ field: list.id, search: words });
    const answer = await askFarm(`/choices?${wanted}`, { signal: question.signal });
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    replace(list, page.querySelector("select"), words);
    narrow(box);
  } catch {} // the list stays as it is
}

function close(box) {
  box.value = "";
  narrow(box);
  ask(box, 0); // for the first files again
}

document.addEventListener("input", ({ target }) => {
  if (!target.matches("[data-narrows]")) return;
  narrow(target);
  ask(target);
});

document.addEventListener("keydown", async (event) => {
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
  const words = box.value;
  if (event.key === "Enter" && event.target === box) await ask(box, 0);
  if (box.value !== words) return; // it is typed on, and the list is that of other words
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
