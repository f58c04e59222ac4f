// Before anybody has looked at the models folder a job goes off as soon as somebody has.

import { _ } from "./texts.js";

export function startWaiting(form) {
  const render = form.querySelector(".primary");
  const { checkpoint } = form.elements;
  const isLooking = () => checkpoint.selectedOptions[0]?.dataset.isLooking === "yes";
  let waits = form.querySelector("[data-early]") !== null;

  function tell() {
    form.querySelector('[data-shows="shortcut"]')?.toggleAttribute("hidden", waits);
    form.querySelector('[data-shows="waits"]').textContent = waits ? _("Scanning the models folder: your job will be submitted after that.") : "";
  }

  function wait() {
    waits = true;
    tell();
  }

  function goOff() {
    if (!waits || isLooking()) return;
    waits = false;
    tell();
    render.disabled = false;
    form.requestSubmit(render);
  }

  form.addEventListener("submit", (event) => {
    if (event.defaultPrevented || !isLooking()) return;
    event.preventDefault();
    wait();
  });
  tell();
  return { wait, goOff };
}
