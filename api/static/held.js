// What a person is at in a part of the page, held while that is drawn anew: the focus with its caret, marked text, what
// was typed, opened and scrolled. Things are known again by a key, never by their place: that may be another's by now.

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

// What is gone gives the focus to what came in its place, such as Resume for Drain; else to the part that it was in.
function focus(root, was) {
  const all = [...root.querySelectorAll(REACHABLE)];
  const found = again(root, REACHABLE, was.key) ?? (all.length === was.of ? all[was.place] : undefined);
  if (!found) root.tabIndex = -1;
  (found ?? root).focus({ preventScroll: true });
  if (found && was.caret && hasCaret(found)) found.setSelectionRange(...was.caret);
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
  return { from: before(anchorNode, anchorOffset), to: before(focusNode, focusOffset), text: String(getSelection()) };
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
  getSelection().setBaseAndExtent(...at(was.from), ...at(was.to));
  if (String(getSelection()) !== was.text) getSelection().removeAllRanges(); // other words stand there now
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
  const found = again(root, STATED, was.key);
  if (!found) return;
  if (found.tagName === "DETAILS") found.open = was.open;
  if (was.value !== undefined && found.tagName !== "SELECT") found.value = was.value;
  if (was.isTicked !== undefined) found.checked = was.isTicked;
  found.scrollTo(...was.scroll);
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
