// Choosing a time in a chart: a click opens the jobs of the time, dragging opens its window; the keyboard shows links.

import { formatMinute } from "./chart_format.js";
import { keyboardCursor } from "./chart_slider.js";
import { dragWindow, openSteps, stepLength } from "./window.js";

const CLICK_PX = 4; // a longer way between press and release is dragging
// By column: the label, the date by which a list of its jobs is filtered, and further parameters of the list.
const LINKS = {
  finished: ["Finished", "finished", {}],
  succeeded: ["Succeeded", "finished", { status: "succeeded" }],
  dlq: ["Died", "finished", { status: "dlq" }],
  enqueued: ["Enqueued", "created", {}],
};
const HINT = "Click a time for its jobs, drag to see only that time.";

/**
 * uPlot plugins to choose a time in the plot in `figure`: it opens the list `jobs` with the jobs of that
 * time, or without `jobs` the window of the step. `describe(index)` is the text of a step, `times()` has
 * the start of each step in Unix seconds, `columnAt(plot, index, top)` is the column that is drawn there,
 * or empty. With `isFirst` the plot has a hint.
 */
export function timeLinks(figure, title, { jobs, describe, times, columnAt, isFirst }) {
  const chooseSteps = (first, last) => openSteps(times(), first, last);
  if (!jobs) {
    const openStep = (_, index) => chooseSteps(index, index);
    return [keyboardCursor(figure, title, describe, openStep, chooseSteps), dragWindow(times), clickable(openStep)];
  }
  const line = document.createElement("p");
  line.className = "time-links";
  line.setAttribute("role", "status");
  line.textContent = isFirst ? HINT : "";
  const show = (index) => line.replaceChildren(...makeLinks(times(), index, jobs));
  const showByKey = (_, index) => {
    show(index);
    line.querySelector("a").focus();
  };
  const open = (plot, index, event) => {
    if (event.pointerType === "touch") { // a tap also shows the values of a time
      show(index);
      return;
    }
    const address = makeAddress(times(), index, jobs, columnAt(plot, index, plot.cursor.top));
    if (event.ctrlKey || event.metaKey) window.open(address, "_blank", "noopener");
    else location.assign(address);
  };
  return [
    keyboardCursor(figure, title, describe, showByKey, chooseSteps), dragWindow(times), clickable(open), { hooks: { init: () => figure.append(line) } },
  ];
}

function clickable(choose) {
  let pressedAt = null;
  return {
    hooks: {
      init: (plot) => {
        plot.over.addEventListener("mousedown", ({ clientX }) => { pressedAt = clientX; });
        plot.over.addEventListener("click", (event) => {
          const { idx } = plot.cursor;
          const isDrag = pressedAt === null || Math.abs(event.clientX - pressedAt) > CLICK_PX;
          if (!isDrag && Number.isInteger(idx)) choose(plot, idx, event);
        });
      },
    },
  };
}

/** The address of the jobs of a step: those that a column counts, or all that finished. */
function makeAddress(times, index, jobs, column) {
  const bounds = [times[index], times[index] + stepLength(times)].map((seconds) => new Date(seconds * 1000).toISOString());
  const address = new URL(jobs, location.href);
  if (column === "failed") { // a job whose attempt failed may have another status by now: the page of errors has all failed attempts
    address.pathname = address.pathname.replace(/jobs$/, "errors");
    ["from", "to"].forEach((name, end) => address.searchParams.append(name, bounds[end]));
    return address;
  }
  const [, date, parameters] = LINKS[column] || LINKS.finished;
  ["from", "to"].forEach((name, end) => address.searchParams.append(`${date}_${name}`, bounds[end]));
  Object.entries(parameters).forEach(([name, value]) => address.searchParams.append(name, value));
  return address;
}

function makeLinks(times, index, jobs) {
  const links = Object.entries(LINKS).map(([column, [label]]) => makeLink(makeAddress(times, index, jobs, column), label));
  links.push(makeLink(makeAddress(times, index, jobs, "failed"), "Errors"));
  const end = times[index] + stepLength(times);
  return [`${formatMinute(times[index])} to ${formatMinute(end).split(", ").at(-1)}: `, ...links.flatMap((link) => [link, " "])];
}

function makeLink(address, label) {
  const link = document.createElement("a");
  link.href = address;
  link.textContent = label;
  return link;
}
