// A contact sheet: a cell opens below it without a new page.

import { askFarm } from "./farm.js";

const main = document.querySelector("main");

async function open(address) {
  const answer = await askFarm(address, { headers: { Accept: "text/html", "X-Live": "1" }, cache: "no-store" });
  if (!answer) return undefined;
  const fresh = answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("opened");
  if (!fresh) return location.assign(address);
  document.getElementById("opened").replaceWith(document.adoptNode(fresh));
  main.dispatchEvent(new Event("drawn"));
  fresh.scrollIntoView({ block: "nearest" });
  fresh.focus({ preventScroll: true });
  return undefined;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-opens]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.replaceState(null, "", link.href);
  open(link.href).catch(() => location.assign(link.href));
});
