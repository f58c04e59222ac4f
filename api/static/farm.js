// Asks the farm for what is drawn into a page. A person who is signed out is answered with another page, or with 401:
// that is not drawn, and a line says how to go on.

import { _ } from "./texts.js";

const SIGN_IN = "/sign-in";
const place = document.querySelector('[data-shows="connection"]');

function tell() {
  const next = new URLSearchParams({ next: location.pathname + location.search });
  const link = Object.assign(document.createElement("a"), { href: `${SIGN_IN}?${next}`, textContent: _("Sign in again") });
  place.replaceChildren(_("You are signed out."), " ", link);
}

// The answer; undefined: the person is signed out, and the page says so.
export async function askFarm(address, options) {
  const answer = await fetch(address, options);
  const isSignedOut = answer.status === 401 || (answer.redirected && new URL(answer.url).pathname === SIGN_IN);
  const isTold = place.querySelector("a") !== null;
  if (isSignedOut && !isTold) tell();
  if (!isSignedOut && isTold) place.replaceChildren();
  return isSignedOut ? undefined : answer;
}
