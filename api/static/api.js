// Asks the farm's API as this page: with the token that tells the farm's own pages from others.

import { askFarm } from "./farm.js";
import { _ } from "./texts.js";

const token = () => document.querySelector('input[name="csrf_token"]').value;

const json = (answer) => answer.json().catch(() => ({}));

async function answered(request, read = json) {
  const answer = await request;
  if (!answer) throw new Error(_("You are signed out."));
  if (answer.ok) return read(answer);
  const body = await json(answer);
  const [wrong] = body.errors ?? [];
  const message = wrong ? [wrong.message, wrong.accepted && `accepted: ${wrong.accepted}`].filter(Boolean).join("; ") : body.detail ?? answer.statusText;
  throw Object.assign(new Error(message), { field: wrong?.field });
}

export const postJson = (path, value, signal, read) =>
  answered(askFarm(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token() },
    body: JSON.stringify(value),
    signal,
  }), read);

export function postFile(path, file) {
  const form = new FormData();
  form.set("file", file, file.name ?? "picture.png");
  return answered(askFarm(path, { method: "POST", headers: { "X-CSRF-Token": token() }, body: form }));
}
