// Asks the farm's API as this page: with the token that tells the farm's own pages from others.

const token = () => document.querySelector('input[name="csrf_token"]').value;

async function answered(request) {
  const answer = await request;
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const [wrong] = body.errors ?? [];
  const message = wrong ? [wrong.message, wrong.accepted && `accepted: ${wrong.accepted}`].filter(Boolean).join("; ") : body.detail ?? answer.statusText;
  throw Object.assign(new Error(message), { field: wrong?.field });
}

export const postJson = (path, value, signal) =>
  answered(fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token() },
    body: JSON.stringify(value),
    signal,
  }));

export function postFile(path, file) {
  const form = new FormData();
  form.set("file", file, file.name ?? "picture.png");
  return answered(fetch(path, { method: "POST", headers: { "X-CSRF-Token": token() }, body: form }));
}
