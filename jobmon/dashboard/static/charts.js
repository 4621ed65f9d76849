// The charts of a page: requests their data, draws them with one cursor for all, and keeps them up to date.

import { columnAt, describeChart, describeStep, describeTime, explainEmpty, makeCharts, marksAt, plotColumns, summaryValues, valuesAt } from "./chart_kinds.js";
import { makeHead } from "./chart_legend.js";
import { markLines } from "./chart_marks.js";
import { colour, makePlot, showLine } from "./chart_plot.js";
import { shades } from "./chart_shades.js";
import { timeLinks } from "./chart_times.js";

const REFRESH_MS = 10000;
const MIN_WIDTH_PX = 240;
const PADDING_PX = 30; // the horizontal padding of a figure, left plus right
// Why there is nothing to draw, by the error code of the answer.
const UNAVAILABLE = {
  collector_unavailable: "No charts of this range: no collector is running. Start one with `jobmon collector`.",
  indexes_missing: "No charts: indexes are missing. Create them with `jobmon init`.",
  history_unavailable: "No charts of this range: the collector has no history of it.",
};

const container = document.getElementById("charts");
const charts = container ? makeCharts(container.dataset.charts) : [];
let drawnCharts = []; // { chart, plot, showStep } of each chart that has something to draw
let shape = ""; // what decides which elements the charts have; if it changes, everything is drawn again
let etag = "";
let data = null; // the answer: columns of the same length; `completedSteps` is the number of completed steps
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
  let answer = null; // stays null if jobmon does not respond
  try {
    answer = await fetch(container.dataset.url, { headers, cache: "no-store" });
  } catch { /* as without an answer */ }
  if (answer?.status === 200) {
    etag = answer.headers.get("ETag");
    data = await answer.json();
    if (shape === describeShape()) update();
    else draw();
  } else if (!data || answer?.headers.get("X-Error-Code") in UNAVAILABLE) { // after other failures, the old charts stay
    const message = await explainFailure(answer);
    clear();
    showMessage(message);
  }
}

async function explainFailure(answer) {
  if (answer?.status === 401) return "No charts. Reload this page to sign in again.";
  const code = answer?.headers.get("X-Error-Code");
  if (!code) return "No charts. jobmon is not responding.";
  return UNAVAILABLE[code] || `No charts. ${await answer.text()}`;
}

function describeShape() {
  return JSON.stringify([Boolean(data.previous), data.step, ...charts.map((chart) => explainEmpty(chart, data, describeRange()))]);
}

function describeRange() {
  return container.dataset.when || "this range";
}

function clear() {
  destroyPlots();
  [data, etag, shape] = [null, "", ""];
}

function destroyPlots() {
  drawnCharts.forEach(({ plot }) => plot.destroy());
  drawnCharts = [];
}

function draw() {
  destroyPlots();
  container.replaceChildren();
  shape = describeShape();
  drawnCharts = charts.flatMap(drawChart);
}

function redraw() {
  if (data) draw();
}

function drawChart(chart) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  container.append(figure);
  const emptyReason = explainEmpty(chart, data, describeRange());
  const { head, show } = makeHead(chart.title, emptyReason ? [] : makeLegendEntries(chart), (lineIndex) => toggleLine(chart, lineIndex));
  figure.append(head);
  if (emptyReason) {
    const paragraph = document.createElement("p");
    paragraph.className = "muted nothing";
    paragraph.textContent = emptyReason;
    figure.append(paragraph);
    return [];
  }
  const showStep = (index) => {
    if (Number.isInteger(index)) show([describeTime(data, index), ...marksAt(data, index)].join(" "), valuesAt(chart, data, index));
    else show(chart.isDuration ? "latest" : "in total", summaryValues(chart, data));
  };
  const legendUpdater = { hooks: { setCursor: ({ cursor }) => showStep(cursor.left < 0 ? null : cursor.idx) } };
  const plot = makePlot(figure, chart, data, measureWidth(figure), [
    shades(() => data, colour), legendUpdater, markLines(figure, () => data.marks),
    ...timeLinks(figure, chart.title, {
      jobs: container.dataset.jobs,
      describe: (index) => describeStep(chart, data, listLabels(chart), index),
      times: () => data.at,
      columnAt: (index, top) => columnAt(chart, data, plot, index, top),
      isFirst: chart === charts[0],
    }),
  ]);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", describeChart(chart, data, listLabels(chart)));
  chart.lines.forEach((line, lineIndex) => { if (chart.hidden.has(line) && !line.isBar) showLine(plot, chart, lineIndex, false); });
  showStep(null);
  return [{ chart, plot, showStep }];
}

function makeLegendEntries(chart) {
  const entries = chart.lines.map((line) => ({ ...line, isHidden: chart.hidden.has(line) }));
  return data.previous ? [...entries, { label: listLabels(chart).at(-1), style: "previous" }] : entries;
}

function listLabels(chart) {
  const lineLabels = chart.lines.map(({ label }) => label);
  return data.previous ? [...lineLabels, `${chart.compared[1]}, ${container.dataset.previous}`] : lineLabels;
}

/** Hide a line, or show it again; returns whether it is hidden now. */
function toggleLine(chart, lineIndex) {
  const line = chart.lines[lineIndex];
  const isHidden = !chart.hidden.has(line);
  if (isHidden) chart.hidden.add(line);
  else chart.hidden.delete(line);
  const { plot } = drawnCharts.find((entry) => entry.chart === chart);
  if (line.isBar) plot.setData(plotColumns(chart, data));
  else showLine(plot, chart, lineIndex, !isHidden);
  return isHidden;
}

function update() {
  drawnCharts.forEach(({ chart, plot, showStep }) => {
    plot.setData(plotColumns(chart, data));
    plot.root.setAttribute("aria-label", describeChart(chart, data, listLabels(chart)));
    showStep(plot.cursor.left < 0 ? null : plot.cursor.idx);
  });
}

function resize() {
  drawnCharts.forEach(({ chart, plot }) => {
    const width = measureWidth(plot.root.parentElement);
    if (Math.abs(width - plot.width) > 2) plot.setSize({ width, height: chart.height });
  });
}

function showMessage(text) {
  const paragraph = document.createElement("p");
  paragraph.className = "muted nothing";
  text.split("`").forEach((piece, index) => { // every second piece is in backticks
    const code = document.createElement("code");
    code.textContent = piece;
    paragraph.append(index % 2 ? code : piece);
  });
  container.replaceChildren(paragraph);
}

function measureWidth(figure) {
  return Math.max(MIN_WIDTH_PX, figure.clientWidth - PADDING_PX);
}
