// Rows of tables: under the pointer, or with the focus, they stay in place; `j` and `k` select a row.

/* global htmx, Idiomorph */
import { showTimes } from "./times.js";

const MAX_HEADER_LENGTH = 4000; // characters
let selectedId = null; // of the selected row

function listRows() {
  return [...document.querySelectorAll(".rows tbody tr")];
}

/** Why the rows of a list must stay in place, as the page shows it; empty if they may move. */
export function reasonToHold(list) {
  const bodies = [...list.querySelectorAll(".rows tbody")];
  if (bodies.some((body) => body.matches(":hover"))) return "rows held: pointer on the table";
  if (bodies.some((body) => body.contains(document.activeElement))) return "rows held: focus in the table";
  return "";
}

/** The ids of the jobs whose rows stay, for a header; the last ids are left out if the header would be too long. */
export function heldJobIds() {
  let charactersLeft = MAX_HEADER_LENGTH;
  const ids = listRows().map((row) => row.dataset.job).filter(Boolean);
  return ids.filter((id) => (charactersLeft -= id.length + 1) >= 0).join(",");
}

/**
 * The part of a page with the rows of each table in the order of the open page. A row that is no longer
 * in the part keeps its last values, and is dimmed.
 */
export function keepRowOrder(html) {
  const part = parse(html);
  part.querySelectorAll(".rows tbody").forEach(keepOrder);
  return part.body.innerHTML;
}

function keepOrder(body) {
  const fresh = new Map([...body.children].map((row) => [row.id, row]));
  const openRows = findOpenRows(fresh).map((row) => {
    const freshRow = fresh.get(row.id);
    fresh.delete(row.id);
    return freshRow ?? dim(row.cloneNode(true));
  });
  body.replaceChildren(...openRows, ...fresh.values());
}

/** The rows of that table on the open page that has a row of `fresh`, or of the page's only table; else no rows. */
function findOpenRows(fresh) {
  const bodies = [...document.querySelectorAll(".rows tbody")];
  const sharing = bodies.find((body) => [...body.children].some((row) => row.id && fresh.has(row.id)));
  return [...((sharing ?? (bodies.length === 1 ? bodies[0] : null))?.children ?? [])];
}

/** Update the shown rows of a list without a change of their order, and offer a button for new rows. */
export function updateRows(list, html) {
  const part = parse(html);
  const rows = [...part.querySelectorAll("#job-rows tbody tr")];
  const isNew = (row) => !document.getElementById(row.id);
  const freshIds = new Set(rows.map((row) => row.id));
  rows.filter((row) => !isNew(row)).forEach((row) => morph(document.getElementById(row.id), row));
  listRows().filter((row) => !freshIds.has(row.id)).forEach((row) => updateRowOffPage(row, part.getElementById(row.id)));
  part.querySelectorAll("[hx-swap-oob]").forEach((fresh) => {
    fresh.removeAttribute("hx-swap-oob");
    morph(document.getElementById(fresh.id), fresh);
  });
  showTimes();
  markSelectedRow();
  offerNewRows(list, rows, isNew);
}

/** Update a shown row whose job is no longer on this page of the list; `fresh` is its present row, if known. */
function updateRowOffPage(row, fresh) {
  if (fresh && !("gone" in fresh.dataset)) {
    morph(row, fresh);
    return;
  }
  const status = dim(row).querySelector(".status");
  if (fresh && status) {
    status.className = "status s-other";
    status.textContent = "deleted";
  }
}

function offerNewRows(list, rows, isNew) {
  const count = rows.filter(isNew).length;
  let button = list.querySelector(".new-rows");
  if (!count) {
    button?.remove();
    return;
  }
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.className = "new-rows";
    button.addEventListener("click", () => reloadList(list));
    list.append(button); // it is fixed over the page, so it moves no row
  }
  // New rows are newer jobs if they come first, in an order with the newest job first.
  const kind = rows.slice(0, count).every(isNew) && !("notNewestFirst" in list.dataset) ? "newer" : "other";
  button.textContent = `Show ${count} ${kind} ${count === 1 ? "job" : "jobs"}`;
}

function reloadList(list) {
  delete list.dataset.etag;
  document.activeElement.blur();
  htmx.ajax("GET", list.getAttribute("hx-get"), { source: list, target: list, swap: "morph:innerHTML" });
}

/** Show which row is selected. */
export function markSelectedRow() {
  listRows().forEach((row) => row.classList.toggle("selected", row.id === selectedId));
}

/** Select the row with this id, if the page has it. */
export function selectRow(id) {
  selectedId = id;
  markSelectedRow();
  document.getElementById(id)?.scrollIntoView({ block: "nearest" });
}

/** Select the next row (1) or the previous one (-1), and focus its link. */
export function moveSelection(step) {
  const rows = listRows();
  if (!rows.length) return;
  const index = rows.findIndex((row) => row.id === selectedId);
  const start = step > 0 ? 0 : rows.length - 1;
  const row = rows[index < 0 ? start : Math.min(Math.max(index + step, 0), rows.length - 1)];
  row.querySelector(".row-link")?.focus();
  selectRow(row.id);
}

function parse(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

function morph(element, fresh) {
  Idiomorph.morph(element, fresh.outerHTML, { morphStyle: "outerHTML" });
}

function dim(row) {
  row.classList.add("unmatched");
  return row;
}
