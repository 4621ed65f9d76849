// Draws the charts of a page: throughput, wait time and run time, with one cursor for all, or only errors.

/* global uPlot */
import { markLines, textsBetween } from "./chart_marks.js";
import { timeLinks } from "./chart_times.js";
import { COUNT_STEPS, DURATION_STEPS, formatCount, formatMinute, formatMs, formatTicks } from "./chart_format.js";

const REFRESH_MS = 10000;
const HEIGHT = 200;
const MIN_WIDTH = 260;
const PADDING = 30;
// Each line: the column of its values, its label, and the status whose colour it has. `compared` is
// the line that is also drawn for the previous period, in grey.
const OVERVIEW = [
  {
    title: "Throughput",
    format: formatCount,
    compared: ["succeeded", "succeeded"],
    lines: [["succeeded", "succeeded", "succeeded"], ["failed", "failed", "failed"], ["enqueued", "enqueued", "queued"], ["dlq", "died", "dlq"]],
  },
  { title: "Wait time", format: formatMs, compared: ["waitP95", "p95"], lines: [["waitP50", "p50", "succeeded"], ["waitP95", "p95", "failed"], ["waitP99", "p99", "dlq"]] },
  { title: "Run time", format: formatMs, compared: ["runP95", "p95"], lines: [["runP50", "p50", "succeeded"], ["runP95", "p95", "failed"], ["runP99", "p99", "dlq"]] },
];
const ERRORS = [{ title: "Errors", format: formatCount, compared: ["errors", "errors"], lines: [["errors", "errors", "dlq"]] }];
// Why there is nothing to draw, by the code of the answer.
const UNAVAILABLE = {
  collector_unavailable: "No charts of this range: no collector is running. Start one with `jobmon collector`.",
  indexes_missing: "No charts: indexes are missing. Create them with `jobmon init`.",
  history_unavailable: "No charts of this range: its history is not known.",
};

const container = document.getElementById("charts");
const CHARTS = container?.dataset.charts === "errors" ? ERRORS : OVERVIEW;
const resetButton = makeResetButton();
let plots = [];
let etag = "";
let data = null; // columns of the same length; `complete` is the number of steps that are over
let requestedAt = 0;

if (container && window.uPlot) {
  document.addEventListener("jobmon:tick", refresh);
  document.addEventListener("jobmon:theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(resize).observe(container);
  refresh();
}

async function refresh() {
  if (Date.now() - requestedAt < REFRESH_MS) return;
  requestedAt = Date.now();
  const headers = { "X-Jobmon-Part": "charts" };
  if (etag) headers["If-None-Match"] = etag;
  let answer;
  try {
    answer = await fetch(container.dataset.url, { headers, cache: "no-store" });
  } catch {
    return; // the head of the page already shows that jobmon does not respond
  }
  if (answer.status === 200) {
    etag = answer.headers.get("ETag");
    const hadPrevious = Boolean(data && data.previous);
    data = await answer.json();
    if (plots.length && hadPrevious === Boolean(data.previous)) updatePlots();
    else draw();
  } else if (answer.status === 503 && !data) {
    showMessage(UNAVAILABLE[answer.headers.get("X-Error-Code")] || "No charts: database not responding.");
  }
}

function draw() {
  plots.forEach((plot) => plot.destroy());
  container.replaceChildren();
  plots = CHARTS.map(drawChart);
  container.append(resetButton);
  showResetButton();
}

function redraw() {
  if (data) draw();
}

function drawChart(chart) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const title = document.createElement("h2");
  title.textContent = chart.title;
  figure.append(title);
  container.append(figure);
  const axis = {
    stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") }, font: "12px system-ui",
  };
  const series = chartSeries(chart);
  const plot = new uPlot({
    width: measureWidth(figure),
    height: HEIGHT,
    plugins: [
      gapShades(), tooltip(chart), markLines(figure, () => data.marks),
      ...timeLinks(figure, chart.title, container.dataset.jobs, (index) => describeStep(chart, index)),
    ],
    legend: { live: false },
    cursor: { sync: { key: "jobmon" }, drag: { x: true, y: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.08] } },
    axes: [
      { ...axis, size: 32, values: (_, ticks, axisIndex, space, step) => formatTicks(ticks, step) },
      { ...axis, size: 58, values: (_, ticks) => ticks.map((tick) => (tick ? chart.format(tick) : "0")), incrs: chart.format === formatMs ? DURATION_STEPS : COUNT_STEPS },
    ],
    series: [
      {}, ...series, ...series.map((line) => ({ ...line, fill: undefined, dash: [3, 4], class: "unfinished" })), ...previousSeries(chart),
    ],
  }, plotData(chart), figure);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", describe(chart));
  return plot;
}

function chartSeries(chart) {
  return chart.lines.map(([, label, status], index) => ({
    label,
    stroke: colour(status),
    width: 1.75,
    fill: chart.format === formatCount && index === 0 ? `${colour(status)}22` : undefined,
    points: { size: 5, fill: colour(status), show: true, filter: isolatedPoints },
    spanGaps: false,
    value: (_, value) => chart.format(value),
  }));
}

function previousSeries(chart) {
  if (!data.previous) return [];
  const grey = colour("soft");
  return [{
    label: previousLabel(chart), stroke: grey, width: 1.25, alpha: 0.75, points: { size: 4, fill: grey, show: true, filter: isolatedPoints }, spanGaps: false,
  }];
}

function previousLabel(chart) {
  return `${chart.compared[1]}, ${container.dataset.previous}`;
}

