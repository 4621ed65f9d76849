// What the pages do in the browser: keep themselves up to date, tell times in the viewer's zone,
// and answer to keys. Without it they are plain pages that work, and stand still.
"use strict";

const TICK_MS = 1000;
const page = document.documentElement;

// --- Times -------------------------------------------------------------------------------------

const inZone = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const withYear = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function duration(seconds) {
  for (let i = 0; i < UNITS.length; i += 1) {
    const [unit, size] = UNITS[i];
    if (seconds >= size || unit === "s") {
      const whole = Math.floor(seconds / size);
      const next = UNITS[i + 1];
      const part = next ? Math.floor((seconds % size) / next[1]) : 0;
      return part ? `${whole} ${unit} ${part} ${next[0]}` : `${whole} ${unit}`;
    }
  }
  return "";
}

function showTime(element) {
  const moment = new Date(element.dateTime);
  if (Number.isNaN(moment.getTime())) return;
  const age = (Date.now() - moment) / 1000;
  if ("age" in element.dataset) {
    element.textContent = duration(Math.max(0, age));
  } else if (Math.abs(age) < 3600) {
    element.textContent = Math.abs(age) < 1 ? "now" : age > 0 ? `${duration(age)} ago` : `in ${duration(-age)}`;
  } else {
    element.textContent = (moment.getFullYear() === new Date().getFullYear() ? inZone : withYear).format(moment);
  }
  if (element.title) return;
  element.title = `${withYear.format(moment)}\n${moment.toISOString()}`;
}

function showTimes() {
  document.querySelectorAll("time").forEach(showTime);
}

// --- Staying up to date ------------------------------------------------------------------------

const live = document.querySelector("[data-live]");
const freshness = document.getElementById("freshness");
const pause = document.getElementById("pause");
let seenAt = Date.now();
let askedAt = 0; // since when an answer is due; 0 if none is
let failing = ""; // who does not answer, and how
let waitUntil = 0; // no request before that
let paused = false;
let finished = Boolean(document.getElementById("finished"));

// By the code of an error. Who is not named here is jobmon itself.
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

function tick() {
  showTimes();
  if (!live || !window.htmx) return;
  showFreshness();
  if (!paused && !finished && !document.hidden && Date.now() >= waitUntil) {
    htmx.trigger(document.body, "jobmon:tick");
    document.dispatchEvent(new Event("jobmon:tick"));
  }
}

function showFreshness() {
  const now = Date.now();
  const age = (now - seenAt) / 1000;
  const unanswered = failing || (askedAt > 0 && now - askedAt > 4000 ? "jobmon not responding" : "");
  const stale = Boolean(!paused && !finished && unanswered && age > 3);
  page.classList.toggle("is-stale", stale);
  freshness.classList.toggle("stale", stale);
  freshness.classList.toggle("fresh", !stale && !paused && !finished);
  let said = "";
  if (stale) said = `${unanswered} · data ${duration(age)} old`;
  else if (paused) said = `as of ${duration(age)} ago`;
  else if (!finished) said = ["live", heldBy(live)].filter(Boolean).join(" · ");
  if (freshness.textContent !== said) freshness.textContent = said;
}

function setPaused(value) {
  paused = value;
  pause.setAttribute("aria-pressed", String(value));
  pause.textContent = value ? "Paused" : "Pause";
  if (!value) tick();
  showFreshness();
}

// The page asks "has this changed?"; mostly it has not, and the answer is a 304 without a body.
document.addEventListener("htmx:configRequest", (event) => {
  const { elt, headers } = event.detail;
  askedAt = askedAt || Date.now();
  const held = heldBy(elt);
  // What was held back under the pointer is due now that the pointer is gone.
  const isBehind = "held" in elt.dataset && !held;
  if (elt.dataset.etag && !isBehind) headers["If-None-Match"] = elt.dataset.etag;
  if (held && elt.matches("[data-list]")) headers["X-Jobmon-Held"] = heldIds();
});

// The jobs whose rows stay, whether or not they are still on the page: as many as a header has room for.
function heldIds() {
  let room = 4000;
  const ids = rowsOf().map((row) => row.dataset.job).filter(Boolean);
  return ids.filter((id) => (room -= id.length + 1) >= 0).join(",");
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, target } = event.detail;
  if (xhr.status !== 200) return;
  if (!heldBy(target)) {
    delete target.dataset.held;
    return;
  }
  target.dataset.held = "";
  if (target.matches("[data-list]")) {
    event.detail.shouldSwap = false;
    updateInPlace(target, event.detail.serverResponse);
  } else {
    event.detail.serverResponse = inOrderOf(target, event.detail.serverResponse);
  }
});

