// Rows of tables: they stay in place under the pointer or with the focus, and `j` and `k` select one.

/* global htmx, Idiomorph */
import { showTimes } from "./times.js";

const MAX_HEADER_LENGTH = 4000;
let selected = null; // id of the selected row

function allRows() {
  return [...document.querySelectorAll(".rows tbody tr")];
}

/** Why the rows of a list must not move, as the page shows it; empty if they may. */
export function reasonToHold(list) {
  const bodies = [...list.querySelectorAll(".rows tbody")];
  if (bodies.some((body) => body.matches(":hover"))) return "rows held: pointer on the table";
  if (bodies.some((body) => body.contains(document.activeElement))) return "rows held: focus in the table";
  return "";
}

/** The ids of the jobs whose rows stay; a header can hold only a part of a long list. */
export function heldJobIds() {
  let charactersLeft = MAX_HEADER_LENGTH;
  const ids = allRows().map((row) => row.dataset.job).filter(Boolean);
  return ids.filter((id) => (charactersLeft -= id.length + 1) >= 0).join(",");
}

/**
 * A part of a page with the rows of each table in the order that the open page has.
 * A row that is no longer in the part keeps its last values, dimmed.
 */
export function keepRowOrder(html) {
  const part = parse(html);
  part.querySelectorAll(".rows tbody").forEach(keepOrder);
  return part.body.innerHTML;
}

function keepOrder(body) {
  const fresh = new Map([...body.children].map((row) => [row.id, row]));
  const kept = findOpenRows(fresh).map((row) => {
    const freshRow = fresh.get(row.id);
    fresh.delete(row.id);
    return freshRow ?? dim(row.cloneNode(true));
  });
  body.replaceChildren(...kept, ...fresh.values());
}

/** The rows of the open table that has one of these rows, or of the only table; none if there is no such table. */
function findOpenRows(fresh) {
  const bodies = [...document.querySelectorAll(".rows tbody")];
  const shared = bodies.find((body) => [...body.children].some((row) => row.id && fresh.has(row.id)));
  return [...((shared ?? (bodies.length === 1 ? bodies[0] : null))?.children ?? [])];
}

/** Update the rows that a list shows without moving any, and offer a button for new rows. */
export function updateRows(list, html) {
  const part = parse(html);
  const rows = [...part.querySelectorAll("#job-rows tbody tr")];
  const isNew = (row) => !document.getElementById(row.id);
  const known = new Set(rows.map((row) => row.id));
  rows.filter((row) => !isNew(row)).forEach((row) => morph(document.getElementById(row.id), row));
  allRows().filter((row) => !known.has(row.id)).forEach((row) => updateRowOffPage(row, part.getElementById(row.id)));
  part.querySelectorAll("[hx-swap-oob]").forEach((fresh) => {
    fresh.removeAttribute("hx-swap-oob");
    morph(document.getElementById(fresh.id), fresh);
  });
  showTimes();
  markSelectedRow();
  offerNewRows(list, rows, isNew);
}

/** Update a row that is no longer on the page of the list; `fresh` is the row with the job's present fields, if known. */
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
    button.addEventListener("click", () => reload(list));
    list.append(button); // positioned over the page: it must not move a row
  }
  // New rows are newer jobs if they come first in a list with the newest first.
  const kind = rows.slice(0, count).every(isNew) && !("oldestFirst" in list.dataset) ? "newer" : "other";
  button.textContent = `Show ${count} ${kind} ${count === 1 ? "job" : "jobs"}`;
}

function reload(list) {
  delete list.dataset.etag;
  document.activeElement.blur();
  htmx.ajax("GET", list.getAttribute("hx-get"), { source: list, target: list, swap: "morph:innerHTML" });
}

/** Show which row is selected. */
export function markSelectedRow() {
  allRows().forEach((row) => row.classList.toggle("selected", row.id === selected));
}

/** Select the row with this id, if the page has it. */
export function selectRow(id) {
  selected = id;
  markSelectedRow();
  document.getElementById(id)?.scrollIntoView({ block: "nearest" });
}

/** Select the next row (1) or the previous one (-1), and focus its link. */
export function moveSelection(step) {
  const rows = allRows();
  if (!rows.length) return;
  const index = rows.findIndex((row) => row.id === selected);
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
