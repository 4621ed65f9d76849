// Durations and instants as text, in the viewer's time zone.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const CLOCK = { hourCycle: "h23" };
const inYear = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", ...CLOCK,
});
const HOUR_S = 3600;
const DAY_S = 86400;
// For axes, time windows and the last update: `data-as` names the form.
const CLOCK_FORMS = {
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
  const found = UNITS.findIndex(([, size]) => seconds >= size);
  const index = found < 0 ? UNITS.length - 1 : found;
  const [unit, size] = UNITS[index];
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  if (index === UNITS.length - 1) return whole;
  const [smaller, smallerSize] = UNITS[index + 1];
  const part = Math.floor((seconds % size) / smallerSize);
  return part ? `${whole} ${part} ${smaller}` : whole;
}

/**
 * Show every `<time>` of the page: as an age if it has `data-age`, else relative to now within an hour,
 * or within a day if it has `data-as="relative"`. With `data-as="since"` it is only the time of the day
 * within the last day, and the date with the time before that.
 */
export function showTimes() {
  document.querySelectorAll("time").forEach(showTime);
}

/** While the page is printed, show times with their date: an age means nothing on paper. */
export function startPrinting() {
  matchMedia("print").addEventListener("change", ({ matches }) => {
    isPrinting = matches;
    const printed = document.getElementById("printed");
    if (printed) printed.dateTime = new Date().toISOString();
    showTimes();
    document.dispatchEvent(new Event("jobmon:theme")); // charts: in the colours of paper, then of the screen
  });
}

function showTime(element) {
  const moment = new Date(element.dateTime);
  if (Number.isNaN(moment.getTime())) return;
  if (isPrinting && !("age" in element.dataset || element.dataset.as in CLOCK_FORMS)) {
    element.textContent = (element.id === "printed" ? withZone : withYear).format(moment);
    return;
  }
  const age = (Date.now() - moment) / 1000;
  const form = CLOCK_FORMS[element.dataset.as === "since" && age < DAY_S ? "clock" : element.dataset.as];
  if (form) element.textContent = form.format(moment);
  else element.textContent = "age" in element.dataset ? formatDuration(Math.max(0, age)) : formatInstant(moment, age, element.dataset.as === "relative" ? DAY_S : HOUR_S);
  element.title ||= `${withYear.format(moment)}\n${moment.toISOString()}`;
}

function formatInstant(moment, age, relativeS) {
  if (Math.abs(age) < 1) return "now";
  if (Math.abs(age) < relativeS) return age > 0 ? `${formatDuration(age)} ago` : `in ${formatDuration(-age)}`;
  return (moment.getFullYear() === new Date().getFullYear() ? inYear : withYear).format(moment);
}
