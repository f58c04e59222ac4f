// Zooms and moves one picture, or several alike: by wheel, pinch and drag. A swipe goes to a callback.

const MOST = 16;
const SWIPE = 60; // pixels

export function zooming(stage, images, { onSwipe = () => {}, fitted = () => 1 } = {}) {
  const fingers = new Map();
  let scale = 1; // of what fits
  let [x, y] = [0, 0];
  let [start, gap] = [null, 0];

  const draw = () => {
    for (const { style } of images()) [style.translate, style.scale] = [`${x}px ${y}px`, scale * fitted()];
  };
  const set = (to, at = [0, 0]) => {
    const next = Math.min(Math.max(to, 1), MOST);
    [x, y] = next === 1 ? [0, 0] : [at[0] - ((at[0] - x) * next) / scale, at[1] - ((at[1] - y) * next) / scale];
    scale = next;
    draw();
  };
  const middle = (element, event) => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  };
  const apart = () => {
    const [one, other] = [...fingers.values()];
    return Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
  };

  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    set(scale * Math.exp(-event.deltaY / 400), middle(event.target.closest("[data-frame]") ?? stage, event));
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    stage.setPointerCapture?.(event.pointerId);
    fingers.set(event.pointerId, event);
    if (fingers.size === 1) start = event;
    else [start, gap] = [null, apart()];
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const now = apart();
      set((scale * now) / gap);
      gap = now;
    } else if (scale > 1) {
      [x, y] = [x + event.clientX - before.clientX, y + event.clientY - before.clientY];
      draw();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      const moved = start && fingers.has(event.pointerId) && scale === 1 ? event.clientX - start.clientX : 0;
      fingers.delete(event.pointerId);
      start = null;
      if (end === "pointerup" && Math.abs(moved) > SWIPE) onSwipe(moved < 0 ? 1 : -1);
    });
  }
  return { set, by: (factor) => set(scale * factor), draw, scale: () => scale };
}