document.addEventListener("htmx:afterRequest", (event) => {
  const { xhr, elt } = event.detail;
  const status = xhr ? xhr.status : 0;
  const code = status ? xhr.getResponseHeader("X-Error-Code") : "";
  askedAt = 0;
  failing = "";
  if (status === 200 || status === 304) {
    seenAt = Date.now();
    if (status === 200) elt.dataset.etag = xhr.getResponseHeader("ETag") || "";
  } else if (status >= 400 && status < 500 && status !== 401 && status !== 408 && status !== 429) {
    end(ENDINGS[code] || "This page is no longer there.");
  } else if (status !== 401) { // then the page loads anew, and asks to sign in
    failing = FAILURES[code] || "jobmon not responding";
    if (status === 429) waitUntil = Date.now() + 1000 * (Number(xhr.getResponseHeader("Retry-After")) || 1);
  }
  showFreshness();
});

// What was shown is not there any more, or not for this viewer: it is not shown as if it were.
function end(why) {
  finished = true;
  pause.hidden = true;
  live.classList.add("ended");
  const line = document.createElement("p");
  line.className = "card said bad";
  line.setAttribute("role", "alert");
  line.textContent = `${why} Below is what it was ${duration((Date.now() - seenAt) / 1000)} ago.`;
  live.before(line);
}

document.addEventListener("htmx:afterSwap", () => {
  finished = Boolean(document.getElementById("finished"));
  pause.hidden = finished;
  showTimes();
  markRow();
});

// Rows under the pointer or with the focus stay where they are, and the page says why.
function heldBy(list) {
  const bodies = [...list.querySelectorAll(".rows tbody")];
  if (bodies.some((rows) => rows.matches(":hover"))) return "rows held: pointer on the table";
  if (bodies.some((rows) => rows.contains(document.activeElement))) return "rows held: focus in the table";
  return "";
}

// A table that is sorted by its figures keeps its rows in their order, and shows new figures.
// A row that is not among the first ones any more keeps its last figures, dimmed.
function inOrderOf(target, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const rows = fresh.querySelector(".rows tbody");
  if (!rows) return html;
  const known = new Map([...rows.children].map((row) => [row.id, row]));
  const kept = rowsOf().map((row) => {
    const now = known.get(row.id);
    known.delete(row.id);
    if (now) return now;
    const old = row.cloneNode(true);
    old.classList.add("unmatched");
    return old;
  });
  rows.replaceChildren(...kept, ...known.values());
  return fresh.body.innerHTML;
}

function updateInPlace(list, html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const rows = [...fresh.querySelectorAll("#job-rows tbody tr")];
  const isNew = (row) => !document.getElementById(row.id);
  const known = new Set(rows.map((row) => row.id));
  rows.forEach((row) => {
    if (!isNew(row)) Idiomorph.morph(document.getElementById(row.id), row.outerHTML, { morphStyle: "outerHTML" });
  });
  rowsOf().filter((row) => !known.has(row.id)).forEach((row) => {
    const now = fresh.getElementById(row.id);
    if (now && !("gone" in now.dataset)) {
      Idiomorph.morph(row, now.outerHTML, { morphStyle: "outerHTML" });
      return;
    }
    row.classList.add("unmatched");
    const status = row.querySelector(".status");
    if (now && status) {
      status.className = "status s-other";
      status.textContent = "deleted";
    }
  });
  const count = fresh.querySelector(".count");
  if (count) Idiomorph.morph(list.querySelector(".count"), count.outerHTML, { morphStyle: "outerHTML" });
  showTimes();
  markRow();
  const unknown = rows.filter(isNew).length;
  let button = list.querySelector(".fresh-rows");
  if (!unknown) {
    if (button) button.remove();
    return;
  }
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.className = "fresh-rows";
    button.addEventListener("click", () => {
      delete list.dataset.etag;
      document.activeElement.blur();
      htmx.ajax("GET", list.getAttribute("hx-get"), { source: list, target: list, swap: "morph:innerHTML" });
    });
    list.append(button); // over the page: it must move no row
  }
  // They are newer where they come before all that is shown, as in a list with the newest first.
  const which = rows.slice(0, unknown).every(isNew) && !("oldestFirst" in list.dataset) ? "newer" : "other";
  button.textContent = `Show ${unknown} ${which} ${unknown === 1 ? "job" : "jobs"}`;
}

// --- Rows by keyboard ----------------------------------------------------------------------------

let here = null; // the id of the row that j and k have come to

function rowsOf() {
  return [...document.querySelectorAll(".rows tbody tr")];
}

function markRow() {
  rowsOf().forEach((row) => row.classList.toggle("here", row.id === here));
}

function moveRow(by) {
  const rows = rowsOf();
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.id === here);
  const row = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + by, 0), rows.length - 1)];
  here = row.id;
  markRow();
  row.querySelector(".row-link")?.focus();
  row.scrollIntoView({ block: "nearest" });
}

// --- Keys, buttons, forms ------------------------------------------------------------------------

const help = document.getElementById("help");
const said = document.getElementById("said");
const themeButton = document.getElementById("theme");
const THEMES = ["system", "light", "dark"];
let going = 0; // until when a key after `g` goes somewhere

