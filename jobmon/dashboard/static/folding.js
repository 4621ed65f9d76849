// Folded parts (`<details>`): a button opens or closes all parts of an element. A click outside, or Escape, closes a menu.

/** Make the buttons and menus work, also if an update adds them later. */
export function startFolding() {
  document.documentElement.classList.add("scripted"); // shows the buttons
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-open-all]");
    if (button) toggleAll(document.getElementById(button.dataset.openAll));
    closeMenus((menu) => !menu.contains(event.target));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeMenus((menu) => menu.contains(document.activeElement));
  });
}

/** Open all folded parts; if all are open, close them except for the outermost parts. */
function toggleAll(element) {
  const parts = [...element.querySelectorAll("details")];
  const isOpening = parts.some((part) => !part.open);
  parts.forEach((part) => { part.open = isOpening || part.parentElement === element; });
}

function closeMenus(shouldClose) {
  document.querySelectorAll(".menu[open]").forEach((menu) => {
    if (shouldClose(menu)) menu.open = false;
  });
}
