// Render without leaving the page: the job comes on top of the strips, the form keeps its values, and what was refused
// is shown at its fields. A press after a lost connection sends the same key, so that no job is made twice.

import { askFarm } from "./farm.js";
import { draw, parsed, tell } from "./live.js";
import { _ } from "./texts.js";

const DIGITS = 16; // bytes of a key

const newKey = () => [...crypto.getRandomValues(new Uint8Array(DIGITS))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const said = (body) => JSON.stringify([...body].map(([name, value]) => [name, value.size ?? value, value.name]));

function forget(form) {
  for (const error of form.querySelectorAll(".error[id]")) {
    error.closest(".has-error")?.classList.remove("has-error");
    error.remove();
  }
  for (const box of form.querySelectorAll("[aria-invalid]")) box.removeAttribute("aria-invalid");
  for (const notice of form.querySelectorAll(".notice.is-bad, .notice[data-early]")) notice.remove();
}

function place(form, error) {
  const box = document.getElementById(error.id.replace(/-error$/, ""));
  const field = box?.closest(".field");
  if (!field) return;
  field.append(error);
  field.classList.add("has-error");
  box.setAttribute("aria-invalid", "true");
  const described = box.getAttribute("aria-describedby")?.split(" ") ?? [];
  box.setAttribute("aria-describedby", [...new Set([...described, error.id])].join(" "));
  const group = box.closest("details");
  if (group) group.open = true;
}

function show(form, notice) {
  form.querySelector(".farm").after(notice);
  notice.tabIndex = -1;
  notice.focus();
}

// What the page of a refusal says, on this one: its notice, and each error at its field.
function refuse(form, page) {
  for (const error of [...page.querySelectorAll(".composer .error[id]")]) place(form, document.adoptNode(error));
  const notice = page.querySelector(".composer .notice");
  const words = page.querySelector("h1")?.textContent ?? "";
  show(form, notice ? document.adoptNode(notice) : Object.assign(document.createElement("p"), { className: "notice is-bad", textContent: words }));
}

// `back` is the page that stays in sight, `onTaken` what it does with the page that answers a job that was taken.
export function startSubmitting(form, onEarly, { back = "/", onTaken = (page) => draw(page, back) } = {}) {
  const render = form.querySelector(".primary");
  let attempt; // that no answer has come to yet

  async function send(body) {
    const answer = await askFarm(form.action, {
      method: "POST",
      body,
      headers: { Accept: "text/html", "Idempotency-Key": attempt.key },
    });
    if (!answer) return undefined; // what was typed stays
    const page = parsed(await answer.text());
    attempt = undefined;
    forget(form);
    if (answer.redirected && new URL(answer.url).pathname !== back) return location.assign(answer.url);
    if (answer.ok) {
      onTaken(page, answer.url);
      tell(page);
    } else {
      refuse(form, page);
      if (page.querySelector("[data-early]")) onEarly();
    }
    return undefined;
  }

  // Ctrl+Enter (or Cmd+Enter) submits from any field.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) render.click();
  });
  form.addEventListener("submit", async (event) => {
    if (event.defaultPrevented) return;
    event.preventDefault();
    if (render.disabled) return;
    const body = new FormData(form);
    body.set("back", back);
    if (attempt?.said !== said(body)) attempt = { said: said(body), key: newKey() };
    render.disabled = true;
    try {
      await send(body);
    } catch {
      forget(form);
      show(form, Object.assign(document.createElement("p"), { className: "notice is-bad", textContent: _("Connection lost. Press Render again when it is back: nothing is rendered twice.") }));
    }
    render.disabled = false;
  });
}
