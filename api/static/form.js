// Makes the form quicker to use; every field works without it.

import { startAdapters } from "./adapters.js";
import { followArchitectures } from "./architectures.js";
import { startBoxes } from "./boxes.js";
import { startControls } from "./controls.js";
import { startDraft } from "./draft.js";
import { startDropping } from "./drop.js";
import { startFinding } from "./find.js";
import { startGroups } from "./groups.js";
import { followSamplers } from "./samplers.js";
import { startSizes } from "./sizes.js";
import { startSource } from "./source.js";
import { startSubmitting } from "./submit.js";
import { _ } from "./texts.js";
import { startCounting } from "./tokens.js";
import { startVarying } from "./vary.js";
import { startInstants } from "./when.js";

const form = document.querySelector(".composer");
const render = form.querySelector(".primary");
const { checkpoint } = form.elements;

startDraft(form); // before anything else reads the fields

// Before anybody has looked at the models folder a job goes off as soon as somebody has.
const isLooking = () => checkpoint.selectedOptions[0]?.dataset.isLooking === "yes";
let waits = form.querySelector("[data-early]") !== null;

function tellWaiting() {
  form.querySelector('[data-shows="shortcut"]').hidden = waits;
  form.querySelector('[data-shows="waits"]').textContent = waits ? _("Scanning the models folder: your job will be submitted after that.") : "";
}

function goOff() {
  if (!waits || isLooking()) return;
  waits = false;
  tellWaiting();
  render.disabled = false;
  form.requestSubmit(render);
}

form.addEventListener("submit", (event) => {
  if (!isLooking()) return;
  event.preventDefault();
  waits = true;
  tellWaiting();
});

startSubmitting(form, () => { waits = true; tellWaiting(); });

startBoxes(form);
form.querySelector('[data-shows="shortcut"]').hidden = false;
const notice = document.getElementById("notice");
if (notice?.matches("[role=alert]")) notice.focus();
else if (!form.elements.prompt.value && !location.hash) form.elements.prompt.focus();

followSamplers(form);
const architectures = followArchitectures(form);
startGroups(form);
startFinding(form);
startAdapters(form);
startCounting(form);
startInstants(form);
const sizes = startSizes(form);
const source = startSource(form, () => sizes.follow({ isNew: true }));
startDropping(form, source);
startControls(form, source);
startVarying(form);

document.querySelector("main").addEventListener("drawn", () => { sizes.follow(); architectures.follow(); goOff(); });
tellWaiting();
goOff();
