// Keyboard shortcuts, and the dialog that lists them.

import { focusFind, openPalette } from "./find.js";
import { togglePause } from "./live.js";
import { moveSelection } from "./rows.js";
import { switchTheme } from "./theme.js";

const SECOND_KEY_MS = 1500;
const help = document.getElementById("help");
let goUntil = 0; // in ms: until this time after `g`, the next key opens a page

const ACTIONS = {
  "/": focusFind,
  "?": () => help.showModal(),
  g: () => { goUntil = Date.now() + SECOND_KEY_MS; },
  j: () => moveSelection(1),
  k: () => moveSelection(-1),
  n: () => clickElement("n") || moveSelection(1),
  p: () => clickElement("p") || moveSelection(-1),
  u: () => clickElement("u"),
  c: () => clickElement("c", "tr.selected .copy"),
  P: togglePause,
  t: switchTheme,
};

/** Listen to keys, and show the button that opens the list of the shortcuts. */
export function startKeys() {
  const button = document.getElementById("help-button");
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", handleKey);
}

function handleKey(event) {
  if (help.open) return;
  if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape" && !event.defaultPrevented) event.target.blur();
  } else if (Date.now() < goUntil) {
    goUntil = 0;
    document.querySelector(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  } else if (Object.hasOwn(ACTIONS, event.key)) {
    event.preventDefault();
    ACTIONS[event.key]();
  }
}

/** Click the element that `selector` finds, or else the element for a key; returns whether there is one. */
function clickElement(key, selector = null) {
  const element = (selector && document.querySelector(selector)) || document.querySelector(`[data-key="${key}"]`);
  element?.click();
  return Boolean(element);
}
