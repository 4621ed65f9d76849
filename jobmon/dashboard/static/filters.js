// The filters of a list: instants in the viewer's time zone, short addresses, and the way back.

const form = document.getElementById("filters");
// A visible field in the viewer's time zone, each followed by the hidden one that is sent.
const instants = document.querySelectorAll("[data-instant]");

/** Prepare the form, on pages that have one. */
export function startFilters() {
  if (!form) return;
  // On a phone the open filters would hide the jobs.
  const isWrong = form.querySelector("[aria-invalid]");
  if (!isWrong && matchMedia("(max-width: 620px)").matches) form.closest("details").open = false;
  showInstants();
  instants.forEach((field) => field.addEventListener("change", () => {
    field.nextElementSibling.value = field.value ? new Date(field.value).toISOString() : "";
  }));
  form.addEventListener("formdata", ({ formData }) => removeEmpty(formData));
  addEventListener("pageshow", (event) => {
    const [visit] = performance.getEntriesByType("navigation");
    if (event.persisted || visit?.type === "back_forward") resetForm();
  });
}

function showInstants() {
  instants.forEach((field) => {
    const moment = new Date(field.nextElementSibling.value);
    if (Number.isNaN(moment.getTime())) return;
    field.value = new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  });
}

function removeEmpty(formData) {
  for (const name of new Set(formData.keys())) {
    const values = formData.getAll(name).filter(Boolean);
    formData.delete(name);
    values.forEach((value) => formData.append(name, value));
  }
}

// After Back the browser restores what was typed before leaving, which is not what the list shows.
function resetForm() {
  form.reset();
  form.querySelectorAll("input[type=hidden]").forEach((field) => { field.value = field.defaultValue; });
  showInstants();
}
