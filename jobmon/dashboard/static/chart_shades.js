// Shades behind a plot: where runs may be missing, and where there is no data yet.

import { formatMinute } from "./chart_format.js";
import { firstKnownStep } from "./chart_kinds.js";

const FONT_PX = 12;

/** A uPlot plugin that shades the times for which the data of `readData()` is incomplete or missing. */
export function shades(readData, colour) {
  return {
    hooks: {
      drawClear: (plot) => {
        const { ctx, bbox } = plot;
        const data = readData();
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        data.gaps.forEach(([from, to]) => shade(plot, from, to, "runs may be missing", colour));
        const first = firstKnownStep(data);
        if (first > 0) shade(plot, data.at[0], data.at[first], `no data before ${formatMinute(data.at[first])}`, colour);
        ctx.restore();
      },
    },
  };
}

function shade(plot, from, to, label, colour) {
  const { ctx, bbox, pxRatio = devicePixelRatio } = plot;
  const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
  const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
  ctx.fillStyle = colour("chart-shade");
  ctx.fillRect(left, bbox.top, Math.max(2, right - left), bbox.height);
  ctx.font = `${FONT_PX * pxRatio}px system-ui`;
  if (ctx.measureText(label).width + 2 * FONT_PX > right - left) return;
  ctx.fillStyle = colour("soft");
  ctx.textAlign = "center";
  ctx.textBaseline = "top";
  ctx.fillText(label, (left + right) / 2, bbox.top + FONT_PX * pxRatio);
}
