// Says in the other tabs of a browser that a job has ended. The tab that holds the lock follows the ends of all jobs of
// the owner and tells the others: streams are few. Browsers without locks say nothing, as on pages that are not secure.

import { askFarm } from "./farm.js";
import { _ } from "./texts.js";

const SHOWN = 8000; // milliseconds
const MOST = 3; // notices at a time
const PAUSE = 60_000; // milliseconds after which a stream that was refused is asked for again
const FOR_THE_SIGNED_IN = "/api/v1/samplers"; // costs the farm nothing, and is answered to those alone who are signed in
const KEPT = "stepfarm.ends"; // in this browser: "off", if the person wants no notices

const place = document.querySelector('[data-shows="ends"]');
const choice = document.querySelector("[data-ends]");
const name = `stepfarm.ends.${place.dataset.owner}`;
const ends = []; // heard of, and not told yet
let busy = false;
let channel = null;
let stop = () => {};

const said = {
  succeeded: (job) => _("Job %(job)s is done", { job }),
  failed: (job) => _("Job %(job)s has failed", { job }),
  cancelled: (job) => _("Job %(job)s was cancelled", { job }),
};
const isShownHere = (job) =>
  `${location.pathname}/`.startsWith(`/jobs/${job}/`) || document.querySelector(`[data-events*="/jobs/${job}/"], .list a[href="/jobs/${job}"]`);
const isLookedAt = (notice) => document.hidden || notice.matches(":hover, :focus-within"); // or it is not in sight yet

function isWanted() {
  try {
    return localStorage.getItem(KEPT) !== "off";
  } catch { // a browser that keeps nothing
    return true;
  }
}

const element = (tag, values, ...children) => {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
};

function drop(notice) {
  const next = notice.matches(":focus-within") && (notice.nextElementSibling ?? notice.previousElementSibling);
  notice.remove();
  if (next) next.querySelector("button").focus();
}

function fade(notice) {
  setTimeout(() => (isLookedAt(notice) ? fade(notice) : drop(notice)), SHOWN);
}

function show({ job, state, title, thumbnail }) {
  if (isShownHere(job)) return;
  place.querySelector(`[data-job="${job}"]`)?.remove(); // of an earlier end
  const picture = thumbnail ? [element("img", { src: thumbnail, alt: "" })] : [];
  const words = element("span", {}, element("strong", { textContent: said[state](job) }), element("span", { textContent: title }));
  const close = element("button", { type: "button", className: "quiet", textContent: "×", ariaLabel: _("Dismiss") });
  const notice = element("div", { className: "ended" }, element("a", { href: `/jobs/${job}` }, ...picture, words), close);
  notice.dataset.job = job;
  close.addEventListener("click", () => drop(notice));
  while (place.children.length >= MOST) place.firstElementChild.remove();
  place.append(notice);
  fade(notice);
}

// The job of a notice is asked for once for all tabs; of one that was deleted meanwhile nothing is said.
async function tell({ job, state }) {
  const answer = await askFarm(`/api/v1/jobs/${job}?limit=1`, { headers: { Accept: "application/json" } });
  if (!answer?.ok) return;
  const { params, images } = await answer.json();
  const end = { job, state, title: params.prompt ?? "", thumbnail: images[0]?.links.thumbnail ?? null };
  channel?.postMessage(end);
  show(end);
}

// Of many that end at a time only the latest are shown.
async function hear(event) {
  ends.push(JSON.parse(event.data));
  ends.splice(0, ends.length - MOST);
  if (busy) return;
  busy = true;
  while (ends.length) await tell(ends.shift()).catch(() => {}); // the farm is away
  busy = false;
}

// A stream was refused, or goes on after that: each tab asks once whether its person is signed out, and says so.
const ask = () => askFarm(FOR_THE_SIGNED_IN, { cache: "no-store" }).catch(() => {}); // the farm is away
function askEverywhere() {
  channel?.postMessage({});
  ask();
}

// Follows the ends until `signal` says to stop; the browser itself comes back to a stream that has ended.
const follow = (signal) => new Promise((leave) => {
  let source = null;
  let waiting = 0;
  let isRefused = false;
  const open = () => {
    source = new EventSource("/api/v1/events");
    source.addEventListener("hello", () => {
      place.dataset.follows = "yes";
      if (isRefused) askEverywhere();
      isRefused = false;
    });
    source.addEventListener("ended", hear);
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      if (!isRefused) askEverywhere();
      isRefused = true;
      waiting = setTimeout(open, PAUSE);
    };
  };
  signal.addEventListener("abort", () => {
    clearTimeout(waiting);
    source.close();
    leave();
  });
  open();
});

function start() {
  if (channel || !isWanted()) return;
  channel = new BroadcastChannel(name);
  channel.onmessage = ({ data }) => (data.job ? show(data) : ask());
  const leaving = new AbortController();
  const { signal } = leaving;
  stop = () => {
    leaving.abort();
    channel?.close();
    channel = null;
  };
  // A request that is taken back while it waits is refused: there is nothing to follow.
  navigator.locks.request(name, { signal }, () => (signal.aborted ? undefined : follow(signal))).catch(() => {});
}

function obey() {
  choice.checked = isWanted();
  if (choice.checked) return start();
  stop();
  place.replaceChildren();
}

if (navigator.locks && globalThis.BroadcastChannel) {
  choice.closest("label").hidden = false;
  choice.addEventListener("change", () => {
    try { localStorage.setItem(KEPT, choice.checked ? "on" : "off"); } catch {}
    obey();
  });
  addEventListener("storage", (event) => { if (event.key === KEPT) obey(); });
  addEventListener("pageshow", obey);
  addEventListener("pagehide", () => stop()); // a page that is kept for going back holds neither lock nor stream
}
