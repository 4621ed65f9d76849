// The cursor of a chart by the keyboard: arrow keys move it, with Shift they select, Enter chooses.

import { coverPlot } from "./chart_layer.js";

const MOVES = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
const OUTSIDE = { left: -10, top: -10 };
const NO_SELECTION = { left: 0, width: 0 };

/**
 * A uPlot plugin: a slider over the plot in `figure`, whose values are the steps of the time axis.
 * `describe(index)` is the text of a step. On Enter `choose(plot, index)` is called, or, with steps
 * that were selected, `chooseSteps(first, last)`.
 */
export function keyboardCursor(figure, title, describe, choose, chooseSteps) {
  const slider = document.createElement("div");
  let cursorTime = Infinity; // the time of a step in Unix seconds; at first of the newest step
  let anchor = null; // the index of the step where the selection began; null without one
  const show = (plot) => {
    plot.setCursor({ left: plot.valToPos(plot.data[0][stepIndex(plot, cursorTime)], "x"), top: plot.over.clientHeight / 2 }, true, true);
  };
  const hide = (plot) => plot.setCursor(OUTSIDE, true, true);
  const selected = (plot) => [anchor, stepIndex(plot, cursorTime)].sort((one, other) => one - other);
  const describeCursor = (index) => (anchor === null ? describe(index) : [...describe(index), "selected from", describe(anchor)[0]]);
  const move = (plot, event) => {
    const [first, last] = shownSteps(plot);
    const index = stepIndex(plot, cursorTime);
    anchor = event.shiftKey ? anchor ?? index : null;
    cursorTime = plot.data[0][Math.min(Math.max(index + MOVES[event.key], first), last)];
    plot.setSelect(anchor === null ? NO_SELECTION : measure(plot, ...selected(plot)), false);
    announce(slider, plot, stepIndex(plot, cursorTime), describeCursor);
    show(plot);
  };
  const press = (plot, event) => {
    if (Object.hasOwn(MOVES, event.key)) move(plot, event);
    else if (event.key === "Enter" && anchor !== null) chooseSteps(...selected(plot));
    else if (event.key === "Enter") choose(plot, stepIndex(plot, cursorTime));
    else if (event.key === "Escape") {
      anchor = null;
      plot.setSelect(NO_SELECTION, false);
      hide(plot);
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
        slider.addEventListener("focus", () => show(plot));
        slider.addEventListener("blur", () => hide(plot));
        slider.addEventListener("keydown", (event) => press(plot, event));
        figure.append(slider);
      },
      draw: (plot) => {
        coverPlot(slider, plot, figure);
        announce(slider, plot, stepIndex(plot, cursorTime), describeCursor);
      },
    },
  };
}

function announce(slider, plot, index, describe) {
  const [first, last] = shownSteps(plot);
  const values = { valuemin: first, valuemax: last, valuenow: index, valuetext: describe(index).join(", ") };
  Object.entries(values).forEach(([name, value]) => slider.setAttribute(`aria-${name}`, value));
}

/** The place of the steps from `first` to `last` in the plot. */
function measure(plot, first, last) {
  const [times] = plot.data;
  const left = plot.valToPos(times[first], "x");
  return { left, width: Math.max(2, plot.valToPos(times[last], "x") - left), top: 0, height: plot.over.clientHeight };
}

/** The first and the last index within the plot's scale, which a zoom narrows. */
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
