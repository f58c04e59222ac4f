// Counts the tokens of the prompts while they are written: "23 / 75" beside the label.

import { postJson } from "./api.js";
import { _ } from "./texts.js";

const PAUSE = 250; // milliseconds without a key before the farm is asked

function counts(form, box, shown) {
  const { sampler, steps, emphasis, checkpoint } = form.elements; // they say what weights, edits and words of a prompt mean
  let timer = 0;
  let asking = new AbortController();

  const job = () => ({ [box.name]: box.value, sampler: sampler.value, steps: Number(steps.value) || 1, emphasis: emphasis.value, checkpoint: checkpoint.value });

  async function ask() {
    asking.abort();
    asking = new AbortController();
    try {
      const { tokens, limit } = await postJson("/api/v1/tokens", job(), asking.signal);
      shown.textContent = `${tokens} / ${limit}`;
      shown.title = _("%(tokens)s of %(limit)s tokens; 75 are read together", { tokens, limit });
      shown.hidden = box.value.trim() === "";
    } catch (error) {
      if (error.name === "AbortError") return;
      [shown.textContent, shown.title] = [_("too long"), error.message];
      shown.hidden = error.field !== box.name; // without an answer there is no number
    }
  }

  const askSoon = () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE); };
  for (const kind of ["input", "change"]) box.addEventListener(kind, askSoon);
  for (const other of [sampler, steps, emphasis, checkpoint]) other.addEventListener("change", askSoon);
  if (box.value.trim()) ask();
}

export function startCounting(form) {
  for (const shown of form.querySelectorAll("[data-counts]")) counts(form, form.elements[shown.dataset.counts], shown);
}
