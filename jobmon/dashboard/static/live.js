// Keeps an open page up to date: requests its live part every second, and shows how old the data is.

/* global htmx, Idiomorph */
import { heldJobIds, keepRowOrder, markSelectedRow, reasonToHold, updateRows } from "./rows.js";
import { watchTables } from "./table_heads.js";
import { formatDuration, showTimes } from "./times.js";

const SLOW_MS = 4000; // after this time without an answer, jobmon does not respond
const STALE_S = 3; // if requests fail, older data is marked as old
// The message by the code of an error; any other failure means that jobmon itself does not respond.
const FAILURES = {
  database_unavailable: "Database not responding",
  overloaded: "jobmon is busy",
  rate_limited: "Too many requests",
  identity_provider_unavailable: "Identity provider not responding",
  server_error: "jobmon reports an error",
};
// Why the updates end for good, by the code of the error.
const ENDINGS = {
  access_denied: "This job no longer exists, or you don't have access to it.",
  permission_denied: "You don't have access to this page any more.",
  validation_error: "This page link is no longer valid.",
};

const livePart = document.querySelector("[data-live]");
const freshness = document.getElementById("freshness");
const updateTime = document.getElementById("updated");
const pauseButton = document.getElementById("pause");
const title = document.title;
const isLive = Boolean(livePart && window.htmx);
let answeredAt = Date.now();
let requestedAt = 0; // when the unanswered request was sent; 0 if there is none
let failure = ""; // why the last request failed, as the page shows it; empty if it did not
let waitUntil = 0; // before this instant, no request is sent
let isPaused = false;
let isFinished = isMarkedFinished();

/** Start to update the page, if it has a live part. */
export function startUpdates() {
  showState();
  if (!isLive) return;
  pauseButton.hidden = isFinished;
  pauseButton.addEventListener("click", togglePause);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
  // An update keeps typed text, selected rows, and which `<details>` are open; charts update themselves.
  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => name !== "data-fits" && !(name === "checked" && node.closest(".c-select")) && !(name === "open" && node.tagName === "DETAILS");
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => node.id !== "charts";
  document.addEventListener("htmx:configRequest", prepareRequest);
  document.addEventListener("htmx:beforeSwap", prepareSwap);
  document.addEventListener("htmx:afterRequest", readAnswer);
  document.addEventListener("htmx:afterSwap", () => {
    isFinished = isMarkedFinished();
    pauseButton.hidden = isFinished;
    showState();
    showTimes();
    markSelectedRow();
    watchTables();
  });
}

/** Show the present ages and, unless updates are paused, over or must wait, request the live part. */
export function update() {
  showTimes();
  if (!isLive) return;
  showFreshness();
  if (!isPaused && !isFinished && !document.hidden && Date.now() >= waitUntil) {
    htmx.trigger(document.body, "jobmon:tick"); // it also reaches the listeners of the document
  }
}

/** Pause or resume the updates. */
export function togglePause() {
  if (!isLive || isFinished) return;
  isPaused = !isPaused;
  pauseButton.setAttribute("aria-pressed", String(isPaused));
  pauseButton.textContent = isPaused ? "Paused" : "Pause";
  if (!isPaused) update();
  showFreshness();
}

/** Whether the server has marked the content as final. */
function isMarkedFinished() {
  return Boolean(document.getElementById("finished"));
}

/** Show the state in the live part, if it has any, before the title of the tab. */
function showState() {
  const state = document.getElementById("state")?.dataset.state;
  document.title = state ? `${state} · ${title}` : title;
}

function showFreshness() {
  const age = (Date.now() - answeredAt) / 1000;
  const isSlow = requestedAt > 0 && Date.now() - requestedAt > SLOW_MS;
  const problem = failure || (isSlow ? "jobmon not responding" : "");
  const isStale = Boolean(!isPaused && !isFinished && problem && age > STALE_S);
  document.documentElement.classList.toggle("is-stale", isStale);
  freshness.classList.toggle("stale", isStale);
  freshness.classList.toggle("fresh", !isStale && !isPaused && !isFinished);
  let text;
  if (isStale) text = `${problem} · data ${formatDuration(age)} old`;
  else if (isPaused) text = `data ${formatDuration(age)} old`;
  else if (isFinished) text = document.getElementById("finished")?.dataset.note ?? "";
  else text = ["live", reasonToHold(livePart)].filter(Boolean).join(" · ");
  if (freshness.textContent !== text) freshness.textContent = text;
}

// Usually nothing has changed, and the answer is a 304 without a body.
function prepareRequest(event) {
  const { elt, headers } = event.detail;
  if (elt === livePart) requestedAt ||= Date.now();
  const isHeld = Boolean(reasonToHold(elt));
  // After a hold the shown rows are out of date: then the whole part is needed, even if it has not changed.
  const isBehind = "held" in elt.dataset && !isHeld;
  if (elt.dataset.etag && !isBehind) headers["If-None-Match"] = elt.dataset.etag;
  if (isHeld && elt.matches("[data-list]")) headers["X-Jobmon-Held"] = heldJobIds();
}

function prepareSwap(event) {
  const { xhr, target, serverResponse } = event.detail;
  if (xhr.status !== 200) return;
  if (!reasonToHold(target)) {
    delete target.dataset.held;
    return;
  }
  target.dataset.held = "";
  if (target.matches("[data-list]")) {
    event.detail.shouldSwap = false;
    updateRows(target, serverResponse);
  } else {
    event.detail.serverResponse = keepRowOrder(serverResponse);
  }
}

function readAnswer(event) {
  const { xhr, elt } = event.detail;
  const status = xhr ? xhr.status : 0;
  const code = status ? xhr.getResponseHeader("X-Error-Code") : "";
  if (status === 200) elt.dataset.etag = xhr.getResponseHeader("ETag") || "";
  if (elt !== livePart) return; // buttons that update themselves: these have no data
  requestedAt = 0;
  failure = "";
  if (status === 200 || status === 304) {
    answeredAt = Date.now();
    if (updateTime) updateTime.dateTime = new Date(answeredAt).toISOString();
  } else if (status >= 400 && status < 500 && ![401, 408, 429].includes(status)) {
    const mistakes = code === "validation_error" ? ` ${xhr.responseText}` : "";
    endUpdates((ENDINGS[code] || "This page no longer exists.") + mistakes);
  } else if (status !== 401) { // a 401 reloads the page, which then shows the sign-in form
    failure = FAILURES[code] || "jobmon not responding";
    const waitMs = 1000 * (Number(xhr?.getResponseHeader("Retry-After")) || 1);
    if (status === 429) waitUntil = Date.now() + waitMs;
    // The random time prevents that all viewers of a busy jobmon return at once.
    else if (code === "overloaded") waitUntil = Date.now() + waitMs * (1 + Math.random());
  }
  showFreshness();
}

// The shown job or list no longer exists, or the viewer has lost access to it: end the updates, and show why.
function endUpdates(reason) {
  isFinished = true;
  pauseButton.hidden = true;
  livePart.classList.add("ended");
  const paragraph = document.createElement("p");
  paragraph.className = "card message bad";
  paragraph.setAttribute("role", "alert");
  paragraph.textContent = `${reason} Below is its last known state, ${formatDuration((Date.now() - answeredAt) / 1000)} old.`;
  livePart.before(paragraph);
}
