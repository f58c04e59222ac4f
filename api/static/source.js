// The picture to start from, and its mask: chosen, dropped or pasted, sent to the farm at once and shown; the mask is
// drawn over it and goes along with the form.

import { postFile } from "./api.js";
import { setUp } from "./easel.js";

const UPLOADS = "/api/v1/uploads";
const DRAWN = "drawn"; // stands for the id of a mask that the farm has not got yet

export function startSource(form) {
  const source = form.querySelector("[data-source]");
  const group = source.closest("details");
  const part = (name) => group.querySelector(`[data-shows="${name}"]`);
  const box = (name) => form.elements[name];
  const [picture, says] = [part("source"), part("sending")];
  const [kept, masked] = [box("img2img.picture"), box("img2img.mask.picture")];
  const [file, maskFile] = [box("img2img.file"), box("img2img.mask.file")];
  const draw = group.querySelector('[data-masks="draw"]');
  const render = form.querySelector(".primary");
  const easel = setUp(group, picture);
  let taken = 0; // pictures so far: an answer to an earlier one that comes late is let go
  const loaded = (image) => (image.complete && image.naturalWidth ? Promise.resolve() : image.decode());

  function show() {
    const hasPicture = kept.value !== "";
    const hasMask = easel.isOpen || masked.value !== "";
    part("stage").hidden = part("kept").hidden = !hasPicture;
    part("masking").hidden = !hasPicture || !kept.checked;
    part("masked").hidden = part("mask-options").hidden = !hasMask;
    draw.hidden = easel.isOpen;
    part("asks").textContent = hasPicture ? "Another picture" : "Source picture";
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
    group.open = true;
    source.closest(".group").scrollIntoView({ block: "nearest" });
    says.textContent = "Sending the picture…";
    render.disabled = true;
    try {
      const { id, width, height } = await postFile(UPLOADS, given);
      if (isLate()) return;
      dropMask();
      picture.src = `${UPLOADS}/${id}`;
      await loaded(picture);
      if (isLate()) return;
      tick(kept, id);
      says.textContent = `${width} × ${height} pixels`;
    } catch (error) {
      if (isLate()) return;
      says.textContent = `That picture was not taken: ${error.message}`;
    }
    render.disabled = false;
    file.value = "";
    show();
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

  async function takeMask(blob) {
    try {
      const drawn = await createImageBitmap(blob);
      await openMask();
      easel.mask.take(drawn);
    } catch {
      says.textContent = "That mask cannot be read as a picture.";
    }
    maskFile.value = "";
  }

  async function loadKeptMask() {
    const known = new Image();
    known.src = `${UPLOADS}/${masked.value}`;
    await known.decode();
    await openMask();
    easel.mask.take(known, { isKnown: true });
  }

  easel.onchange(() => {
    masked.checked = !easel.mask.isEmpty;
    masked.value ||= DRAWN;
    show();
  });
  // What was drawn goes along as a file, in the place of what the farm knew before.
  form.addEventListener("formdata", ({ formData }) => {
    if (masked.value !== DRAWN && !(easel.isOpen && easel.mask.isChanged)) return;
    formData.delete("img2img.mask.picture");
    if (masked.checked && !easel.mask.isEmpty) formData.set("img2img.mask.file", easel.mask.file());
  });
  file.addEventListener("change", () => { if (file.files[0]) take(file.files[0]); });
  maskFile.addEventListener("change", () => { if (maskFile.files[0]) takeMask(maskFile.files[0]); });
  kept.addEventListener("change", show);
  draw.addEventListener("click", async () => { await openMask(); easel.mask.canvas.focus(); });
  document.addEventListener("paste", (event) => {
    const [pasted] = [...(event.clipboardData?.files ?? [])].filter((one) => one.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    take(pasted);
  });

  show();
  if (masked.value) loadKeptMask().catch(() => {}); // shown again when it is there again
  else if (kept.value && location.hash === "#inpaint") openMask().then(() => group.scrollIntoView());
  return { take };
}
