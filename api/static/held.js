// Keeps a person's state of a part of the page while that is drawn again: focus and caret, selected text, inputs, open
// details and scroll positions. Elements are found again by a key, never by their position, which may have changed.

const REACHABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
const STATED = "details, input, select, textarea, .strip";

function key(element) {
  if (element.id) return element.id;
  const { tagName, name = "", form } = element;
  const facts = [tagName, name, form?.getAttribute("action"), element.getAttribute("href")];
  if (tagName === "BUTTON") facts.push(element.value);
  if (tagName === "SUMMARY" || tagName === "DETAILS") facts.push(element.closest("details").className, element.textContent.trim());
  return facts.join(" ");
}

const again = (root, selector, wanted) => [...root.querySelectorAll(selector)].find((one) => key(one) === wanted);
const hasCaret = (element) => "selectionStart" in element && element.selectionStart !== null;

function focused(root) {
  const element = document.activeElement;
  if (element === root || !root.contains(element)) return undefined;
  const all = [...root.querySelectorAll(REACHABLE)];
  const caret = hasCaret(element) ? [element.selectionStart, element.selectionEnd, element.selectionDirection] : undefined;
  return { key: key(element), place: all.indexOf(element), of: all.length, caret };
}

// If the element is gone, its successor gets the focus, such as Resume for Drain; otherwise the part around it.
function focus(root, was) {
  const all = [...root.querySelectorAll(REACHABLE)];
  const target = again(root, REACHABLE, was.key) ?? (all.length === was.of ? all[was.place] : undefined);
  if (!target) root.tabIndex = -1;
  (target ?? root).focus({ preventScroll: true });
  if (target && was.caret && hasCaret(target)) target.setSelectionRange(...was.caret);
}

function marked(root) {
  const { anchorNode, anchorOffset, focusNode, focusOffset, isCollapsed } = getSelection();
  if (isCollapsed || !root.contains(anchorNode) || !root.contains(focusNode)) return undefined;
  const before = (node, offset) => {
    const range = new Range();
    range.setStart(root, 0);
    range.setEnd(node, offset);
    return range.toString().length;
  };
  const [from, to] = [before(anchorNode, anchorOffset), before(focusNode, focusOffset)];
  return { from, to, text: root.textContent.slice(Math.min(from, to), Math.max(from, to)) };
}

// Where the same words stand now, nearest to where they stood; undefined where they do not any more.
function found(text, words, near) {
  let nearest;
  for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + 1)) {
    if (nearest === undefined || Math.abs(at - near) < Math.abs(nearest - near)) nearest = at;
  }
  return nearest;
}

function mark(root, was) {
  const at = (wanted) => {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    let left = wanted;
    while (texts.nextNode()) {
      if (left <= texts.currentNode.length) return [texts.currentNode, left];
      left -= texts.currentNode.length;
    }
    return [root, root.childNodes.length];
  };
  const start = found(root.textContent, was.text, Math.min(was.from, was.to));
  if (start === undefined) return;
  const ends = [start, start + was.text.length];
  const [from, to] = was.from <= was.to ? ends : ends.reverse();
  getSelection().setBaseAndExtent(...at(from), ...at(to));
}

function stated(root) {
  return [...root.querySelectorAll(STATED)].map((one) => ({
    key: key(one),
    open: one.open,
    value: one.value !== one.defaultValue ? one.value : undefined,
    isTicked: one.checked !== one.defaultChecked ? one.checked : undefined,
    scroll: [one.scrollLeft, one.scrollTop],
  }));
}

function state(root, was) {
  const target = again(root, STATED, was.key);
  if (!target) return;
  if (target.tagName === "DETAILS") target.open = was.open;
  if (was.value !== undefined && target.tagName !== "SELECT") target.value = was.value;
  if (was.isTicked !== undefined) target.checked = was.isTicked;
  target.scrollTo(...was.scroll);
}

// Returns what gives it all back to the part that comes in the place of `old`.
export function hold(old) {
  const [held, text, focus_] = [stated(old), marked(old), focused(old)];
  return (fresh) => {
    for (const one of held) state(fresh, one);
    if (text) mark(fresh, text);
    if (focus_) focus(fresh, focus_);
  };
}
