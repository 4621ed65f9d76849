// The time window in the address of a page: the viewer sets it in a form, or drags over a chart.

const form = document.getElementById("window-form");
const BOUNDS = ["from", "to"];
const MIN_DRAG_PX = 4;

/** Prepare the form, on pages that have one: show its times in the viewer's time zone. */
export function startWindow() {
  if (!form) return;
  document.getElementById("window-zone").textContent = "Times in your time zone.";
  BOUNDS.map((name) => form.elements[name]).filter((field) => field.value).forEach((field) => {
    const moment = new Date(`${field.value}Z`);
    field.value = new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  });
  form.addEventListener("formdata", ({ formData }) => BOUNDS.forEach((name) => {
    const typed = formData.get(name);
    if (typed) formData.set(name, new Date(typed).toISOString());
    else formData.delete(name);
  }));
}

/** Open this page for the window between two times in Unix seconds. */
export function openWindow(from, to) {
  const address = new URL(location.href);
  ["range", "page", "cursor"].forEach((name) => address.searchParams.delete(name));
  [from, to].forEach((moment, index) => address.searchParams.set(BOUNDS[index], new Date(moment * 1000).toISOString()));
  location.assign(address);
}

/**
 * A uPlot plugin: dragging over steps of the plot opens this page for the window of these steps. `times()` has
 * the start of each step in Unix seconds.
 */
export function dragWindow(times) {
  let isDragging = false; // the size of the plot and the keyboard also change the selection, without dragging
  return {
    opts: (_, options) => ({ ...options, cursor: { ...options.cursor, drag: { x: true, y: false, setScale: false } } }),
    hooks: {
      init: ({ over }) => over.addEventListener("mousedown", () => { isDragging = true; }),
      setSelect: (plot) => {
        const { left, width } = plot.select;
        if (!isDragging) return;
        isDragging = false;
        if (width < MIN_DRAG_PX) return;
        const [first, last] = [left, left + width].map((x) => stepAt(times(), plot.posToVal(x, "x")));
        openSteps(times(), first, last);
      },
    },
  };
}

/** Open this page for the window from the step `first` to the step `last`. */
export function openSteps(times, first, last) {
  openWindow(times[first], times[last] + stepLength(times));
}

/** The length of a step in seconds; a minute if there is only one step. */
export function stepLength(times) {
  return times.length > 1 ? times[1] - times[0] : 60;
}

function stepAt(times, moment) {
  return Math.max(0, times.findLastIndex((time) => time <= moment));
}
