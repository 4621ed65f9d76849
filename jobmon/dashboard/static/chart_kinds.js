// The kinds of charts: the columns that each chart draws, and its values in words.

import { formatCount, formatMinute, formatMs, isKnown } from "./chart_format.js";
import { textsBetween } from "./chart_marks.js";

const NEAR_PX = 5; // a click at most this far from a line chooses the line
const MIN_BAR_PX = 2; // the minimum height of a bar with a value, so that one dead job among thousands is visible

// Each line has a column, a label and a style; `--chart-STYLE` is its colour. Lines with `isBar` are
// stacked bars, the first at the bottom. A bar is shorter by the column `subtracted`, which has its own bar.
// `compared` is the column, with its label, that is also drawn for the period before.
const makeBar = (column, label, style, subtracted) => ({ column, label, style, subtracted, isBar: true });
const makeDurationChart = (title, name) => ({
  title,
  height: 160,
  format: formatMs,
  isDuration: true,
  compared: [`${name}P95`, "p95"],
  lines: [50, 95, 99].map((rank) => ({ column: `${name}P${rank}`, label: `p${rank}`, style: `p${rank}` })),
  empty: "No attempt with a known duration ended",
});
const KINDS = {
  overview: [
    {
      title: "Throughput",
      height: 190,
      format: formatCount,
      compared: ["succeeded", "succeeded"],
      lines: [
        makeBar("succeeded", "succeeded", "succeeded"),
        makeBar("failed", "failed", "failed", "dlq"), // `failed` includes the last attempts of dead jobs
        makeBar("dlq", "died", "died"),
        { column: "enqueued", label: "enqueued", style: "enqueued" },
      ],
      empty: "Nothing was enqueued and no attempt ended",
    },
    makeDurationChart("Wait time", "wait"),
    makeDurationChart("Run time", "run"),
  ],
  errors: [
    { title: "Errors", height: 190, format: formatCount, compared: ["errors", "errors"], lines: [makeBar("errors", "errors", "failed")], empty: "No errors" },
  ],
};

/** The charts of a page: `overview` or `errors`. `hidden` has the lines that the viewer hides. */
export function makeCharts(name) {
  return (KINDS[name] || KINDS.overview).map((chart) => ({ ...chart, hidden: new Set() }));
}

/** A sentence if there is nothing to draw, else an empty text. `range` is the time range in words. */
export function explainEmpty(chart, data, range) {
  const columns = chart.lines.map(({ column }) => data[column]);
  if (data.previous) columns.push(data.previous[chart.compared[0]]);
  if (columns.some((values) => values.some((value) => (chart.isDuration ? isKnown(value) : value > 0)))) return "";
  const counts = data.succeeded || data.errors;
  return counts.some(isKnown) ? `${chart.empty} in ${range}.` : `No data in ${range}.`;
}

/**
 * The columns of a plot: the middle of each step, all lines and bars for the completed steps, all lines and
 * bars for the step in progress, and the compared line of the period before. A line to the step in progress
 * begins at the last completed step.
 */
export function plotColumns(chart, data) {
  const { at, completedSteps, step } = data;
  const columns = drawnColumns(chart, data);
  const completed = columns.map((values) => values.map((value, index) => (index < completedSteps ? value : null)));
  const unfinished = columns.map((values, lineIndex) => {
    const first = chart.lines[lineIndex].isBar ? completedSteps : completedSteps - 1;
    return values.map((value, index) => (index >= first && isKnown(values[completedSteps]) ? value : null));
  });
  const previous = data.previous ? [data.previous[chart.compared[0]]] : [];
  return [at.map((start) => start + step / 2), ...completed, ...unfinished, ...previous];
}

function drawnColumns(chart, data) {
  const bars = chart.lines.filter(({ isBar }) => isBar);
  const heights = bars.map((line) => data.at.map((_, index) => (chart.hidden.has(line) ? 0 : barHeight(line, data, index))));
  const peak = Math.max(...data.at.map((_, index) => heights.reduce((sum, values) => sum + values[index], 0)));
  const minHeight = (peak * MIN_BAR_PX) / chart.height;
  let sums = data.at.map(() => 0);
  return chart.lines.map((line) => {
    const values = data[line.column];
    if (!line.isBar) return chart.isDuration ? values.map((value) => (isKnown(value) ? Math.max(value, 1) : null)) : values;
    const barHeights = heights[bars.indexOf(line)];
    sums = sums.map((sum, index) => sum + (barHeights[index] ? Math.max(barHeights[index], minHeight) : 0));
    return values.map((value, index) => (isKnown(value) ? sums[index] : null));
  });
}