function go(letter) {
  const link = document.querySelector(`[data-go="${CSS.escape(letter)}"]`);
  if (link) link.click();
}

function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(page.dataset.theme) + 1) % THEMES.length];
  page.dataset.theme = theme;
  const cookie = location.protocol === "https:"
    ? `__Host-jobmon_theme=${theme}; Path=/; Secure`
    : `jobmon_theme=${theme}; Path=/dashboard`;
  document.cookie = `${cookie}; Max-Age=31536000; SameSite=Lax`;
  sayTheme();
  document.dispatchEvent(new Event("jobmon:theme"));
}

function sayTheme() {
  const theme = page.dataset.theme;
  themeButton.setAttribute("aria-label", `Colours: ${theme === "system" ? "as the system" : theme}`);
  themeButton.title = themeButton.getAttribute("aria-label");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (Date.now() < going) {
    going = 0;
    go(event.key);
    return;
  }
  const actions = {
    "/": () => { if (filters) filters.open = true; (document.getElementById("search") || document.getElementById("find-type"))?.focus(); },
    "?": () => help.showModal(),
    g: () => { going = Date.now() + 1500; },
    j: () => moveRow(1),
    k: () => moveRow(-1),
    p: () => { if (live && !finished) setPaused(!paused); },
    t: nextTheme,
  };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
});

async function copy(button) {
  const text = "copyNext" in button.dataset ? button.nextElementSibling.textContent : button.dataset.copy;
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copyTheOldWay(text);
  button.classList.add("done");
  said.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("done");
    said.textContent = "";
  }, 1200);
}

// Without TLS a browser has no clipboard to write to.
function copyTheOldWay(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".copy");
  if (button) copy(button);
});

// On a phone the filters would hide the jobs.
const filters = document.querySelector(".filters");
if (filters && !location.search && matchMedia("(max-width: 620px)").matches) filters.open = false;

// A date and time is typed in the viewer's zone and sent as an instant.
const instants = document.querySelectorAll("[data-instant]");
function showInstants() {
  instants.forEach((field) => {
    const moment = new Date(field.nextElementSibling.value);
    if (!Number.isNaN(moment.getTime())) {
      field.value = new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    }
  });
}
showInstants();
instants.forEach((field) => field.addEventListener("change", () => {
  field.nextElementSibling.value = field.value ? new Date(field.value).toISOString() : "";
}));

// After Back the form is that of the list, not what had been typed before leaving it.
addEventListener("pageshow", (event) => {
  const [visit] = performance.getEntriesByType("navigation");
  if (!event.persisted && visit?.type !== "back_forward") return;
  const form = document.getElementById("filters");
  if (!form) return;
  form.reset();
  form.querySelectorAll("input[type=hidden]").forEach((field) => { field.value = field.defaultValue; });
  showInstants();
});

// Addresses stay short: what is not filled in is not sent.
document.getElementById("filters")?.addEventListener("formdata", ({ formData }) => {
  for (const name of new Set(formData.keys())) {
    const given = formData.getAll(name).filter(Boolean);
    formData.delete(name);
    given.forEach((value) => formData.append(name, value));
  }
});

// An identity provider may send people here with their token behind the address. So may anybody
// else, with a token of their own: whose it is has to be seen, and signing in with it to be meant.
const signIn = document.getElementById("sign-in");
if (signIn) {
  const token = new URLSearchParams(location.hash.slice(1)).get("access_token");
  if (token) {
    history.replaceState(null, "", location.pathname + location.search);
    signIn.elements.token.value = token;
    const button = signIn.querySelector("button");
    button.textContent = `Sign in as ${subjectOf(token)}`;
    button.focus();
  }
}

function subjectOf(token) {
  const unknown = "whoever this token is of";
  try {
    const bytes = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const text = new TextDecoder().decode(Uint8Array.from(bytes, (one) => one.charCodeAt(0)));
    const { sub } = JSON.parse(text);
    return typeof sub === "string" ? sub.slice(0, 100) : unknown;
  } catch {
    return unknown;
  }
}

const again = document.querySelector("[data-try-again]");
if (again) setTimeout(() => location.reload(), Number(again.dataset.tryAgain) * 1000);

if (live && window.htmx) {
  pause.hidden = finished;
  pause.addEventListener("click", () => setPaused(!paused));
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
  // What somebody is typing stays, and a folded part that was opened stays open.
  Idiomorph.defaults.ignoreActiveValue = true;
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) => !(name === "open" && node.tagName === "DETAILS");
  // The charts draw themselves.
  Idiomorph.defaults.callbacks.beforeNodeMorphed = (node) => node.id !== "charts";
}
themeButton.hidden = false;
themeButton.addEventListener("click", nextTheme);
sayTheme();
const helpButton = document.getElementById("help-button");
helpButton.hidden = false;
helpButton.addEventListener("click", () => help.showModal());
tick();
setInterval(tick, TICK_MS);
