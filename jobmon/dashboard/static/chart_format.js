// Values and axes of the charts: numbers, durations and times as text, and round steps for ticks.

const UNITS = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000], ["ms", 1]];
// Steps that are round as durations: 200,000 ms is no round number of minutes.
const ROUND = [
  [1, [1, 2, 5, 10, 20, 50, 100, 200, 500]],
  [1000, [1, 2, 5, 10, 20, 30]],
  [60000, [1, 2, 5, 10, 20, 30]],
  [3600000, [1, 2, 3, 6, 12]],
  [86400000, [1, 2, 5, 10, 20, 50, 100]],
];
export const DURATION_STEPS = ROUND.flatMap(([size, multiples]) => multiples.map((number) => number * size));
export const COUNT_STEPS = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const minute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });

const pad = (number) => String(number).padStart(2, "0");
const isKnown = (value) => value !== null && value !== undefined;

/** A number with its thousands grouped; a dash if it is unknown. */
export function formatCount(value) {
  return isKnown(value) ? value.toLocaleString() : "–";
}

/** Milliseconds as `850 ms`, `1.5 s`, `1:20` (minutes) or `2.5 h`; a dash if unknown. */
export function formatMs(ms) {
  if (!isKnown(ms)) return "–";
  const [unit, size] = UNITS.find(([, least]) => ms >= least) || UNITS.at(-1);
  if (unit === "min") return `${Math.floor(ms / size)}:${pad(Math.floor((ms % size) / 1000))}`;
  const number = ms / size;
  return `${Number(number.toFixed(unit !== "ms" && number < 10 ? 1 : 0))} ${unit}`;
}

/** Unix seconds as the date and the minute, in the viewer's time zone. */
export function formatMinute(seconds) {
  return minute.format(new Date(seconds * 1000));
}

/** Labels for the ticks of a time axis, given in Unix seconds, `step` seconds apart. */
export function formatTicks(ticks, step) {
  return ticks.map((tick) => {
    const at = new Date(tick * 1000);
    const isMidnight = at.getHours() === 0 && at.getMinutes() === 0;
    return step >= 86400 || isMidnight ? day.format(at) : `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  });
}
