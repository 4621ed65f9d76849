// Folded parts: a button opens or closes all of them in an element; a click elsewhere or Escape closes a menu.

/** Let these buttons and menus work, also those that an update adds later. */
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

/** Open every folded part; if all are open, close those inside the outermost ones. */
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
