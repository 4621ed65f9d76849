// Durations and instants as text, in the viewer's time zone.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const CLOCK = { hourCycle: "h23" };
const withoutYear = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", ...CLOCK,
});
const HOUR_S = 3600;
const DAY_S = 86400;
// Formats by the value of `data-as`: for axes, time windows and the last update.
const FORMATS = {
  seconds: new Intl.DateTimeFormat(undefined, { timeStyle: "medium", ...CLOCK }),
  clock: new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", ...CLOCK }),
  moment: new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", ...CLOCK }),
  day: new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" }),
};
const withYear = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", ...CLOCK });
const withZone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long", ...CLOCK });
let isPrinting = false;

/** Seconds in at most two units, like `3 min 20 s`. */
export function formatDuration(seconds) {
  const firstIndex = UNITS.findIndex(([, size]) => seconds >= size);
  const index = firstIndex < 0 ? UNITS.length - 1 : firstIndex;
  const [unit, size] = UNITS[index];
  const text = `${Math.floor(seconds / size)} ${unit}`;
  if (index === UNITS.length - 1) return text;
  const [smallerUnit, smallerSize] = UNITS[index + 1];
  const count = Math.floor((seconds % size) / smallerSize);
  return count ? `${text} ${count} ${smallerUnit}` : text;
}

/**
 * Show every `<time>` of the page: with `data-age` as an age, else relative to now if it is less than an hour
 * away (with `data-as="relative"`, a day), else as a date and time. With `data-as="since"`, a time of the last
 * day is shown as a time of day. Other values of `data-as` name a format.
 */
export function showTimes() {
  document.querySelectorAll("time").forEach(showTime);
}

/** While the page is printed, show times with their date: a relative time means nothing on paper. */
export function startPrinting() {
  matchMedia("print").addEventListener("change", ({ matches }) => {
    isPrinting = matches;
    const printed = document.getElementById("printed");
    if (printed) printed.dateTime = new Date().toISOString();
    showTimes();
    document.dispatchEvent(new Event("jobmon:theme")); // charts: first in the colours for paper, then in those of the screen
  });
}

function showTime(element) {
  const moment = new Date(element.dateTime);
  if (Number.isNaN(moment.getTime())) return;
  if (isPrinting && !("age" in element.dataset || element.dataset.as in FORMATS)) {
    element.textContent = (element.id === "printed" ? withZone : withYear).format(moment);
    return;
  }
  const age = (Date.now() - moment) / 1000;
  const format = FORMATS[element.dataset.as === "since" && age < DAY_S ? "clock" : element.dataset.as];
  if (format) element.textContent = format.format(moment);
  else element.textContent = "age" in element.dataset ? formatDuration(Math.max(0, age)) : formatInstant(moment, age, element.dataset.as === "relative" ? DAY_S : HOUR_S);
  element.title ||= `${withYear.format(moment)}\n${moment.toISOString()}`;
}

function formatInstant(moment, age, maxRelativeS) {
  if (Math.abs(age) < 1) return "now";
  if (Math.abs(age) < maxRelativeS) return age > 0 ? `${formatDuration(age)} ago` : `in ${formatDuration(-age)}`;
  return (moment.getFullYear() === new Date().getFullYear() ? withoutYear : withYear).format(moment);
}
