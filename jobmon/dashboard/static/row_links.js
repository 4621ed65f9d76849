// A click anywhere on a row opens its link. After Back, the opened row is selected.

import { selectRow } from "./rows.js";

const CONTROLS = "a, button, input, select, textarea, summary, label";
const MIDDLE_BUTTON = 1;

/** Listen to clicks on the rows of all tables. */
export function startRowLinks() {
  document.addEventListener("click", openRow);
  document.addEventListener("auxclick", openRow);
  // Otherwise a press of the middle button starts to scroll the page.
  document.addEventListener("mousedown", (event) => { if (event.button === MIDDLE_BUTTON && findLink(event)) event.preventDefault(); });
  addEventListener("pageshow", () => { if (history.state?.row) selectRow(history.state.row); });
}

function findLink(event) {
  const isControl = event.target.closest(CONTROLS);
  return isControl ? null : event.target.closest(".rows tbody tr")?.querySelector(".row-link");
}

function openRow(event) {
  if (event.defaultPrevented || event.button > MIDDLE_BUTTON) return;
  const inNewTab = event.button === MIDDLE_BUTTON || event.ctrlKey || event.metaKey || event.shiftKey;
  const row = event.target.closest(".rows tbody tr");
  if (!inNewTab && row?.id && event.target.closest("a")) {
    history.replaceState({ ...history.state, row: row.id }, ""); // for this entry of the browser's history
    return;
  }
  const link = findLink(event);
  if (!link || getSelection().toString()) return; // after a selection of text, a click opens nothing
  if (inNewTab) open(link.href, "_blank", "noopener");
  else link.click();
}
