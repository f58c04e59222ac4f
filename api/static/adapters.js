// LoRAs, hypernetworks and embeddings: searches them, weighs them and writes them into the prompts.

import { askFarm } from "./farm.js";
import { _, ngettext } from "./texts.js";

const PAUSE = 250; // milliseconds without a key before the farm is asked

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// The text that uses a file with a weight, and what a prompt may have in its place.
function said({ kind, name }, weight) {
  if (kind) return `<${kind}:${name}:${weight}>`;
  return weight === 1 ? name : `(${name}:${weight})`;
}

function before({ kind, name }) {
  if (kind) return new RegExp(`<${kind}:${escaped(name)}(?::[^<>]*)?>`, "i");
  return new RegExp(`\\(${escaped(name)}:[^()]*\\)|(?<!\\w)${escaped(name)}(?!\\w)`, "i");
}

function write(box, text, known) {
  const found = known.exec(box.value);
  if (found) box.value = box.value.slice(0, found.index) + text + box.value.slice(found.index + found[0].length);
  else box.value = [box.value.trimEnd(), text].filter(Boolean).join(text.startsWith("<") ? " " : ", ");
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

export function startAdapters(form) {
  const part = form.querySelector("#adapters");
  if (!part) return;
  const [list, search, told] = ["[data-adapters]", "[type=search]", "[data-told]"].map((one) => part.querySelector(one));
  const { checkpoint } = form.elements;
  const weightOf = (item) => Number(item.querySelector("[type=range]").value);
  let timer = 0;
  let asking = new AbortController();

  async function ask() {
    clearTimeout(timer);
    asking.abort();
    asking = new AbortController();
    const wanted = new URLSearchParams({ search: search.value, checkpoint: checkpoint.value });
    try {
      const answer = await askFarm(`/adapters?${wanted}`, { signal: asking.signal });
      if (!answer?.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      list.replaceChildren(...page.body.childNodes);
      const shown = list.querySelectorAll(".adapter").length;
      told.textContent = ngettext("%(num)s file shown", "%(num)s files shown", shown);
    } catch (error) {
      if (error.name !== "AbortError") told.textContent = _("The farm does not answer: the list is as it was.");
    }
  }

  const askSoon = () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE); };
  search.addEventListener("input", askSoon);
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // it searches, and renders nothing
    ask();
  });
  checkpoint.addEventListener("change", () => { if (part.open) ask(); });
  part.addEventListener("toggle", () => { if (part.open) ask(); });

  list.addEventListener("input", ({ target }) => {
    const item = target.closest(".adapter");
    if (target.type !== "range" || !item) return;
    item.querySelector('[data-shows="weight"]').textContent = target.value;
    item.querySelector('[data-shows="text"]').textContent = said(item.dataset, weightOf(item));
  });

  list.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    const item = button?.closest(".adapter");
    if (!item) return;
    const { into = "prompt", word } = button.dataset;
    const text = word ?? said(item.dataset, weightOf(item));
    write(form.elements[into], text, word ? new RegExp(`(?<!\\w)${escaped(word)}(?!\\w)`, "i") : before(item.dataset));
    told.textContent = into === "prompt" ? _("The prompt has %(text)s", { text }) : _("The negative prompt has %(text)s", { text });
  });

  part.classList.add("is-live");
}
