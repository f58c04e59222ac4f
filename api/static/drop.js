// A picture dropped anywhere on the page: its parameters fill the form, or it becomes the picture to start from.

export function startDropping(form, source) {
  const veil = document.querySelector('[data-shows="veil"]');
  const filling = document.querySelector(".filling");
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const zoneAt = (event) => event.target.closest?.("[data-drops]")?.dataset.drops;
  let depth = 0; // elements entered and not left yet

  const does = {
    source: (file) => source.take(file),
    // The farm reads the parameters and draws the whole form again.
    fill: (file) => {
      const files = new DataTransfer();
      files.items.add(file);
      filling.elements.file.files = files.files;
      filling.requestSubmit();
    },
  };

  const cover = (isCovered) => { veil.hidden = !isCovered; };
  document.addEventListener("dragenter", (event) => { if (holdsFiles(event)) { depth += 1; cover(true); } });
  document.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth = Math.max(0, depth - 1);
    cover(depth > 0);
  });
  document.addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    depth = 0;
    cover(false);
    const [file] = event.dataTransfer.files;
    if (file) (does[zoneAt(event)] ?? does.fill)(file);
  });
  // The inputs are sent along, so that they can be restored.
  let isTyped = false;
  for (const kind of ["input", "change"]) form.addEventListener(kind, () => { isTyped = true; });
  filling.addEventListener("formdata", ({ formData }) => {
    if (!isTyped) return;
    for (const [name, value] of new FormData(form)) if (typeof value === "string" && name !== "csrf_token") formData.append(`typed.${name}`, value);
  });
  filling.elements.file.addEventListener("change", () => filling.requestSubmit());
  filling.querySelector("button").hidden = true;
}
