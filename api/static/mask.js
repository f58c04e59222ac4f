// A mask as a list of deeds on a canvas (strokes, a file, an inversion), so that each can be taken back and done again.

const MOST = 100; // deeds that can be taken back; older ones stay as they are
const TINT = "#ff2f7d"; // seen on any picture; the mask that leaves the page is white on black

export class Mask {
  #paper;
  #deeds = [];
  #undone = [];
  #known; // the last deed of what the farm knows already
  #base; // the picture of the deeds that cannot be taken back any more, and the last of these
  #settled;
  onchange = () => {};

  constructor(canvas) {
    this.canvas = canvas;
    this.#paper = canvas.getContext("2d", { willReadFrequently: true });
  }

  // A fresh mask for a picture of this size.
  start(width, height) {
    [this.canvas.width, this.canvas.height] = [width, height];
    this.#deeds = [];
    this.#undone = [];
    this.#known = this.#base = this.#settled = undefined;
  }

  get isEmpty() {
    const { data } = this.#paper.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let alpha = 3; alpha < data.length; alpha += 4) if (data[alpha] > 127) return false;
    return true;
  }

  get isChanged() { return (this.#deeds.at(-1) ?? this.#settled) !== this.#known; }
  get canUndo() { return this.#deeds.length > 0; }
  get canRedo() { return this.#undone.length > 0; }

  // A stroke that is being drawn: points are added as they come, and it counts as one deed when it ends.
  stroke(radius, erases, x, y) {
    const points = [[x, y]];
    const draw = (paper, from = 0) => line(paper, points.slice(Math.max(0, from - 1)), radius, erases);
    draw(this.#paper);
    return {
      to: (nextX, nextY) => { points.push([nextX, nextY]); draw(this.#paper, points.length - 1); },
      end: () => this.#keep((paper) => draw(paper)),
    };
  }

  invert() {
    this.#do((paper) => {
      paper.globalCompositeOperation = "xor";
      paper.fillStyle = TINT;
      paper.fillRect(0, 0, paper.canvas.width, paper.canvas.height);
    });
  }

  clear() {
    this.#do((paper) => paper.clearRect(0, 0, paper.canvas.width, paper.canvas.height));
  }

  // Takes a picture as the mask: white, or opaque where it has transparency, is masked, and a soft edge stays one.
  take(picture, { isKnown = false } = {}) {
    const { width, height } = this.canvas;
    const cut = tinted(picture, width, height);
    const deed = (paper) => { paper.clearRect(0, 0, width, height); paper.drawImage(cut, 0, 0); };
    if (isKnown) this.#known = deed;
    this.#do(deed);
  }

  undo() { this.#undone.push(this.#deeds.pop()); this.#again(); }
  redo() { this.#deeds.push(this.#undone.pop()); this.#again(); }

  // The mask as a PNG file, white on black; at once, so that a form that is being sent can take it along.
  file() {
    const bytes = Uint8Array.from(atob(this.url().split(",")[1]), (letter) => letter.charCodeAt(0));
    return new File([bytes], "mask.png", { type: "image/png" });
  }

  // The same as a data URL.
  url() {
    const [sheet, paper] = blank(this.canvas.width, this.canvas.height);
    paper.drawImage(this.canvas, 0, 0);
    paper.globalCompositeOperation = "source-in";
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    paper.globalCompositeOperation = "destination-over";
    paper.fillStyle = "#000";
    paper.fillRect(0, 0, sheet.width, sheet.height);
    return sheet.toDataURL("image/png");
  }

  #do(deed) {
    apart(this.#paper, deed);
    this.#keep(deed);
  }

  #keep(deed) {
    this.#deeds.push(deed);
    this.#undone = [];
    if (this.#deeds.length > MOST) this.#settle();
    this.onchange();
  }

  #settle() {
    this.#base ??= blank(this.canvas.width, this.canvas.height)[1];
    this.#settled = this.#deeds.shift();
    apart(this.#base, this.#settled);
  }

  #again() {
    this.#paper.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.#base) this.#paper.drawImage(this.#base.canvas, 0, 0);
    for (const deed of this.#deeds) apart(this.#paper, deed);
    this.onchange();
  }
}

function apart(paper, deed) {
  paper.save();
  deed(paper);
  paper.restore();
}

function line(paper, points, radius, erases) {
  paper.save();
  paper.globalCompositeOperation = erases ? "destination-out" : "source-over";
  paper.strokeStyle = TINT;
  paper.lineWidth = radius * 2;
  paper.lineCap = paper.lineJoin = "round";
  paper.beginPath();
  paper.moveTo(...points[0]);
  for (const point of points.length > 1 ? points.slice(1) : points) paper.lineTo(...point);
  paper.stroke();
  paper.restore();
}

function blank(width, height) {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [width, height];
  return [sheet, sheet.getContext("2d", { willReadFrequently: true })];
}

function tinted(picture, width, height) {
  const [sheet, paper] = blank(width, height);
  paper.drawImage(picture, 0, 0, width, height);
  const pixels = paper.getImageData(0, 0, width, height);
  const { data } = pixels;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(TINT.slice(at, at + 2), 16));
  let isSolid = true;
  for (let at = 3; at < data.length; at += 4) isSolid &&= data[at] === 255;
  for (let at = 0; at < data.length; at += 4) {
    const level = isSolid ? (data[at] + data[at + 1] + data[at + 2]) / 3 : data[at + 3];
    data.set([red, green, blue, level], at);
  }
  paper.putImageData(pixels, 0, 0);
  return sheet;
}
