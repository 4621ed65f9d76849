// A click on a chart shows links to the jobs of that time.

import { formatMinute } from "./chart_format.js";

const DRAG_PX = 4;
const LINKS = [
  ["Finished", "finished", ""],
  ["Died", "finished", "&status=dlq"],
  ["Enqueued", "created", ""],
];

/** A uPlot plugin: links below the plot in `figure`, to the lists at the address `jobs`, if there are such lists. */
export function timeLinks(figure, jobs) {
  const line = document.createElement("p");
  line.className = "time-links";
  line.setAttribute("role", "status");
  let pressedAt = null;
  return {
    hooks: {
      init: (plot) => {
        if (!jobs) return;
        figure.append(line);
        plot.over.title = "Click for the jobs of a time";
        plot.over.addEventListener("mousedown", ({ clientX }) => { pressedAt = clientX; });
        plot.over.addEventListener("click", ({ clientX }) => {
          const { idx } = plot.cursor;
          const isDrag = pressedAt === null || Math.abs(clientX - pressedAt) > DRAG_PX; // a drag zooms
          if (!isDrag && Number.isInteger(idx)) line.replaceChildren(...makeLinks(plot.data[0], idx, jobs));
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
    link.href = `${jobs}?${range}_from=${from}&${range}_to=${to}${more}`;
    link.textContent = label;
    return [link, " "];
  });
  return [`${formatMinute(at[index])} to ${formatMinute(at[index] + step).split(", ").at(-1)}: `, ...links];
}