/** Each line twice: solid for the steps that are over, and dashed from the last of these to the step in progress. */
function plotData(chart) {
  const columns = chart.lines.map(([name]) => data[name]);
  const { at, complete } = data;
  const over = columns.map((values) => values.map((value, index) => (index < complete ? value : null)));
  const unfinished = columns.map((values) =>
    values.map((value, index) => (index >= complete - 1 && values[complete] !== null ? value : null)));
  const previous = data.previous ? [data.previous[chart.compared[0]]] : [];
  return [at, ...over, ...unfinished, ...previous];
}

/** The indexes of values between two unknown ones: no line leads to them, so a point shows them. */
function isolatedPoints(plot, series) {
  const values = plot.data[series];
  const known = (index) => values[index] !== null && values[index] !== undefined;
  return values.flatMap((_, index) => (known(index) && !known(index - 1) && !known(index + 1) ? [index] : []));
}

function updatePlots() {
  plots.forEach((plot, index) => {
    const zoomed = isZoomed(plot);
    plot.setData(plotData(CHARTS[index]), !zoomed);
    if (zoomed) plot.redraw();
    plot.root.setAttribute("aria-label", describe(CHARTS[index]));
  });
}

function resize() {
  plots.forEach((plot) => {
    const width = measureWidth(plot.root.parentElement);
    if (Math.abs(width - plot.width) > 2) plot.setSize({ width, height: HEIGHT });
  });
}

function makeResetButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "reset-zoom";
  button.textContent = "Reset zoom";
  button.addEventListener("click", () => plots.forEach((plot, index) => plot.setData(plotData(CHARTS[index]))));
  return button;
}

function showResetButton() {
  resetButton.hidden = !plots.some(isZoomed);
}

function isZoomed(plot) {
  const [at] = plot.data;
  if (!at.length || plot.scales.x.min === null) return false;
  return plot.scales.x.min > at[0] || plot.scales.x.max < at[at.length - 1];
}

/** A shade behind the parts of the range in which runs may be missing. */
function gapShades() {
  return {
    hooks: {
      drawClear: (plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        ctx.fillStyle = colour("hover");
        data.gaps.forEach(([from, to]) => {
          const left = plot.valToPos(from, "x", true);
          ctx.fillRect(left, bbox.top, Math.max(2, plot.valToPos(to, "x", true) - left), bbox.height);
        });
        ctx.restore();
      },
    },
  };
}

function isInGap(at) {
  return data.gaps.some(([from, to]) => at >= from && at < to);
}

/** A box next to the cursor with the values under it. */
function tooltip(chart) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  return {
    hooks: {
      init: (plot) => plot.over.append(tip),
      setScale: showResetButton,
      // The legend hides a line together with its dashed end.
      setSeries: (plot, index, { show }) => {
        const dashed = index + chart.lines.length;
        if (show !== undefined && index <= chart.lines.length && plot.series[dashed] && plot.series[dashed].show !== show) plot.setSeries(dashed, { show });
      },
      setCursor: (plot) => {
        const { idx, left, top } = plot.cursor;
        tip.hidden = idx === null || idx === undefined || left < 0;
        if (tip.hidden) return;
        tip.textContent = describeStep(chart, idx).join("\n");
        tip.style.left = `${placeTip(left, tip.offsetWidth, plot.over)}px`;
        tip.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - 90))}px`;
      },
    },
  };
}

/** A step of the time axis in lines: its time, its values and its marks. */
function describeStep(chart, index) {
  const { at, complete, previous, marks } = data;
  const values = chart.lines.map(([name, label]) => `${label}  ${chart.format(data[name][index])}`);
  if (index >= complete) values.push("(so far)");
  if (previous) values.push(`${previousLabel(chart)}  ${chart.format(previous[chart.compared[0]][index])}`);
  if (isInGap(at[index])) values.push("(runs may be missing)");
  return [formatMinute(at[index]), ...values, ...textsBetween(marks, at[index], at[index + 1])];
}

/** The left edge of a box next to the cursor: right of it or left of it, but always within the chart. */
function placeTip(cursor, width, over) {
  const right = cursor + 12;
  if (right + width <= over.clientWidth) return right;
  return Math.max(cursor - 12 - width, -over.offsetLeft);
}

/** The chart in words, for screen readers. */
function describe(chart) {
  const lines = chart.lines.map(([name, label]) => describeLine(label, data[name], chart.format));
  if (data.previous) lines.push(describeLine(previousLabel(chart), data.previous[chart.compared[0]], chart.format));
  const gaps = data.gaps.length ? " In a part of the range, runs may be missing." : "";
  return `${chart.title}. ${lines.join("; ")}.${gaps}`;
}

function describeLine(label, column, format) {
  const values = column.filter((value) => value !== null);
  if (!values.length) return `${label}: not known`;
  if (format === formatCount) return `${label}: ${formatCount(values.reduce((sum, value) => sum + value, 0))} in total`;
  return `${label}: ${formatMs(values.at(-1))} at the end, ${formatMs(Math.max(...values))} at most`;
}

function showMessage(text) {
  plots.forEach((plot) => plot.destroy());
  plots = [];
  const line = document.createElement("p");
  line.className = "muted";
  text.split("`").forEach((span, index) => {
    const code = document.createElement("code");
    code.textContent = span;
    line.append(index % 2 ? code : span);
  });
  container.replaceChildren(line);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function measureWidth(figure) {
  return Math.max(MIN_WIDTH, figure.clientWidth - PADDING);
}
