// Choosing a time in a chart: a click opens the jobs of a step, dragging opens a time window, Enter shows links.

import { formatMinute } from "./chart_format.js";
import { keyboardCursor } from "./chart_slider.js";
import { dragWindow, openSteps, stepLength } from "./window.js";

const CLICK_PX = 4; // if the pointer moves further while pressed, it drags
// By column: the label of the link, the date that filters the list, and other parameters of the list.
const LINKS = {
  finished: ["Finished", "finished", {}],
  succeeded: ["Succeeded", "finished", { status: "succeeded" }],
  dlq: ["Died", "finished", { status: "dlq" }],
  enqueued: ["Enqueued", "created", {}],
};
const HINT = "Click a time for its jobs, drag to see only that time.";

/**
 * uPlot plugins to choose a time in the plot in `figure`; `title` is its name for screen readers. A chosen step
 * opens the list of jobs at the address `jobs`, with the jobs of that time. Without `jobs` it opens the window of the
 * step. `describe(index)` returns a step as a list of texts. `times()` returns the start of each step in Unix seconds.
 * `columnAt(index, top)` returns the column of the line or bar there, or "". With `isFirst` the plot has a hint.
 */
export function timeLinks(figure, title, { jobs, describe, times, columnAt, isFirst }) {
  const chooseSteps = (first, last) => openSteps(times(), first, last);
  if (!jobs) {
    const openStep = (_, index) => chooseSteps(index, index);
    return [keyboardCursor(figure, title, describe, openStep, chooseSteps), dragWindow(times), chooseOnClick(openStep)];
  }
  const paragraph = document.createElement("p");
  paragraph.className = "time-links";
  paragraph.setAttribute("role", "status");
  paragraph.textContent = isFirst ? HINT : "";
  const showLinks = (index) => paragraph.replaceChildren(...makeLinks(times(), index, jobs));
  const showAndFocusLinks = (_, index) => {
    showLinks(index);
    paragraph.querySelector("a").focus();
  };
  const openJobs = (plot, index, event) => {
    if (event.pointerType === "touch") { // a tap shows the values and the links of a step, and opens nothing
      showLinks(index);
      return;
    }
    const address = makeAddress(times(), index, jobs, columnAt(index, plot.cursor.top));
    if (event.ctrlKey || event.metaKey) window.open(address, "_blank", "noopener");
    else location.assign(address);
  };
  return [
    keyboardCursor(figure, title, describe, showAndFocusLinks, chooseSteps),
    dragWindow(times),
    chooseOnClick(openJobs),
    { hooks: { init: () => figure.append(paragraph) } },
  ];
}

/** A uPlot plugin: a click calls `choose(plot, index, event)` with the step under the pointer. */
function chooseOnClick(choose) {
  let pressedX = null;
  return {
    hooks: {
      init: (plot) => {
        plot.over.addEventListener("mousedown", ({ clientX }) => { pressedX = clientX; });
        plot.over.addEventListener("click", (event) => {
          const { idx } = plot.cursor;
          const isDrag = pressedX === null || Math.abs(event.clientX - pressedX) > CLICK_PX;
          if (!isDrag && Number.isInteger(idx)) choose(plot, idx, event);
        });
      },
    },
  };
}

/** The address of the jobs that a column counts in a step or, without a column, of all jobs that finished in it. */
function makeAddress(times, index, jobs, column) {
  const bounds = [times[index], times[index] + stepLength(times)].map((seconds) => new Date(seconds * 1000).toISOString());
  const address = new URL(jobs, location.href);
  if (column === "failed") { // the job of a failed attempt may have another status by now: only the page of errors has all
    address.pathname = address.pathname.replace(/jobs$/, "errors");
    ["from", "to"].forEach((name, position) => address.searchParams.append(name, bounds[position]));
    return address;
  }
  const [, date, parameters] = LINKS[column] || LINKS.finished;
  ["from", "to"].forEach((name, position) => address.searchParams.append(`${date}_${name}`, bounds[position]));
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
