// A menu closes when something else is pressed.

export function startMenus() {
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll(".remix[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
}
