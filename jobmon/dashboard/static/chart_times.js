// Choosing a time in a chart, by a click or by the keyboard, shows links to the jobs of that time.

import { formatMinute } from "./chart_format.js";
import { keyboardCursor } from "./chart_slider.js";

const DRAG_PX = 4;
const LINKS = [
  ["Finished", "finished", {}],
  ["Died", "finished", { status: "dlq" }],
  ["Enqueued", "created", {}],
];
const HINT = "Click a time for its jobs.";

/**
 * uPlot plugins to choose a time in the plot in `figure`: links to the jobs of that time in the list
 * `jobs`, if there is one, below the plot. `describe(index)` is the text of a step, `times()` has the
 * start of each in Unix seconds. `isFirst` is for the plot that has a hint.
 */
export function timeLinks(figure, title, jobs, describe, times, isFirst) {
  if (!jobs) return [keyboardCursor(figure, title, describe)];
  const line = document.createElement("p");
  line.className = "time-links";
  line.setAttribute("role", "status");
  line.textContent = isFirst ? HINT : "";
  const choose = (plot, index) => line.replaceChildren(...makeLinks(times(), index, jobs));
  const chooseByKey = (plot, index) => {
    choose(plot, index);
    line.querySelector("a").focus();
  };
  return [keyboardCursor(figure, title, describe, chooseByKey), clickable(choose), { hooks: { init: () => figure.append(line) } }];
}

function clickable(choose) {
  let pressedAt = null;
  return {
    hooks: {
      init: (plot) => {
        plot.over.addEventListener("mousedown", ({ clientX }) => { pressedAt = clientX; });
        plot.over.addEventListener("click", ({ clientX }) => {
          const { idx } = plot.cursor;
          const isDrag = pressedAt === null || Math.abs(clientX - pressedAt) > DRAG_PX; // a drag zooms
          if (!isDrag && Number.isInteger(idx)) choose(plot, idx);
        });
      },
    },
  };
}

function makeLinks(at, index, jobs) {
  const step = at[1] - at[0];
  const [from, to] = [at[index], at[index] + step].map((seconds) => new Date(seconds * 1000).toISOString());
  const links = LINKS.flatMap(([label, range, more]) => {
    const link = document.createElement("a");
    const address = new URL(jobs, location.href);
    Object.entries({ [`${range}_from`]: from, [`${range}_to`]: to, ...more }).forEach(([name, value]) => address.searchParams.append(name, value));
    link.href = address;
    link.textContent = label;
    return [link, " "];
  });
  return [`${formatMinute(at[index])} to ${formatMinute(at[index] + step).split(", ").at(-1)}: `, ...links];
}
