// Actions on jobs: the selection of rows, the question before a request, and the progress of requests.
// Without scripts the same forms lead to pages.

const PART_HEADERS = { "X-Jobmon-Part": "1" };
const STORAGE_KEY = "jobmon_toasts"; // has the addresses of the progress lines that the viewer has not dismissed
const MAX_TOASTS = 4;
const toasts = document.getElementById("toasts");
const dialog = document.createElement("dialog");
const awaitedToasts = new Set(); // the addresses whose answer has not arrived yet
let waitUntil = 0; // before this instant, no progress is requested
let lastClickedId = null; // the job whose box was clicked last: a range with Shift begins there

start();

function start() {
  dialog.id = "confirm";
  dialog.setAttribute("aria-labelledby", "confirm-title");
  document.body.append(dialog);
  document.addEventListener("submit", handleSubmit);
  document.addEventListener("formdata", convertToUtc);
  document.addEventListener("click", handleClick);
  document.addEventListener("change", showSelection);
  document.addEventListener("keydown", handleKey);
  document.addEventListener("htmx:afterSwap", showSelection);
  document.addEventListener("jobmon:tick", updateToasts);
  showToasts();
  showSelection();
  showLocalTimes(document);
  setInterval(() => { if (!document.querySelector("[data-live]")) updateToasts(); }, 1000); // such a page has no ticks
}

// Requests

async function handleSubmit(event) {
  const form = event.target;
  const isQuestion = "confirm" in form.dataset;
  if (!isQuestion && !(dialog.contains(form) && "file" in form.dataset)) return;
  event.preventDefault();
  const buttons = form.querySelectorAll("button");
  const body = new URLSearchParams(new FormData(form, event.submitter));
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const response = await fetch(form.getAttribute("action"), { method: "POST", body, headers: PART_HEADERS });
    await (isQuestion ? showQuestion(response) : showRequest(response));
  } catch {
    showProblem("jobmon not responding. Try again.");
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
    showSelection();
  }
}

// Show the question that a link leads to in the dialog.
async function followLink(event) {
  event.preventDefault();
  try {
    await showQuestion(await fetch(event.target.closest("a").href, { headers: PART_HEADERS }));
  } catch {
    showProblem("jobmon not responding. Try again.");
  }
}

async function showQuestion(response) {
  if (response.status === 401) location.reload();
  else if (isForm(response)) openDialog(await response.text());
  else showProblem(await explainFailure(response));
}

async function showRequest(response) {
  if (response.status === 401) location.reload();
  else if (isForm(response)) openDialog(await response.text());
  else if (response.status !== 201) showProblem(await explainFailure(response));
  else {
    const pageAddress = response.headers.get("X-Jobmon-Location");
    const toast = showToast(await response.text());
    dialog.close();
    document.querySelectorAll(".c-select input").forEach((box) => { box.checked = false; });
    if (pageAddress) location.assign(pageAddress);
    else toast?.querySelector("a")?.focus();
  }
}

// Whether an answer is the question, with what is wrong in its fields if it has status 422.
function isForm(response) {
  return [200, 422].includes(response.status) && !response.headers.has("X-Error-Code");
}

async function explainFailure(response) {
  if (!response.headers.has("X-Error-Code")) return `jobmon answered with status ${response.status}. Try again.`;
  return `Not possible. ${await response.text()}`;
}

function openDialog(html) {
  dialog.innerHTML = html;
  showLocalTimes(dialog);
  if (!dialog.open) dialog.showModal();
  const firstField = dialog.querySelector("[aria-invalid], input:not([type=hidden]):not([type=checkbox]), textarea");
  firstField?.focus();
}

// The viewer enters times in the local time zone; the form sends them in UTC.
function showLocalTimes(part) {
  part.querySelectorAll("[data-zone]").forEach((zone) => { zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone; });
  part.querySelectorAll("[data-utc]").forEach((field) => {
    const moment = new Date(field.dataset.utc);
    if (Number.isNaN(moment.getTime())) return;
    field.value = new Date(moment - 60_000 * moment.getTimezoneOffset()).toISOString().slice(0, 16);
  });
}

function convertToUtc({ target, formData }) {
  target.querySelectorAll("[data-utc]").forEach((field) => {
    const moment = new Date(field.value);
    if (!Number.isNaN(moment.getTime())) formData.set(field.name, moment.toISOString());
  });
}

function showProblem(text) {
  dialog.replaceChildren();
  const heading = Object.assign(document.createElement("h1"), { id: "confirm-title", textContent: text });
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  close.dataset.close = "";
  dialog.append(heading, close);
  if (!dialog.open) dialog.showModal();
}

// Progress: a toast is a line with the progress of one request.

