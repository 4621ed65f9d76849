// Plots a chart with uPlot: stacked bars with lines over them, or percentiles on a logarithmic axis.

/* global uPlot */
import { COUNT_STEPS, durationSteps, formatCount, formatDurationTicks, formatTimeTicks, isKnown } from "./chart_format.js";
import { plotColumns } from "./chart_kinds.js";

const HEADROOM = 1.08; // the height of the axis, as a multiple of the highest value
const LINE_WIDTHS = { p50: 2, p95: 1.25, p99: 1, enqueued: 1.75 };
const DASHES = { p99: [2, 3] };
const UNFINISHED_ALPHA = "66"; // the opacity of the bar of the step in progress, as hexadecimal digits

/** Plot `chart` in `figure`, `width` px wide, with these uPlot plugins. */
export function makePlot(figure, chart, data, width, plugins) {
  const grid = { stroke: colour("line"), width: 1 };
  const axis = { stroke: colour("soft"), ticks: { show: false }, font: "12px system-ui" };
  const options = {
    width,
    height: chart.height,
    padding: [8, 20, 0, 0],
    plugins,
    legend: { show: false },
    cursor: { sync: { key: "jobmon" }, drag: { x: true, y: false }, y: false, points: { show: false } },
    scales: { x: { range: ({ data: [middles] }) => [middles[0] - data.step / 2, middles.at(-1) + data.step / 2] }, y: chart.isDuration ? { distr: 3, range: durationRange } : { range: (_, low, high) => [0, Math.max(high || 0, 1) * HEADROOM] } },
    axes: [
      { ...axis, grid: { show: false }, size: 28, values: (_, ticks, axisIndex, space, step) => formatTimeTicks(ticks, step) },
      chart.isDuration
        ? { ...axis, grid, size: 52, splits: (_, axisIndex, low, high) => durationSteps(low, high), filter: (_, ticks) => ticks, values: (_, ticks) => formatDurationTicks(ticks) }
        : { ...axis, grid, size: 52, incrs: COUNT_STEPS, values: (_, ticks) => ticks.map(formatCount) },
    ],
    series: [{}, ...chart.lines.map((line) => completedSeries(line)), ...chart.lines.map((line) => unfinishedSeries(line)), ...(data.previous ? [previousSeries()] : [])],
    bands: makeBands(chart),
  };
  return new uPlot(options, plotColumns(chart, data), figure);
}

/** Show or hide a line, also its part in the step in progress. Not for bars: `plotColumns` gives hidden bars no height. */
export function showLine(plot, chart, lineIndex, show) {
  [lineIndex + 1, lineIndex + 1 + chart.lines.length].forEach((series) => plot.setSeries(series, { show }));
}

/** The colour in the CSS variable `--NAME`. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function completedSeries({ style, isBar }) {
  const stroke = colour(`chart-${style}`);
  if (isBar) return barSeries(style === "failed" ? hatch(stroke) : stroke);
  return {
    stroke, width: LINE_WIDTHS[style], dash: DASHES[style], spanGaps: false,
    points: { size: 5, fill: stroke, show: true, filter: isolatedPoints },
  };
}

function unfinishedSeries({ style, isBar }) {
  const stroke = colour(`chart-${style}`);
  if (isBar) return barSeries(stroke + UNFINISHED_ALPHA);
  return { stroke, width: LINE_WIDTHS[style], dash: [3, 4], spanGaps: false, points: { size: 5, fill: stroke, show: true, filter: isolatedPoints } };
}

function barSeries(fill) {
  return { fill, width: 0, paths: uPlot.paths.bars({ size: [0.85, 60, 1] }), points: { show: false } };
}

function previousSeries() {
  const grey = colour("soft");
  return { stroke: grey, width: 1.25, spanGaps: false, points: { size: 4, fill: grey, show: true, filter: isolatedPoints } };
}

/** Areas that uPlot fills between two lines: each bar from the top of the bar below, durations from p50 to p95. */
function makeBands(chart) {
  if (chart.isDuration) return [{ series: [2, 1], fill: colour("chart-band") }];
  const stacked = chart.lines.filter(({ isBar }) => isBar).map((_, lineIndex) => lineIndex + 1).slice(1);
  return [...stacked, ...stacked.map((series) => series + chart.lines.length)].map((upper) => ({ series: [upper, upper - 1] }));
}

/** A pattern of stripes, so that bars differ not only in their colour. */
function hatch(stroke) {
  const size = 6 * devicePixelRatio;
  const canvas = document.createElement("canvas");
  canvas.width = size;
  canvas.height = size;
  const context = canvas.getContext("2d");
  context.fillStyle = `${stroke}55`;
  context.fillRect(0, 0, size, size);
  context.strokeStyle = stroke;
  context.lineWidth = size / 3;
  [-size, 0, size].forEach((shift) => {
    context.moveTo(shift - 1, size + 1);
    context.lineTo(shift + size + 1, -1);
  });
  context.stroke();
  return context.createPattern(canvas, "repeat");
}

function durationRange(plot, low, high) {
  const ticks = durationSteps(low || 1, high || 1000);
  return [ticks[0], ticks.at(-1)];
}

/** The indexes of known values without a known neighbor: they are drawn as points, because no line leads to them. */
function isolatedPoints(plot, series) {
  const values = plot.data[series];
  return values.flatMap((value, index) => (isKnown(value) && !isKnown(values[index - 1]) && !isKnown(values[index + 1]) ? [index] : []));
}
