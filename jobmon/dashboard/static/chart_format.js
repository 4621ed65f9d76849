// Values and ticks of the charts: numbers, durations and times as text, and round values for ticks.

const UNITS = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000], ["ms", 1]];
// For each unit in ms: its multiples that look round on an axis.
const ROUND_MULTIPLES = [
  [1, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
  [1000, [1, 2, 5, 10, 20, 30]],
  [60000, [1, 2, 5, 10, 20, 30]],
  [3600000, [1, 2, 3, 6, 12]],
  [86400000, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
];
const DURATION_STEPS = ROUND_MULTIPLES.flatMap(([size, multiples]) => multiples.map((multiple) => multiple * size));
// Fewer durations, in ms, for an axis from milliseconds to days.
const COARSE_DURATION_STEPS = [1, 10, 100, 1000, 10000, 60000, 600000, 3600000, 43200000, 432000000, 4320000000];
const MAX_TICKS = 6;
// 1, 2, 5, 10, 20, 50, …
export const COUNT_STEPS = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const minuteFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

const pad = (number) => String(number).padStart(2, "0");

/** Whether a value is known. */
export function isKnown(value) {
  return value !== null && value !== undefined;
}

/** A number with grouped thousands; a dash if it is unknown. */
export function formatCount(value) {
  return isKnown(value) ? value.toLocaleString() : "–";
}

/** Milliseconds as `850 ms`, `1.5 s`, `1:20` (minutes and seconds) or `2.5 h`; a dash if unknown. */
export function formatMs(ms) {
  if (!isKnown(ms)) return "–";
  const [unit, size] = UNITS.find(([, unitMs]) => ms >= unitMs) || UNITS.at(-1);
  if (unit === "min") return `${Math.floor(ms / size)}:${pad(Math.floor((ms % size) / 1000))}`;
  const amount = ms / size;
  return `${Number(amount.toFixed(unit !== "ms" && amount < 10 ? 1 : 0))} ${unit}`;
}

/** Round durations in ms for a logarithmic axis: the first is at most `low`, the last at least `high`. */
export function durationSteps(low, high) {
  const steps = selectSteps(DURATION_STEPS, low, high);
  return steps.length <= MAX_TICKS ? steps : selectSteps(COARSE_DURATION_STEPS, low, high);
}

function selectSteps(steps, low, high) {
  const first = Math.max(0, steps.findLastIndex((step) => step <= low));
  const last = steps.findIndex((step) => step >= high);
  return last < 0 ? steps.slice(first) : steps.slice(first, Math.max(last, first + 1) + 1);
}

/** Labels for durations in ascending order: if the longest has minutes, seconds also look like `0:10`. */
export function formatDurationTicks(ticks) {
  const hasMinutes = ticks.at(-1) >= 60000;
  return ticks.map((ms) => (hasMinutes && ms >= 1000 && ms < 60000 ? `0:${pad(ms / 1000)}` : formatMs(ms)));
}

/** Unix seconds as the date and the minute, in the viewer's time zone. */
export function formatMinute(seconds) {
  return minuteFormat.format(new Date(seconds * 1000));
}

/** Labels for the ticks of a time axis: `ticks` are in Unix seconds, `step` seconds apart. */
export function formatTimeTicks(ticks, step) {
  return ticks.map((tick) => {
    const moment = new Date(tick * 1000);
    const isMidnight = moment.getHours() === 0 && moment.getMinutes() === 0;
    return step >= 86400 || isMidnight ? dayFormat.format(moment) : `${pad(moment.getHours())}:${pad(moment.getMinutes())}`;
  });
}
