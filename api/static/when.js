// Instants in the person's own time: the page has them in UTC, and so has what is sent.

import { _ } from "./texts.js";

const digits = (number) => String(number).padStart(2, "0");

function local(instant) {
  const day = [instant.getFullYear(), digits(instant.getMonth() + 1), digits(instant.getDate())].join("-");
  return `${day}T${digits(instant.getHours())}:${digits(instant.getMinutes())}`;
}

export function startInstants(form) {
  const boxes = [...form.querySelectorAll("[data-instant]")];
  for (const box of boxes) {
    // What a browser has put back itself is the person's own already.
    if (box.value && box.value === box.defaultValue) box.value = local(new Date(`${box.value}Z`));
    const hint = document.getElementById(`${box.name}-hint`);
    hint.textContent = hint.textContent.replace("UTC", _("your own time"));
  }
  form.addEventListener("formdata", ({ formData }) => {
    for (const box of boxes) if (box.value) formData.set(box.name, new Date(box.value).toISOString());
  });
}
