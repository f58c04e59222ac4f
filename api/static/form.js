// Makes the form quicker to use; every field works without it.

import { startAdapters } from "./adapters.js";
import { followArchitectures } from "./architectures.js";
import { startBoxes } from "./boxes.js";
import { startControls } from "./controls.js";
import { startDraft } from "./draft.js";
import { startDropping } from "./drop.js";
import { startWaiting } from "./early.js";
import { startFinding } from "./find.js";
import { startGroups } from "./groups.js";
import { followSamplers } from "./samplers.js";
import { startSizes } from "./sizes.js";
import { startSource } from "./source.js";
import { startSubmitting } from "./submit.js";
import { startCounting } from "./tokens.js";
import { startVarying } from "./vary.js";
import { startInstants } from "./when.js";

const form = document.querySelector(".composer");

await startDraft(form);

const early = startWaiting(form);
startSubmitting(form, early.wait);

startBoxes(form);
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

document.querySelector("main").addEventListener("drawn", () => { sizes.follow(); architectures.follow(); early.goOff(); });
early.goOff();
