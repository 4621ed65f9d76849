// The filters of a list: a change applies at once, dates are in the viewer's time zone, empty filters are not sent.

const FOCUS_KEY = "jobmon-filter"; // in sessionStorage: the field with the focus, when a filter reloads the list
const form = document.getElementById("filters");
const moreFilters = document.getElementById("more-filters");
// The visible fields of dates, in the viewer's time zone; the form sends the hidden field after each.
const dateFields = document.querySelectorAll("[data-instant]");
let isApplying = false;

/** Prepare the form, on pages that have one. */
export function startFilters() {
  if (!form) return;
  // On a phone the open filters would hide the jobs.
  const hasErrors = form.querySelector("[aria-invalid]");
  if (!hasErrors && matchMedia("(max-width: 620px)").matches) form.closest("details").open = false;
  showDates();
  dateFields.forEach((field) => field.addEventListener("change", () => {
    field.nextElementSibling.value = field.value ? new Date(field.value).toISOString() : "";
    if (field.value && isCreationTime(field)) form.elements.range.value = "";
  }));
  form.elements.range?.addEventListener("change", () => [...dateFields].filter(isCreationTime).forEach((field) => {
    field.value = field.nextElementSibling.value = "";
  }));
  form.addEventListener("change", ({ target }) => { if (!target.matches("[data-instant]")) apply(); });
  // A date changes with each digit: it applies when its field loses the focus.
  form.addEventListener("focusout", ({ target }) => {
    if (target.matches("[data-instant]") && target.value !== target.dataset.shown) apply();
  });
  form.addEventListener("submit", () => { isApplying = true; });
  form.addEventListener("formdata", ({ formData }) => removeEmpty(formData));
  document.addEventListener("click", ({ target }) => { if (moreFilters?.open && !moreFilters.contains(target)) moreFilters.open = false; });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape" && moreFilters?.open) closeMoreFilters(); });
  addEventListener("pagehide", keepFocus);
  addEventListener("pageshow", (event) => {
    isApplying = false;
    const [visit] = performance.getEntriesByType("navigation");
    if (event.persisted || visit?.type === "back_forward") resetForm();
  });
  restoreFocus();
}

// A range and dates of creation exclude each other: setting one empties the other.
function isCreationTime(field) {
  return field.dataset.instant.startsWith("created_");
}

function apply() {
  form.requestSubmit();
}

function closeMoreFilters() {
  moreFilters.open = false;
  moreFilters.querySelector("summary").focus();
}

function keepFocus() {
  const field = document.activeElement;
  if (!isApplying || !form.contains(field)) return;
  const focused = { name: field.name || field.dataset.instant, value: field.type === "checkbox" ? field.value : null };
  sessionStorage.setItem(FOCUS_KEY, JSON.stringify(focused));
}

function restoreFocus() {
  const { name, value } = JSON.parse(sessionStorage.getItem(FOCUS_KEY) ?? "{}");
  sessionStorage.removeItem(FOCUS_KEY);
  if (!name) return;
  const fields = [...form.querySelectorAll("input:not([type=hidden]), select")];
  const field = fields.find((input) => [input.name, input.dataset.instant].includes(name) && (value === null || input.value === value));
  if (!field) return;
  if (moreFilters?.contains(field)) moreFilters.open = true;
  field.focus({ preventScroll: true });
}

function showDates() {
  dateFields.forEach((field) => {
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

// After Back, the browser restores the last typed values, but the list shows the values in its address.
function resetForm() {
  form.reset();
  form.querySelectorAll("input[type=hidden]").forEach((field) => { field.value = field.defaultValue; });
  showDates();
}
