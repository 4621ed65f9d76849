// Marks in the charts: a thin line at the time of each deployment or other mark; hover or focus shows its text.

import { formatMinute } from "./chart_format.js";
import { coverPlot } from "./chart_layer.js";

const MERGE_PX = 10; // a mark closer than this to the line before shares that line

/** A uPlot plugin that draws lines over the plot in `figure` for `readMarks()`: marks in order of time. */
export function markLines(figure, readMarks) {
  const layer = document.createElement("div");
  layer.className = "mark-lines";
  const lines = new Map(); // by text, so that a line with the focus is kept when the plot is drawn again
  return {
    hooks: {
      init: () => figure.append(layer),
      draw: (plot) => {
        coverPlot(layer, plot, figure);
        const drawnKeys = new Set();
        groupMarks(plot, readMarks()).forEach(({ x, marks }) => {
          const key = marks.map(describeMark).join("\n");
          if (!lines.has(key)) lines.set(key, makeLine(key));
          const line = lines.get(key);
          line.style.left = `${x}px`;
          line.classList.toggle("on-right", x > plot.over.clientWidth / 2);
          if (!line.isConnected) layer.append(line);
          drawnKeys.add(key);
        });
        lines.forEach((line, key) => {
          if (drawnKeys.has(key)) return;
          line.remove();
          lines.delete(key);
        });
      },
    },
  };
}

/** The texts of the marks at `start` or later and before `end`, if there is an `end` (Unix seconds). */
export function textsBetween(marks, start, end) {
  return marks.filter(({ at }) => at >= start && !(at >= end)).map(({ text }) => `▾ ${text}`);
}

/** The marks within the plot's scale, in groups that share a line, `x` px from the left. */
function groupMarks(plot, allMarks) {
  const groups = [];
  allMarks.forEach((mark) => {
    if (mark.at < plot.scales.x.min || mark.at > plot.scales.x.max) return;
    const x = Math.round(plot.valToPos(mark.at, "x"));
    const lastGroup = groups.at(-1);
    if (lastGroup && x - lastGroup.x < MERGE_PX) lastGroup.marks.push(mark);
    else groups.push({ x, marks: [mark] });
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

function describeMark({ at, text }) {
  return `${formatMinute(at)}: ${text}`;
}
