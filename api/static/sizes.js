// The size: what empty boxes stand for, and what fits the picture to start from, so that it is not squashed. And what the
// chosen checkpoint is.

import { askFarm } from "./farm.js";
import { _ } from "./texts.js";

// `isOwn`: a picture brings its own size, not one of its proportions that the checkpoint draws well.
export function startSizes(form, { isOwn = false } = {}) {
  const { checkpoint, width, height } = form.elements;
  const part = (name) => form.querySelector(`[data-shows="${name}"]`);
  const own = form.querySelector('[data-does="own"]');
  const source = () => (form.elements["img2img.picture"].checked ? form.elements["img2img.picture"].value : "");
  let fitted = ""; // the size that was filled in here
  let keepsOwn = false; // that is the picture's own, asked for by a press: it stays whatever the checkpoint
  let turn = 0;

  // A picture that is extended brings its size with it.
  const isExtended = () =>
    ["left", "right", "top", "bottom"].some((side) => Number(form.elements[`img2img.outpaint.${side}`].value));

  const typed = () => `${width.value} × ${height.value}`;
  function put(wide, high) {
    [width.value, height.value] = [wide, high];
    width.dispatchEvent(new Event("change", { bubbles: true }));
  }

  function fill(wide, high) {
    put(wide, high);
    fitted = typed();
  }

  function stand(wide, high, what) {
    [width.placeholder, height.placeholder] = [wide, high];
    part("own").textContent = `${what}, ${wide} × ${high}`;
  }

  const sizes = async (id) => {
    const answer = await askFarm(`/size?${new URLSearchParams({ source: id, checkpoint: checkpoint.value })}`);
    return answer?.ok ? answer.json() : undefined;
  };

  // A picture that was just chosen brings its proportions, also in the place of a size that was typed before.
  async function follow({ isNew = false } = {}) {
    const mine = (turn += 1);
    const id = source();
    const { native, traits = "" } = checkpoint.selectedOptions[0]?.dataset ?? {};
    part("traits").textContent = traits;
    if (!id) {
      if (native) stand(native, native, _("the checkpoint’s own"));
      if (fitted && fitted === typed()) put("", "");
      part("fitted").textContent = "";
      own.hidden = true;
      return;
    }
    if (isExtended()) {
      if (width.value || height.value) put("", "");
      [width.placeholder, height.placeholder] = ["", ""];
      part("own").textContent = _("the picture with its new sides");
      part("fitted").textContent = "";
      own.hidden = true;
      return;
    }
    const fit = await sizes(id).catch(() => undefined);
    if (!fit || mine !== turn) return;
    stand(fit.width, fit.height, _("the picture’s proportions"));
    own.textContent = _("Its own size, %(width)s × %(height)s", { width: fit.own_width, height: fit.own_height });
    own.hidden = false;
    own.onclick = () => { fill(fit.own_width, fit.own_height); keepsOwn = true; part("fitted").textContent = _("The picture’s own size."); };
    const isTyped = width.value !== "" || height.value !== "";
    const isFitted = fitted !== "" && fitted === typed();
    if (isOwn && (isNew || isFitted || !isTyped)) own.onclick();
    const isRight = keepsOwn || fitted === `${fit.width} × ${fit.height}`;
    if (isOwn || !(isNew || (isFitted && !isRight))) return;
    keepsOwn = false;
    const before = isTyped ? typed() : "";
    fill(fit.width, fit.height);
    part("fitted").textContent = before ? _("The picture’s proportions in the place of %(size)s.", { size: before }) : _("The picture’s proportions.");
  }

  const follows = ({ name = "" }) => ["checkpoint", "img2img.picture"].includes(name) || /outpaint\.(left|right|top|bottom)$/.test(name);
  form.addEventListener("change", (event) => { if (follows(event.target)) follow(); });
  for (const box of [width, height]) box.addEventListener("input", () => { part("fitted").textContent = ""; });
  follow();
  return { follow };
}
