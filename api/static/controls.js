// Beside each control picture stands what its net would be given: it follows the picture, the preprocessor with its
// numbers, and the size. The farm computes it, by the same functions as for the job.

import { postFile, postJson } from "./api.js";
import { _ } from "./texts.js";

const PAUSE = 300; // milliseconds without a change before the farm is asked
const UPLOADS = "/api/v1/uploads";
const PREVIEW = "/api/v1/controlnet/preview";
const MATTERS = /^(controlnet\.|img2img\.|(width|height|checkpoint)$)/;
const uploads = new WeakMap(); // ids by file: each is sent once

const value = (box) => (box.type === "checkbox" ? box.checked : box.value.trim());
const number = (box) => {
  const typed = value(box);
  const read = Number(typed.replace(",", "."));
  return Number.isNaN(read) ? typed : read; // other texts are refused with the reason
};
// Boxes that are empty stand for the usual value, so they are left out.
const filled = (boxes) => Object.fromEntries(Object.entries(boxes).filter(([, box]) => value(box) !== "").map(([name, box]) => [name, box.inputMode ? number(box) : value(box)]));

function sent(file) {
  if (!uploads.has(file)) {
    uploads.set(file, postFile(UPLOADS, file).then(({ id }) => id));
    uploads.get(file).catch(() => uploads.delete(file));
  }
  return uploads.get(file);
}

// As a data URL: the only picture from a script that the page's security policy allows.
const address = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => resolve(reader.result));
  reader.addEventListener("error", () => reject(reader.error));
  reader.readAsDataURL(blob);
});

function view(field, legend) {
  const figure = Object.assign(document.createElement("figure"), { className: "net-view", hidden: true });
  const size = Object.assign(document.createElement("button"), { type: "button", title: _("Larger or smaller") });
  const image = Object.assign(document.createElement("img"), { alt: _("What %(net)s is given", { net: legend }) });
  const says = Object.assign(document.createElement("figcaption"), { className: "hint" });
  const scale = (isLarge) => {
    size.setAttribute("aria-expanded", isLarge);
    field.classList.toggle("span-all", isLarge);
  };
  says.setAttribute("role", "status");
  size.addEventListener("click", () => scale(size.getAttribute("aria-expanded") === "false"));
  size.append(image);
  figure.append(size, says);
  field.append(figure);
  scale(false);
  return { figure, size, image, says };
}

function startPreview(form, preprocessor, source) {
  const at = preprocessor.name.replace(/\.preprocessor$/, "");
  const box = (name) => form.elements[`${at}.${name}`];
  const part = (name) => form.elements[`img2img.${name}`];
  const fieldset = preprocessor.closest("fieldset");
  const group = preprocessor.closest("details");
  const file = box("picture.file");
  const { figure, size, image, says } = view(file.closest(".field"), fieldset.querySelector("legend").textContent);
  let timer = 0;
  let shown = ""; // the body that the picture on show is the answer to
  let isAsking = false;
  let isBehind = false; // the form has changed since the farm was asked

  const held = () => fieldset.querySelector(`[name="${at}.picture"]:checked`)?.value;
  const isMasked = () => preprocessor.value === "inpaint" || part("mask.area").value === "only masked";

  function start() {
    if (!part("picture").checked || !part("picture").value) return undefined;
    const mask = isMasked() ? source.mask() : "";
    const how = { blur: part("mask.blur"), invert: part("mask.invert"), area: part("mask.area"), padding: part("mask.padding") };
    return { picture: part("picture").value, resize_mode: part("resize_mode").value, ...(mask && { mask: { picture: mask, ...filled(how) } }) };
  }

  // The job as far as the picture depends on it; undefined while there is no picture to follow.
  function body(picture) {
    const over = start();
    if (!picture && !over) return undefined;
    const unit = filled({ preprocessor, threshold_a: box("threshold_a"), threshold_b: box("threshold_b"), resize: box("resize") });
    const { checkpoint, width, height } = form.elements;
    return JSON.stringify({ controlnet: [{ model: "", picture, ...unit }], img2img: over, ...filled({ checkpoint, width, height }) });
  }

  function tell(words, isCurrent) {
    figure.hidden = false;
    size.hidden = !image.hasAttribute("src");
    figure.classList.toggle("is-old", !isCurrent);
    figure.setAttribute("aria-busy", false);
    if (says.textContent !== words) says.textContent = words;
  }

  function excuse({ field = "", message }) {
    const name = field === "file" ? `${at}.picture` : field.replace(/^controlnet\.0(?=\.)/, at);
    const label = name && form.querySelector(`label[for="${CSS.escape(name)}"]`)?.textContent.trim();
    tell(_("No preview: %(why)s", { why: [label, message].filter(Boolean).join(" ") }), false);
  }

  // Shows what the form says now, unless that changes meanwhile.
  async function follow() {
    try {
      const wanted = body(file.files[0] ? await sent(file.files[0]) : held());
      if (!wanted) [figure.hidden, shown] = [true, ""];
      if (!wanted || isBehind) return;
      if (wanted !== shown) {
        figure.setAttribute("aria-busy", true);
        const picture = await address(await postJson(PREVIEW, JSON.parse(wanted), undefined, (answer) => answer.blob()));
        if (isBehind) return;
        [image.src, shown] = [picture, wanted];
        await image.decode();
      }
      if (!isBehind) tell(`${preprocessor.selectedOptions[0].textContent.trim()}, ${image.naturalWidth}\u00a0×\u00a0${image.naturalHeight}`, true);
    } catch (error) {
      shown = ""; // the same is tried again
      if (!isBehind) excuse(error);
    }
  }

  // One request at a time: the farm computes an answer to its end, even if nobody waits for it.
  async function ask() {
    if (!group.open) return;
    isBehind = true;
    if (isAsking) return;
    isAsking = true;
    while (isBehind) {
      isBehind = false;
      await follow();
    }
    isAsking = false;
  }

  const askSoon = () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE); };
  for (const kind of ["input", "change"]) form.addEventListener(kind, ({ target }) => { if (!target.name || MATTERS.test(target.name)) askSoon(); });
  group.addEventListener("toggle", askSoon);
  addEventListener("pageshow", askSoon); // what a browser has put back itself
}

export function startControls(form, source) {
  for (const box of form.querySelectorAll('[name^="controlnet."][name$=".preprocessor"]')) startPreview(form, box, source);
}
