// Draws a mask over a picture: with mouse, pen or finger, or with keys. The view can be larger than the window: the wheel
// zooms at the pointer (with Ctrl, unless the stage has `data-zooms`), the space bar or the middle button moves it.

import { Mask } from "./mask.js";
import { _ } from "./texts.js";

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const WHEEL = 400; // pixels of the wheel in which the view grows by a factor of e

export function setUp(source, picture) {
  const part = (name) => source.querySelector(`[data-shows="${name}"]`);
  const tool = (name) => source.querySelector(`[data-masks="${name}"]`);
  const [easel, brushes] = [part("easel"), part("brushes")];
  const canvas = document.createElement("canvas");
  const ring = document.createElement("span");
  const mask = new Mask(canvas);
  const at = { x: 0, y: 0 };
  const stage = easel.parentElement;
  let [erases, zoom, stroke, isDown] = [false, 1, null, false];
  let byKeys = true; // the brush was moved last by keys, so that the space bar paints
  let [isHeld, grip] = [false, null]; // the space bar is held to move the view; where the view is held

  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", _("Mask over the picture"));
  canvas.setAttribute("aria-describedby", "mask-keys");
  ring.className = "ring";
  canvas.hidden = ring.hidden = true;
  easel.append(canvas, ring);

  const radius = () => Math.max(0.5, (Number(tool("size").value) / 400) * Math.min(canvas.width, canvas.height));
  const scale = () => canvas.clientWidth / canvas.width;

  function place(x, y) {
    [at.x, at.y] = [Math.min(Math.max(x, 0), canvas.width), Math.min(Math.max(y, 0), canvas.height)];
    const across = radius() * 2 * scale();
    Object.assign(ring.style, { width: `${across}px`, height: `${across}px`, translate: `${at.x * scale() - across / 2}px ${at.y * scale() - across / 2}px` });
  }

  function follow(event) {
    const box = canvas.getBoundingClientRect();
    place(((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height);
  }

  const begin = () => { stroke ??= mask.stroke(radius(), erases, at.x, at.y); };
  const end = () => { stroke?.end(); stroke = null; };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button === 1 || (event.button === 0 && isHeld)) {
      canvas.setPointerCapture(event.pointerId);
      grip = { x: event.clientX + stage.scrollLeft, y: event.clientY + stage.scrollTop };
      return;
    }
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    follow(event);
    begin();
  });
  canvas.addEventListener("mousedown", (event) => { if (event.button === 1) event.preventDefault(); }); // no scrolling by itself
  canvas.addEventListener("pointermove", (event) => {
    byKeys = false;
    if (grip) {
      [stage.scrollLeft, stage.scrollTop] = [grip.x - event.clientX, grip.y - event.clientY];
      return;
    }
    for (const one of event.getCoalescedEvents?.() ?? [event]) { follow(one); stroke?.to(at.x, at.y); }
    follow(event);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { grip = null; end(); });

  function choose(eraser) {
    erases = eraser;
    tool("brush").setAttribute("aria-pressed", String(!eraser));
    tool("eraser").setAttribute("aria-pressed", String(eraser));
  }

  function resize(by) {
    tool("size").value = Number(tool("size").value) + by;
    place(at.x, at.y);
  }

  // In a stage of its own height the whole picture is seen, whatever its proportions.
  function fit() {
    if (!("zooms" in stage.dataset) || !picture.naturalWidth) return 1;
    return Math.min(1, (stage.clientHeight * picture.naturalWidth) / picture.naturalHeight / stage.clientWidth);
  }

  // Zooms so that what is at a point of the window stays there; without one, what is in the middle.
  function look(to, point) {
    const view = stage.getBoundingClientRect();
    const { clientX, clientY } = point ?? { clientX: view.left + view.width / 2, clientY: view.top + view.height / 2 };
    const before = easel.getBoundingClientRect();
    const [x, y] = [(clientX - before.left) / before.width, (clientY - before.top) / before.height];
    zoom = Math.min(Math.max(to, 1), ZOOMS.at(-1));
    easel.style.width = `${zoom * fit() * 100}%`;
    const after = easel.getBoundingClientRect();
    stage.scrollLeft += after.left + x * after.width - clientX;
    stage.scrollTop += after.top + y * after.height - clientY;
    place(at.x, at.y);
  }

  stage.addEventListener("wheel", (event) => {
    if (canvas.hidden || !("zooms" in stage.dataset || event.ctrlKey)) return;
    event.preventDefault();
    look(zoom * Math.exp(-event.deltaY / WHEEL), event);
  }, { passive: false });
  addEventListener("resize", () => { if (!canvas.hidden) look(zoom); });

  const does = {
    brush: () => choose(false),
    eraser: () => choose(true),
    undo: () => mask.canUndo && mask.undo(),
    redo: () => mask.canRedo && mask.redo(),
    invert: () => mask.invert(),
    clear: () => mask.clear(),
    out: () => look(ZOOMS.findLast((one) => one < zoom) ?? 1),
    fit: () => look(1),
    in: () => look(ZOOMS.find((one) => one > zoom) ?? zoom),
  };
  for (const [name, deed] of Object.entries(does)) tool(name).addEventListener("click", deed);
  tool("size").addEventListener("input", () => place(at.x, at.y));

  const keys = { b: "brush", e: "eraser", i: "invert", Delete: "clear", Backspace: "clear", "+": "in", "=": "in", "-": "out", 0: "fit" };
  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function press(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && event.key.toLowerCase() === "z") return does[event.shiftKey ? "redo" : "undo"];
    if (isCommand && event.key.toLowerCase() === "y") return does.redo;
    if (isCommand || event.altKey) return undefined;
    if (event.key === " ") return byKeys ? () => { isDown = true; begin(); } : () => { [isHeld, canvas.style.cursor] = [true, "grab"]; };
    if (event.key === "[" || event.key === "]") return () => resize(event.key === "[" ? -4 : 4);
    if (event.key in ways) {
      const far = event.shiftKey ? 1 : Math.max(1, radius());
      const [x, y] = ways[event.key];
      return () => {
        byKeys = true;
        place(at.x + x * far, at.y + y * far);
        ring.scrollIntoView({ block: "nearest", inline: "nearest" }); // the view may be larger than the window
        if (isDown) stroke?.to(at.x, at.y);
      };
    }
    return does[keys[event.key] ?? keys[event.key.toLowerCase()]];
  }

  canvas.addEventListener("keydown", (event) => {
    const deed = press(event);
    if (!deed) return;
    event.preventDefault();
    deed();
  });
  const lift = () => { [isDown, isHeld, canvas.style.cursor] = [false, false, ""]; end(); };
  canvas.addEventListener("keyup", (event) => { if (event.key === " ") lift(); });
  canvas.addEventListener("blur", lift);

  function showSteps() {
    tool("undo").disabled = !mask.canUndo;
    tool("redo").disabled = !mask.canRedo;
  }

  return {
    mask,
    get isOpen() { return !canvas.hidden; },
    onchange: (listen) => { mask.onchange = () => { showSteps(); listen(); }; },
    // A fresh mask over the picture that is shown now.
    open() {
      if (!canvas.hidden || !picture.naturalWidth) return;
      canvas.hidden = ring.hidden = brushes.hidden = false;
      mask.start(picture.naturalWidth, picture.naturalHeight);
      showSteps();
      choose(false);
      look(1);
      place(canvas.width / 2, canvas.height / 2);
    },
    close() {
      canvas.hidden = ring.hidden = brushes.hidden = true;
      look(1);
    },
  };
}
