// The cursor of a chart by the keyboard: arrow keys move it, Enter chooses its time.

import { coverPlot } from "./chart_layer.js";

const MOVES = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
const OUTSIDE = { left: -10, top: -10 };

/**
 * A uPlot plugin: a slider over the plot in `figure`, whose values are the steps of the time axis.
 * `describe(index)` is the text of a step. `choose(plot, index)` is called on Enter, if given.
 */
export function keyboardCursor(figure, title, describe, choose) {
  const slider = document.createElement("div");
  let at = Infinity; // the time of the step in Unix seconds; at first that of the newest step
  const show = (plot) => {
    plot.setCursor({ left: plot.valToPos(plot.data[0][stepIndex(plot, at)], "x"), top: plot.over.clientHeight / 2 }, true, true);
  };
  const hide = (plot) => plot.setCursor(OUTSIDE, true, true);
  const press = (plot, event) => {
    if (Object.hasOwn(MOVES, event.key)) {
      const [first, last] = shownSteps(plot);
      at = plot.data[0][Math.min(Math.max(stepIndex(plot, at) + MOVES[event.key], first), last)];
      announce(slider, plot, stepIndex(plot, at), describe);
      show(plot);
    } else if (event.key === "Enter" && choose) choose(plot, stepIndex(plot, at));
    else if (event.key === "Escape") hide(plot);
    else return;
    event.preventDefault();
  };
  return {
    hooks: {
      init: (plot) => {
        slider.className = "time-slider";
        slider.tabIndex = 0;
        slider.setAttribute("role", "slider");
        slider.setAttribute("aria-label", `Cursor of ${title}: arrow keys move it${choose ? ", Enter shows the jobs of its time" : ""}`);
        slider.addEventListener("focus", () => show(plot));
        slider.addEventListener("blur", () => hide(plot));
        slider.addEventListener("keydown", (event) => press(plot, event));
        figure.append(slider);
      },
      draw: (plot) => {
        coverPlot(slider, plot, figure);
        announce(slider, plot, stepIndex(plot, at), describe);
      },
    },
  };
}

function announce(slider, plot, index, describe) {
  const [first, last] = shownSteps(plot);
  const values = { valuemin: first, valuemax: last, valuenow: index, valuetext: describe(index).join(", ") };
  Object.entries(values).forEach(([name, value]) => slider.setAttribute(`aria-${name}`, value));
}

/** The first and the last index within the plot's scale, which a zoom narrows. */
function shownSteps(plot) {
  const { min, max } = plot.scales.x;
  const [times] = plot.data;
  return [times.findIndex((time) => time >= min), times.findLastIndex((time) => time <= max)];
}

/** The index of the shown step at a time, or of the nearest shown one. */
function stepIndex(plot, at) {
  const [first, last] = shownSteps(plot);
  const index = plot.data[0].findLastIndex((time) => time <= at);
  return Math.min(Math.max(index, first), last);
}
