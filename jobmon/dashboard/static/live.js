// Keeps an open page up to date: requests its part every second, and shows how old its data is.

/* global htmx, Idiomorph */
import { heldJobIds, keepRowOrder, markSelectedRow, reasonToHold, updateRows } from "./rows.js";
import { followTables } from "./table_heads.js";
import { formatDuration, showTimes } from "./times.js";

const SLOW_MS = 4000;
const STALE_S = 3;
// The message by the code of an error; with any other code, jobmon itself does not respond.
const FAILURES = {
  database_unavailable: "Database not responding",
  overloaded: "jobmon is busy",
  rate_limited: "Too many requests",
  identity_provider_unavailable: "Identity provider not responding",
  server_error: "jobmon reports an error",
};
const ENDINGS = {
  access_denied: "This job no longer exists, or you don't have access to it.",
  permission_denied: "You don't have access to this page any more.",
  validation_error: "This page link is no longer valid.",
};

const part = document.querySelector("[data-live]");
const freshness = document.getElementById("freshness");
const updated = document.getElementById("updated");
const pauseButton = document.getElementById("pause");
const title = document.title;
const isLive = Boolean(part && window.htmx);
let answeredAt = Date.now();
let requestedAt = 0; // when the request without an answer was sent; 0 if there is none
let failure = ""; // why the last request failed, as the page shows it; empty if it did not
let waitUntil = 0; // no request before this instant
let paused = false;
let finished = hasFinished();

/** Start updating the page, if it has a part to update. */
export function startUpdates() {
  showState();
  if (!isLive) return;
  pauseButton.hidden = finished;
  pauseButton.addEventListener("click", togglePause);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
  // A field keeps what the viewer types, a row its selection, an opened `<details>` stays open, and charts draw themselves.
  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => name !== "data-fits" && !(name === "checked" && node.closest(".c-select")) && !(name === "open" && node.tagName === "DETAILS");
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => node.id !== "charts";
  document.addEventListener("htmx:configRequest", prepareRequest);
  document.addEventListener("htmx:beforeSwap", prepareSwap);
  document.addEventListener("htmx:afterRequest", readAnswer);
  document.addEventListener("htmx:afterSwap", () => {
    finished = hasFinished();
    pauseButton.hidden = finished;
    showState();
    showTimes();
    markSelectedRow();
    followTables();
  });
}

/** Show the present ages, and request the page's part unless updates are paused. */
export function update() {
  showTimes();
  if (!isLive) return;
  showFreshness();
  if (!paused && !finished && !document.hidden && Date.now() >= waitUntil) {
    htmx.trigger(document.body, "jobmon:tick");
    document.dispatchEvent(new Event("jobmon:tick"));
  }
}

/** Pause or resume the updates. */
export function togglePause() {
  if (!isLive || finished) return;
  paused = !paused;
  pauseButton.setAttribute("aria-pressed", String(paused));
  pauseButton.textContent = paused ? "Paused" : "Pause";
  if (!paused) update();
  showFreshness();
}

/** Whether the server marked the page as finished: its content will not change. */
function hasFinished() {
  return Boolean(document.getElementById("finished"));
}

/** Show the state that the page's part has, if any, before the title of the tab. */
function showState() {
  const state = document.getElementById("state")?.dataset.state;
  document.title = state ? `${state} · ${title}` : title;
}

function showFreshness() {
  const age = (Date.now() - answeredAt) / 1000;
  const isSlow = requestedAt > 0 && Date.now() - requestedAt > SLOW_MS;
  const problem = failure || (isSlow ? "jobmon not responding" : "");
  const isStale = Boolean(!paused && !finished && problem && age > STALE_S);
  document.documentElement.classList.toggle("is-stale", isStale);
  freshness.classList.toggle("stale", isStale);
  freshness.classList.toggle("fresh", !isStale && !paused && !finished);
  let text;
  if (isStale) text = `${problem} · data ${formatDuration(age)} old`;
  else if (paused) text = `data ${formatDuration(age)} old`;
  else if (finished) text = document.getElementById("finished")?.dataset.note ?? "";
  else text = ["live", reasonToHold(part)].filter(Boolean).join(" · ");
  if (freshness.textContent !== text) freshness.textContent = text;
}

// Usually nothing has changed, and the answer is a 304 without a body.
function prepareRequest(event) {
  const { elt, headers } = event.detail;
  requestedAt ||= Date.now();
  const isHeld = Boolean(reasonToHold(elt));
  // After rows were held, they are out of date: the whole part is needed.
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
  requestedAt = 0;
  failure = "";
  if (status === 200 || status === 304) {
    answeredAt = Date.now();
    if (updated) updated.dateTime = new Date(answeredAt).toISOString();
    if (status === 200) elt.dataset.etag = xhr.getResponseHeader("ETag") || "";
  } else if (status >= 400 && status < 500 && ![401, 408, 429].includes(status)) {
    endUpdates(ENDINGS[code] || "This page no longer exists.");
  } else if (status !== 401) { // a 401 reloads the page, which then shows the sign-in form
    failure = FAILURES[code] || "jobmon not responding";
    const waitMs = 1000 * (Number(xhr?.getResponseHeader("Retry-After")) || 1);
    if (status === 429) waitUntil = Date.now() + waitMs;
    // Viewers of a busy jobmon come back at different times.
    else if (code === "overloaded") waitUntil = Date.now() + waitMs * (1 + Math.random());
  }
  showFreshness();
}

// The shown job or list no longer exists, or the viewer lost access to it: mark the data as old.
function endUpdates(reason) {
  finished = true;
  pauseButton.hidden = true;
  part.classList.add("ended");
  const line = document.createElement("p");
  line.className = "card message bad";
  line.setAttribute("role", "alert");
  line.textContent = `${reason} Below is its last known state, ${formatDuration((Date.now() - answeredAt) / 1000)} old.`;
  part.before(line);
}
