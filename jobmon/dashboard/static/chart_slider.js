// The cursor of a chart for the keyboard: arrow keys move it, with Shift they select steps, Enter chooses the steps.

import { coverPlot } from "./chart_layer.js";

// By key: the number of steps that the cursor moves.
const MOVES = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
const OUTSIDE = { left: -10, top: -10 }; // a position that hides the cursor
const NO_SELECTION = { left: 0, width: 0 };

/**
 * A uPlot plugin: a slider over the plot in `figure`, whose values are the steps of the time axis.
 * `describe(index)` is the step as a list of texts. Enter calls `choose(plot, index)` or, if steps are
 * selected, `chooseSteps(first, last)`.
 */
export function keyboardCursor(figure, title, describe, choose, chooseSteps) {
  const slider = document.createElement("div");
  let cursorTime = Infinity; // the time of a step in Unix seconds; at first, that of the newest step
  let anchorTime = null; // the time of the step where the selection began; null without a selection
  const showCursor = (plot) => {
    plot.setCursor({ left: plot.valToPos(plot.data[0][stepIndex(plot, cursorTime)], "x"), top: plot.over.clientHeight / 2 }, true, true);
  };
  const hideCursor = (plot) => plot.setCursor(OUTSIDE, true, true);
  const selectedSteps = (plot) => [anchorTime, cursorTime].map((time) => stepIndex(plot, time)).sort((a, b) => a - b);
  const showSelection = (plot) => plot.setSelect(anchorTime === null ? NO_SELECTION : measureSteps(plot, ...selectedSteps(plot)), false);
  const announceCursor = (plot) => announce(slider, plot, stepIndex(plot, cursorTime), (index) => (
    anchorTime === null ? describe(index) : [...describe(index), "selected from", describe(stepIndex(plot, anchorTime))[0]]
  ));
  const move = (plot, event) => {
    const [first, last] = shownSteps(plot);
    const index = stepIndex(plot, cursorTime);
    anchorTime = event.shiftKey ? anchorTime ?? plot.data[0][index] : null;
    cursorTime = plot.data[0][Math.min(Math.max(index + MOVES[event.key], first), last)];
    showSelection(plot);
    announceCursor(plot);
    showCursor(plot);
  };
  const handleKey = (plot, event) => {
    if (Object.hasOwn(MOVES, event.key)) move(plot, event);
    else if (event.key === "Enter" && anchorTime !== null) chooseSteps(...selectedSteps(plot));
    else if (event.key === "Enter") choose(plot, stepIndex(plot, cursorTime));
    else if (event.key === "Escape") {
      anchorTime = null;
      showSelection(plot);
      hideCursor(plot);
    } else return;
    event.preventDefault();
  };
  return {
    hooks: {
      init: (plot) => {
        slider.className = "time-slider";
        slider.tabIndex = 0;
        slider.setAttribute("role", "slider");
        slider.setAttribute("aria-label", `Cursor of ${title}: arrow keys move it, with Shift they select, Enter shows the time`);
        slider.addEventListener("focus", () => showCursor(plot));
        slider.addEventListener("blur", () => hideCursor(plot));
        slider.addEventListener("keydown", (event) => handleKey(plot, event));
        figure.append(slider);
      },
      draw: (plot) => {
        coverPlot(slider, plot, figure);
        announceCursor(plot);
        // An update moves the steps: the selection and the cursor (shared by all charts) have to follow.
        if (anchorTime !== null) showSelection(plot);
        if (document.activeElement === slider && plot.cursor.left >= 0) queueMicrotask(() => showCursor(plot));
      },
    },
  };
}

function announce(slider, plot, index, describe) {
  const [first, last] = shownSteps(plot);
  const values = { valuemin: first, valuemax: last, valuenow: index, valuetext: describe(index).join(", ") };
  Object.entries(values).forEach(([name, value]) => slider.setAttribute(`aria-${name}`, value));
}

/** The position and size of the steps from `first` to `last` in the plot, in px. */
function measureSteps(plot, first, last) {
  const [times] = plot.data;
  const left = plot.valToPos(times[first], "x");
  return { left, width: Math.max(2, plot.valToPos(times[last], "x") - left), top: 0, height: plot.over.clientHeight };
}

/** The indexes of the first and the last step within the plot's scale. */
function shownSteps(plot) {
  const { min, max } = plot.scales.x;
  const [times] = plot.data;
  return [times.findIndex((time) => time >= min), times.findLastIndex((time) => time <= max)];
}

/** The index of the shown step at a moment, or of the nearest shown step. */
function stepIndex(plot, moment) {
  const [first, last] = shownSteps(plot);
  const index = plot.data[0].findLastIndex((time) => time <= moment);
  return Math.min(Math.max(index, first), last);
}