function readStoredAddresses() {
  return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "[]");
}

function storeAddresses(addresses) {
  sessionStorage.setItem(STORAGE_KEY, JSON.stringify(addresses.slice(-MAX_TOASTS)));
}

// Show a toast, or update it if it is already shown. Returns the shown element.
function showToast(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").querySelector("[data-toast]");
  if (!fresh) return null;
  const existing = findToast(fresh.dataset.toast);
  if (!existing) {
    toasts.append(fresh);
    storeAddresses([...readStoredAddresses().filter((address) => address !== fresh.dataset.toast), fresh.dataset.toast]);
  } else if (existing.outerHTML !== fresh.outerHTML) {
    existing.toggleAttribute("data-over", "over" in fresh.dataset);
    for (const part of ["p", "progress"]) updatePart(existing, fresh, part);
  }
  return existing ?? fresh;
}

// The link and the button stay, so that they keep the focus: only the text after the link is replaced.
function updatePart(existing, fresh, part) {
  const [element, freshElement] = [existing.querySelector(part), fresh.querySelector(part)];
  if (!element || !freshElement) element?.remove();
  else if (part === "progress") element.value = freshElement.value;
  else if (element.textContent !== freshElement.textContent) element.lastChild.replaceWith(...[...freshElement.childNodes].slice(1));
}

function findToast(address) {
  return [...toasts.children].find((toast) => toast.dataset.toast === address);
}

async function fetchToast(address) {
  if (awaitedToasts.has(address) || Date.now() < waitUntil) return;
  awaitedToasts.add(address);
  try {
    const response = await fetch(address, { headers: PART_HEADERS });
    if (response.ok) showToast(await response.text());
    else if (response.status < 500 && response.status !== 429) removeToast(address);
    else waitUntil = Date.now() + 1000 * (Number(response.headers.get("Retry-After")) || 1);
  } catch {
    // The head of the page shows that jobmon does not respond.
  } finally {
    awaitedToasts.delete(address);
  }
}

// On the page of a request, the toast of this request is removed: the page shows the progress itself.
async function showToasts() {
  removeToast(document.querySelector("[data-request]")?.dataset.request);
  for (const address of readStoredAddresses()) await fetchToast(address);
}

function updateToasts() {
  if (document.hidden) return;
  [...toasts.children].filter((toast) => !("over" in toast.dataset)).forEach((toast) => fetchToast(toast.dataset.toast));
}

function removeToast(address) {
  findToast(address)?.remove();
  storeAddresses(readStoredAddresses().filter((stored) => stored !== address));
}

// Selection

function listBoxes() {
  return [...document.querySelectorAll("#job-rows .c-select input[name=id]")];
}

function showSelection() {
  const form = document.getElementById("selection");
  if (!form) return;
  const boxes = listBoxes();
  const count = boxes.filter((box) => box.checked).length;
  const scope = form.querySelector("[name=scope]:checked, [name=scope][type=hidden]")?.value;
  document.getElementById("selected-count").textContent = count ? `(${count})` : "";
  form.querySelectorAll("button").forEach((button) => { button.disabled = scope === "selected" && !count; });
  const allBox = document.querySelector("[data-select-all]");
  if (!allBox) return;
  allBox.checked = count > 0 && count === boxes.length;
  allBox.indeterminate = count > 0 && count < boxes.length;
}

function handleClick(event) {
  if (event.target.closest("[data-dismiss]")) removeToast(event.target.closest("[data-toast]").dataset.toast);
  else if (event.target.closest("a[data-confirm]") && !event.ctrlKey && !event.metaKey && !event.shiftKey) followLink(event);
  else if (dialog.contains(event.target) && event.target.closest("[data-close]")) {
    event.preventDefault();
    dialog.close();
  } else if (event.target.matches("[data-select-all]")) {
    listBoxes().forEach((box) => { box.checked = event.target.checked; });
    showSelection();
  } else if (event.target.matches(".c-select input[name=id]")) selectRange(event);
}

function selectRange(event) {
  const boxes = listBoxes();
  const [from, to] = [boxes.findIndex((box) => box.value === lastClickedId), boxes.indexOf(event.target)];
  if (event.shiftKey && from >= 0) {
    boxes.slice(Math.min(from, to), Math.max(from, to) + 1).forEach((box) => { box.checked = event.target.checked; });
  }
  lastClickedId = event.target.value;
  showSelection();
}

function handleKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("textarea, select, input:not([type=checkbox]):not([type=radio])")) return;
  if (event.key !== "r" && event.key !== "x") return;
  const box = event.key === "x" && document.querySelector("tr.selected .c-select input");
  (box || document.querySelector(`.act [data-key="${event.key}"]`))?.click();
}
