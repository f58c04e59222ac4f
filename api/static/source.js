// The picture to start from, and its mask: chosen, dropped or pasted, sent to the farm at once and shown; the mask is
// drawn over it and goes along with the form.

import { postFile } from "./api.js";
import { setUp } from "./easel.js";
import { _ } from "./texts.js";

const UPLOADS = "/api/v1/uploads";
const PAUSE = 400; // milliseconds after a stroke until it is kept
const LARGEST = 1_500_000; // characters of a mask that the history can hold
const DRAWN = "drawn"; // stands for the id of a mask that the farm has not got yet

export function startSource(form, onPicture) {
  const source = form.querySelector("[data-source]");
  const group = source.closest("details") ?? source;
  const part = (name) => group.querySelector(`[data-shows="${name}"]`);
  const box = (name) => form.elements[name];
  const [picture, says] = [part("source"), part("sending")];
  const [kept, masked] = [box("img2img.picture"), box("img2img.mask.picture")];
  const [file, maskFile] = [box("img2img.file"), box("img2img.mask.file")];
  const draw = group.querySelector('[data-masks="draw"]');
  const render = form.querySelector(".primary");
  const easel = setUp(group, picture);
  const draws = "begins" in source.dataset; // drawing is what a picture is there for
  let noting = 0;
  let taken = 0; // pictures so far: an answer to an earlier one that comes late is let go
  const loaded = (image) => (image.complete && image.naturalWidth ? Promise.resolve() : image.decode());

  function show() {
    const hasPicture = kept.value !== "";
    const hasMask = easel.isOpen || masked.value !== "";
    part("stage").hidden = part("kept").hidden = !hasPicture;
    part("masking").hidden = part("outpainting").hidden = !hasPicture || !kept.checked;
    part("masked").hidden = part("mask-options").hidden = !hasMask;
    draw.hidden = easel.isOpen;
    part("asks").textContent = hasPicture ? _("Another picture") : _("Source picture");
    part("stage").classList.toggle("is-idle", !kept.checked);
    for (const way of group.querySelectorAll('[data-shows="ways"]')) way.hidden = false;
  }

  function tick(check, id) {
    check.value = id;
    check.checked = id !== "";
    check.dispatchEvent(new Event("change", { bubbles: true }));
  }

  // Sends a picture and shows it as the one to start from. Until it is there no job goes off, as it would go without.
  async function take(given) {
    const turn = (taken += 1);
    const isLate = () => turn !== taken;
    unfold();
    if (!draws) group.scrollIntoView({ block: "nearest" });
    says.textContent = _("Sending the picture…");
    render.disabled = true;
    try {
      const { id, width, height } = await postFile(UPLOADS, given);
      if (isLate()) return;
      dropMask();
      picture.src = `${UPLOADS}/${id}`;
      await loaded(picture);
      if (isLate()) return;
      tick(kept, id);
      says.textContent = _("%(width)s × %(height)s pixels", { width, height });
      await onPicture();
      await begin();
    } catch (error) {
      if (isLate()) return;
      const name = given.name || _("That");
      says.textContent = _("%(name)s was not taken: %(why)s", { name, why: error.message });
    }
    render.disabled = false;
    file.value = "";
    show();
  }

  // The picture and its mask as they are now.
  function state() {
    const isDrawn = easel.isOpen && easel.mask.isChanged && !easel.mask.isEmpty;
    const mask = isDrawn ? easel.mask.url() : masked.value === DRAWN ? "" : masked.value;
    return { picture: kept.value, isKept: kept.checked, mask: mask.length > LARGEST ? "" : mask, isMasked: masked.checked };
  }

  // The history keeps picture and mask with this page, for coming back to it: browsers keep no more than the ticks.
  function note() {
    clearTimeout(noting);
    noting = 0;
    history.replaceState({ ...history.state, source: state() }, "");
  }

  function noteSoon() { noting ||= setTimeout(note, PAUSE); }

  function unfold() { if (group.matches("details")) group.open = true; }

  async function recall({ picture: id, isKept, mask, isMasked }) {
    if (!id) return;
    unfold();
    [kept.value, kept.checked] = [id, isKept];
    masked.value = mask;
    masked.checked = isMasked && mask !== "";
    picture.src = `${UPLOADS}/${id}`;
    kept.dispatchEvent(new Event("change", { bubbles: true }));
    if (!mask) return;
    await drawKnown(mask.startsWith("data:") ? mask : `${UPLOADS}/${mask}`, !mask.startsWith("data:"));
    masked.checked = isMasked;
    if (mask.startsWith("data:")) masked.value = DRAWN;
  }

  function dropMask() {
    easel.close();
    tick(masked, "");
    masked.checked = false;
  }

  async function openMask() {
    await loaded(picture);
    easel.open();
    show();
  }

  // The mask is open at once, and in sight: the easel comes above what one has just pressed.
  async function begin() {
    if (draws && kept.value) {
      await openMask();
      part("stage").scrollIntoView({ block: "nearest" });
    }
    show();
  }

  async function takeMask(blob) {
    try {
      const drawn = await createImageBitmap(blob);
      await openMask();
      easel.mask.take(drawn);
    } catch {
      says.textContent = _("That mask cannot be read as a picture.");
    }
    maskFile.value = "";
  }

  async function drawKnown(address, isKnown) {
    const known = new Image();
    known.src = address;
    await known.decode();
    await openMask();
    easel.mask.take(known, { isKnown });
  }

  easel.onchange(() => {
    masked.checked = !easel.mask.isEmpty;
    masked.value ||= DRAWN;
    show();
    masked.dispatchEvent(new Event("change", { bubbles: true }));
  });
  // The drawn mask is sent as a file and replaces the former one; for a ticked box without a mask the farm answers an error.
  form.addEventListener("formdata", ({ formData }) => {
    if (masked.value !== DRAWN && !(easel.isOpen && easel.mask.isChanged)) return;
    if (masked.checked) formData.set("img2img.mask.picture", "");
    if (masked.checked && !easel.mask.isEmpty) formData.set("img2img.mask.file", easel.mask.file());
  });
  // The mask as the job would take it: an upload, a data URL, or nothing.
  function mask() {
    if (!masked.checked) return "";
    if (masked.value !== DRAWN && !(easel.isOpen && easel.mask.isChanged)) return masked.value;
    return easel.mask.isEmpty ? "" : easel.mask.url();
  }

  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0]); });
  maskFile.addEventListener("change", () => { if (maskFile.files[0]) takeMask(maskFile.files[0]); });
  kept.addEventListener("change", show);
  form.addEventListener("change", noteSoon);
  form.addEventListener("submit", note);
  addEventListener("pagehide", () => { if (noting) note(); });
  draw.addEventListener("click", async () => { await openMask(); easel.mask.canvas.focus(); });
  document.addEventListener("paste", (event) => {
    const [pasted] = [...(event.clipboardData?.files ?? [])].filter((one) => one.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    take(pasted);
  });

  const was = history.state?.source;
  // Ticked by the browser, for what it has not kept.
  for (const check of [kept, masked]) check.checked &&= check.value !== "";
  show();
  if (was) recall(was).then(begin, show);
  else if (masked.value) drawKnown(`${UPLOADS}/${masked.value}`, true).catch(() => {}); // shown again when it is there again
  else if (kept.value) begin();
  // Goes back to a picture and its mask, as `state` returned them.
  async function goTo(earlier) {
    taken += 1;
    dropMask();
    await recall(earlier);
    await begin();
    note();
  }

  return { take, mask, state, goTo };
}
