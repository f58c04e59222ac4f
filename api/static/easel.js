// Draws a mask over a picture: with mouse, pen or finger, or with keys; the view can be larger than the window.

import { Mask } from "./mask.js";
import { _ } from "./texts.js";

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];

export function setUp(source, picture) {
  const part = (name) => source.querySelector(`[data-shows="${name}"]`);
  const tool = (name) => source.querySelector(`[data-masks="${name}"]`);
  const [easel, brushes] = [part("easel"), part("brushes")];
  const canvas = document.createElement("canvas");
  const ring = document.createElement("span");
  const mask = new Mask(canvas);
  const at = { x: 0, y: 0 };
  let [erases, zoom, stroke, isDown] = [false, 0, null, false];

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
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    follow(event);
    begin();
  });
  canvas.addEventListener("pointermove", (event) => {
    for (const one of event.getCoalescedEvents?.() ?? [event]) { follow(one); stroke?.to(at.x, at.y); }
    follow(event);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, end);

  function choose(eraser) {
    erases = eraser;
    tool("brush").setAttribute("aria-pressed", String(!eraser));
    tool("eraser").setAttribute("aria-pressed", String(eraser));
  }

  function resize(by) {
    tool("size").value = Number(tool("size").value) + by;
    place(at.x, at.y);
  }

  function look(step) {
    zoom = step === 0 ? 0 : Math.min(Math.max(zoom + step, 0), ZOOMS.length - 1);
    easel.style.width = `${ZOOMS[zoom] * 100}%`;
    place(at.x, at.y);
  }

  const does = {
    brush: () => choose(false),
    eraser: () => choose(true),
    undo: () => mask.canUndo && mask.undo(),
    redo: () => mask.canRedo && mask.redo(),
    invert: () => mask.invert(),
    clear: () => mask.clear(),
    out: () => look(-1),
    fit: () => look(0),
    in: () => look(1),
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
    if (event.key === " ") return () => { isDown = true; begin(); };
    if (event.key === "[" || event.key === "]") return () => resize(event.key === "[" ? -4 : 4);
    if (event.key in ways) {
      const far = event.shiftKey ? 1 : Math.max(1, radius());
      const [x, y] = ways[event.key];
      return () => {
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
  const lift = () => { isDown = false; end(); };
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
      look(0);
      place(canvas.width / 2, canvas.height / 2);
    },
    close() {
      canvas.hidden = ring.hidden = brushes.hidden = true;
      look(0);
    },
  };
}
