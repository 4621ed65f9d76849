// The filters of a list: they apply at once, with instants in the viewer's time zone and short addresses.

const FOCUS_KEY = "jobmon-filter"; // in sessionStorage: the field that had the focus when the list was reloaded
const form = document.getElementById("filters");
const more = document.getElementById("more-filters");
// The visible fields, in the viewer's time zone; the hidden field after each is sent.
const instants = document.querySelectorAll("[data-instant]");
let isApplying = false;

/** Prepare the form, on pages that have one. */
export function startFilters() {
  if (!form) return;
  // On a phone the open filters would hide the jobs.
  const isWrong = form.querySelector("[aria-invalid]");
  if (!isWrong && matchMedia("(max-width: 620px)").matches) form.closest("details").open = false;
  showInstants();
  instants.forEach((field) => field.addEventListener("change", () => {
    field.nextElementSibling.value = field.value ? new Date(field.value).toISOString() : "";
    if (field.value && isCreationTime(field)) form.elements.range.value = "";
  }));
  form.elements.range?.addEventListener("change", () => [...instants].filter(isCreationTime).forEach((field) => {
    field.value = field.nextElementSibling.value = "";
  }));
  form.addEventListener("change", ({ target }) => { if (!target.matches("[data-instant]")) apply(); });
  // A date changes with each digit: it applies when its field loses the focus.
  form.addEventListener("focusout", ({ target }) => {
    if (target.matches("[data-instant]") && target.value !== target.dataset.shown) apply();
  });
  form.addEventListener("submit", () => { isApplying = true; });
  form.addEventListener("formdata", ({ formData }) => removeEmpty(formData));
  document.addEventListener("click", ({ target }) => { if (more?.open && !more.contains(target)) more.open = false; });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape" && more?.open) closeMore(); });
  addEventListener("pagehide", keepFocus);
  addEventListener("pageshow", (event) => {
    isApplying = false;
    const [visit] = performance.getEntriesByType("navigation");
    if (event.persisted || visit?.type === "back_forward") resetForm();
  });
  restoreFocus();
}

// A range and times of creation exclude each other: the last one that is set counts.
function isCreationTime(field) {
  return field.dataset.instant.startsWith("created_");
}

function apply() {
  form.requestSubmit();
}

function closeMore() {
  more.open = false;
  more.querySelector("summary").focus();
}

function keepFocus() {
  const field = document.activeElement;
  if (!isApplying || !form.contains(field)) return;
  const kept = { name: field.name || field.dataset.instant, value: field.type === "checkbox" ? field.value : null };
  sessionStorage.setItem(FOCUS_KEY, JSON.stringify(kept));
}

function restoreFocus() {
  const { name, value } = JSON.parse(sessionStorage.getItem(FOCUS_KEY) ?? "{}");
  sessionStorage.removeItem(FOCUS_KEY);
  if (!name) return;
  const fields = [...form.querySelectorAll("input:not([type=hidden]), select")];
  const field = fields.find((one) => [one.name, one.dataset.instant].includes(name) && (value === null || one.value === value));
  if (!field) return;
  if (more?.contains(field)) more.open = true;
  field.focus({ preventScroll: true });
}

function showInstants() {
  instants.forEach((field) => {
    const moment = new Date(field.nextElementSibling.value);
    if (!Number.isNaN(moment.getTime())) {
      field.value = new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
    }
    field.dataset.shown = field.value;
  });
}

function removeEmpty(formData) {
  for (const name of new Set(formData.keys())) {
    const values = formData.getAll(name).filter(Boolean);
    formData.delete(name);
    values.forEach((value) => formData.append(name, value));
  }
}

// After Back, the browser restores the values typed before leaving, but the list shows those of its address.
function resetForm() {
  form.reset();
  form.querySelectorAll("input[type=hidden]").forEach((field) => { field.value = field.defaultValue; });
  showInstants();
}