function barHeight({ column, subtracted }, data, index) {
  return Math.max(0, (data[column][index] || 0) - ((subtracted && data[subtracted][index]) || 0));
}

/** The column of the line or bar at a step and `top` px below the plot's upper edge; empty if there is none. */
export function columnAt(chart, data, plot, index, top) {
  if (chart.isDuration) return "";
  const drawn = drawnColumns(chart, data);
  const distance = (lineIndex) => top - plot.valToPos(drawn[lineIndex][index] || 0, "y"); // px below the line or the bar's top
  const visible = [...chart.lines.keys()].filter((lineIndex) => !chart.hidden.has(chart.lines[lineIndex]) && data[chart.lines[lineIndex].column][index]);
  const nearLine = visible.find((lineIndex) => !chart.lines[lineIndex].isBar && Math.abs(distance(lineIndex)) <= NEAR_PX);
  const hitBar = visible.find((lineIndex) => chart.lines[lineIndex].isBar && distance(lineIndex) >= 0);
  return chart.lines[nearLine ?? hitBar]?.column || "";
}

/** The value of each line at a step as text, in the order of the lines, then the value of the period before. */
export function valuesAt(chart, data, index) {
  const values = chart.lines.map(({ column }) => data[column][index]);
  if (data.previous) values.push(data.previous[chart.compared[0]][index]);
  return values.map(chart.format);
}

/** The values of the legend while no step is under the cursor: the sums of counts, or the newest durations. */
export function summaryValues(chart, data) {
  return summarizedColumns(chart, data).map((values) => {
    const knownValues = values.filter(isKnown);
    if (!knownValues.length) return chart.format(null);
    return chart.format(chart.isDuration ? knownValues.at(-1) : knownValues.reduce((sum, value) => sum + value, 0));
  });
}

/** The column of each line, durations of completed steps only, then the column of the period before. */
function summarizedColumns(chart, data) {
  const columns = chart.lines.map(({ column }) => data[column].slice(0, chart.isDuration ? data.completedSteps : undefined));
  return data.previous ? [...columns, data.previous[chart.compared[0]]] : columns;
}

/** The time of a step, with a note if the step is in progress, or if runs may be missing from it. */
export function describeTime(data, index) {
  const start = data.at[index];
  const notes = index >= data.completedSteps ? ["so far"] : [];
  if (data.gaps.some(([from, to]) => from < start + data.step && start < to)) notes.push("runs may be missing");
  return formatMinute(start) + (notes.length ? ` (${notes.join(", ")})` : "");
}

/** A step as a list of texts: its time, its values and its marks. `labels` has a label for each value. */
export function describeStep(chart, data, labels, index) {
  const values = valuesAt(chart, data, index).map((value, lineIndex) => `${labels[lineIndex]} ${value}`);
  return [describeTime(data, index), ...values, ...marksAt(data, index)];
}

/** The index of the first step with a known count; 0 if no count is known. */
export function firstKnownStep({ succeeded, enqueued, errors }) {
  const counts = succeeded || errors;
  return Math.max(0, counts.findIndex((count, index) => isKnown(count) || Boolean(enqueued && isKnown(enqueued[index]))));
}

/** The texts of the marks within a step. */
export function marksAt({ marks, at }, index) {
  return textsBetween(marks, at[index], at[index + 1]);
}

/** The whole chart in words, for screen readers. */
export function describeChart(chart, data, labels) {
  const lines = summarizedColumns(chart, data).map((values, lineIndex) => describeLine(labels[lineIndex], values, chart));
  const gaps = data.gaps.length ? " In a part of the range, runs may be missing." : "";
  const first = firstKnownStep(data);
  const start = first > 0 ? ` No data before ${formatMinute(data.at[first])}.` : "";
  return `${chart.title}. ${lines.join("; ")}.${gaps}${start}`;
}

function describeLine(label, column, { format, isDuration }) {
  const values = column.filter(isKnown);
  if (!values.length) return `${label}: not known`;
  if (!isDuration) return `${label}: ${format(values.reduce((sum, value) => sum + value, 0))} in total`;
  return `${label}: ${format(values.at(-1))} at the end, ${format(Math.max(...values))} at most`;
}
