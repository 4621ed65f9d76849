// A click anywhere on a row opens its link, and the row that was opened is marked after Back.

import { selectRow } from "./rows.js";

const CONTROLS = "a, button, input, select, textarea, summary, label";
const MIDDLE = 1;

/** Listen to clicks on the rows of all tables. */
export function startRowLinks() {
  document.addEventListener("click", openRow);
  document.addEventListener("auxclick", openRow);
  // Otherwise the middle button begins to scroll.
  document.addEventListener("mousedown", (event) => { if (event.button === MIDDLE && findLink(event)) event.preventDefault(); });
  addEventListener("pageshow", () => { if (history.state?.row) selectRow(history.state.row); });
}

function findLink(event) {
  const isControl = event.target.closest(CONTROLS);
  return isControl ? null : event.target.closest(".rows tbody tr")?.querySelector(".row-link");
}

function openRow(event) {
  if (event.defaultPrevented || event.button > MIDDLE) return;
  const inNewTab = event.button === MIDDLE || event.ctrlKey || event.metaKey || event.shiftKey;
  const row = event.target.closest(".rows tbody tr");
  if (!inNewTab && row?.id && event.target.closest("a")) {
    history.replaceState({ ...history.state, row: row.id }, ""); // belongs to this visit of the list
    return;
  }
  const link = findLink(event);
  if (!link || getSelection().toString()) return; // the viewer selects text
  if (inNewTab) open(link.href, "_blank", "noopener");
  else link.click();
}
