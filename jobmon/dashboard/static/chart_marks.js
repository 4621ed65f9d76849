// Marks in the charts: a thin line at the time of each deployment or other mark, its text on hover and focus.

import { formatMinute } from "./chart_format.js";
import { coverPlot } from "./chart_layer.js";

const MERGE_PX = 10;

/** A uPlot plugin that draws lines over the plot in `figure` for `marks()`, in order of time. */
export function markLines(figure, marks) {
  const layer = document.createElement("div");
  layer.className = "mark-lines";
  const lines = new Map(); // by content, so that a redrawn line keeps the focus
  return {
    hooks: {
      init: () => figure.append(layer),
      draw: (plot) => {
        coverPlot(layer, plot, figure);
        const shown = new Set();
        groupMarks(plot, marks()).forEach(({ x, group }) => {
          const key = group.map(describe).join("\n");
          if (!lines.has(key)) lines.set(key, makeLine(key));
          const line = lines.get(key);
          line.style.left = `${x}px`;
          line.classList.toggle("on-right", x > plot.over.clientWidth / 2);
          if (!line.isConnected) layer.append(line);
          shown.add(key);
        });
        lines.forEach((line, key) => {
          if (shown.has(key)) return;
          line.remove();
          lines.delete(key);
        });
      },
    },
  };
}

/** The texts of the marks from `start` to before `end` (Unix seconds), or without `end` of all from `start`. */
export function textsBetween(marks, start, end) {
  return marks.filter(({ at }) => at >= start && !(at >= end)).map(({ text }) => `▾ ${text}`);
}

/** The marks within the plot's scale, in groups: marks that are too close to each other share a line. */
function groupMarks(plot, marks) {
  const groups = [];
  marks.forEach((mark) => {
    if (mark.at < plot.scales.x.min || mark.at > plot.scales.x.max) return;
    const x = Math.round(plot.valToPos(mark.at, "x"));
    const last = groups.at(-1);
    if (last && x - last.x < MERGE_PX) last.group.push(mark);
    else groups.push({ x, group: [mark] });
  });
  return groups;
}

function makeLine(label) {
  const line = document.createElement("div");
  line.className = "mark";
  const flag = document.createElement("span");
  flag.className = "flag";
  flag.tabIndex = 0;
  flag.setAttribute("role", "img");
  flag.setAttribute("aria-label", label);
  const text = document.createElement("span");
  text.className = "text";
  text.dir = "auto";
  text.setAttribute("aria-hidden", "true");
  text.textContent = label;
  line.append(flag, text);
  return line;
}

function describe({ at, text }) {
  return `${formatMinute(at)}: ${text}`;
}
