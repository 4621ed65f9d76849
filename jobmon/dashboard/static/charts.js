// The overview's charts: what happened in the range, with one cursor for all three.
"use strict";

(() => {
  const box = document.getElementById("charts");
  if (!box || !window.uPlot) return;

  const REFRESH_MS = 10000;
  const CHARTS = [
    {
      title: "Throughput",
      unit: "count",
      series: [["succeeded", "succeeded", "succeeded"], ["failed", "failed", "failed"], ["enqueued", "enqueued", "queued"], ["dlq", "died", "dlq"]],
    },
    { title: "Wait time", unit: "ms", series: [["waitP50", "p50", "succeeded"], ["waitP95", "p95", "failed"], ["waitP99", "p99", "dlq"]] },
    { title: "Run time", unit: "ms", series: [["runP50", "p50", "succeeded"], ["runP95", "p95", "failed"], ["runP99", "p99", "dlq"]] },
  ];
  // Why there is nothing to draw, by the code of the answer.
  const WITHOUT = {
    collector_unavailable: "No charts of this range: no collector is running. Start one with `jobmon collector`.",
    indexes_missing: "No charts: indexes are missing. Create them with `jobmon init`.",
    history_unavailable: "No charts of this range: its history is not known.",
  };
  const sync = uPlot.sync("jobmon");
  let plots = [];
  let etag = "";
  let data = null;
  let askedAt = 0;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString());
  const UNITS = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000], ["ms", 1]];
  function span(ms) {
    if (ms === null || ms === undefined) return "–";
    const [unit, size] = UNITS.find(([, least]) => ms >= least) || UNITS.at(-1);
    if (unit === "min") return `${Math.floor(ms / size)}:${pad(Math.floor((ms % size) / 1000))}`;
    const whole = ms / size;
    return `${Number(whole.toFixed(unit !== "ms" && whole < 10 ? 1 : 0))} ${unit}`;
  }
  // Ticks that are round as durations: 200,000 ms is no round number of minutes.
  const STEPS = [[1, [1, 2, 5, 10, 20, 50, 100, 200, 500]], [1000, [1, 2, 5, 10, 20, 30]], [60000, [1, 2, 5, 10, 20, 30]], [3600000, [1, 2, 3, 6, 12]], [86400000, [1, 2, 5, 10, 20, 50, 100]]]
    .flatMap(([size, many]) => many.map((number) => number * size));

  const COUNTS = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((number) => number * 10 ** power)).flat();

  const pad = (number) => String(number).padStart(2, "0");
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
  function times(_, ticks, __, ___, step) {
    return ticks.map((tick) => {
      const at = new Date(tick * 1000);
      const midnight = at.getHours() === 0 && at.getMinutes() === 0;
      return step >= 86400 || midnight ? day.format(at) : `${pad(at.getHours())}:${pad(at.getMinutes())}`;
    });
  }

  function tooltip(chart) {
    let tip;
    return {
      hooks: {
        setScale: () => sayZoom(),
        // A line and its dashed end are one to whoever hides it by the legend.
        setSeries: (plot, i, { show }) => {
          const other = i + chart.series.length;
          if (show !== undefined && plot.series[other] && plot.series[other].show !== show) plot.setSeries(other, { show });
        },
        init: (plot) => {
          tip = document.createElement("div");
          tip.className = "tip";
          tip.hidden = true;
          plot.over.append(tip);
        },
        setCursor: (plot) => {
          const { idx, left, top } = plot.cursor;
          tip.hidden = idx === null || idx === undefined || left < 0;
          if (tip.hidden) return;
          const at = new Date(plot.data[0][idx] * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
          const format = chart.unit === "ms" ? span : count;
          const lines = chart.series.map(([name, label]) => `${label}  ${format(data[name][idx])}`);
          if (idx >= data.complete) lines.push("(so far)");
          tip.textContent = [at, ...lines].join("\n");
          const right = left > plot.over.clientWidth / 2;
          tip.style.left = right ? "" : `${left + 12}px`;
          tip.style.right = right ? `${plot.over.clientWidth - left + 12}px` : "";
          tip.style.top = `${Math.max(0, Math.min(top, plot.over.clientHeight - 90))}px`;
        },
      },
    };
  }

  function draw() {
    plots.forEach((plot) => plot.destroy());
    box.replaceChildren();
    plots = CHARTS.map((chart) => {
      const figure = document.createElement("figure");
      figure.className = "chart";
      const title = document.createElement("h2");
      title.textContent = chart.title;
      figure.append(title);
      box.append(figure);
      const format = chart.unit === "ms" ? span : count;
      const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") }, font: "12px system-ui" };
      const plot = new uPlot({
        width: Math.max(260, figure.clientWidth - 30),
        height: 200,
        plugins: [tooltip(chart)],
        legend: { live: false },
        cursor: { sync: { key: sync.key }, drag: { x: true, y: false } },
        scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.08] } },
        axes: [
          { ...axis, size: 32, values: times },
          { ...axis, size: 58, values: (_, ticks) => ticks.map(format), ...(chart.unit === "ms" ? { incrs: STEPS } : { incrs: COUNTS }) },
        ],
        series: [{}, ...lines(chart, format), ...lines(chart, format).map((line) => ({ ...line, fill: undefined, dash: [3, 4], class: "unfinished" }))],
      }, columns(chart), figure);
      plot.root.setAttribute("role", "img");
      plot.root.setAttribute("aria-label", said(chart));
      return plot;
    });
    box.append(whole);
    sayZoom();
  }

  // A value between two unknown ones has no line: a point shows it.
  function isolated(plot, i) {
    const values = plot.data[i];
    const known = (at) => values[at] !== null && values[at] !== undefined;
    return values.flatMap((_, at) => (known(at) && !known(at - 1) && !known(at + 1) ? [at] : []));
  }

  function lines(chart, format) {
    return chart.series.map(([, label, name], i) => ({
      label,
      stroke: colour(name),
      width: 1.75,
      fill: chart.unit === "count" && i === 0 ? `${colour(name)}22` : undefined,
      points: { size: 5, fill: colour(name), show: true, filter: isolated },
      spanGaps: false,
      value: (_, value) => format(value),
    }));
  }

  function renew() {
    plots.forEach((plot, i) => {
      const zoomed = isZoomed(plot);
      plot.setData(columns(CHARTS[i]), !zoomed);
      if (zoomed) plot.redraw();
      plot.root.setAttribute("aria-label", said(CHARTS[i]));
    });
  }

  // The way back from a stretch that was dragged over.
  const whole = document.createElement("button");
  whole.type = "button";
  whole.className = "whole";
  whole.textContent = "Reset zoom";
  whole.addEventListener("click", () => plots.forEach((plot, i) => plot.setData(columns(CHARTS[i]))));

  function sayZoom() {
    whole.hidden = !plots.some(isZoomed);
  }

  // Each line, and from its last whole step on the step that is still going on, which is dashed.
  function columns(chart) {
    const whole = ({ complete }, values) => values.map((value, at) => (at < complete ? value : null));
    const rest = ({ complete }, values) => values.map((value, at) => (at >= complete - 1 && values[complete] !== null ? value : null));
    const all = chart.series.map(([name]) => data[name]);
    return [data.at, ...all.map((values) => whole(data, values)), ...all.map((values) => rest(data, values))];
  }

  function isZoomed(plot) {
    const [at] = plot.data;
    if (!at.length || plot.scales.x.min === null) return false;
    return plot.scales.x.min > at[0] || plot.scales.x.max < at[at.length - 1];
  }

  // What the picture says, for those who do not see it.
  function said(chart) {
    const parts = chart.series.map(([name, label]) => {
      const known = data[name].filter((value) => value !== null);
      if (!known.length) return `${label}: not known`;
      if (chart.unit === "count") return `${label}: ${count(known.reduce((sum, value) => sum + value, 0))} in total`;
      return `${label}: ${span(known[known.length - 1])} at the end, ${span(Math.max(...known))} at most`;
    });
    return `${chart.title}. ${parts.join("; ")}.`;
  }

  function message(text) {
    plots.forEach((plot) => plot.destroy());
    plots = [];
    const line = document.createElement("p");
    line.className = "none";
    line.textContent = text;
    box.replaceChildren(line);
  }

  async function refresh() {
    if (Date.now() - askedAt < REFRESH_MS) return;
    askedAt = Date.now();
    const headers = { "X-Jobmon-Part": "charts" };
    if (etag) headers["If-None-Match"] = etag;
    let answer;
    try {
      answer = await fetch(box.dataset.url, { headers, cache: "no-store" });
    } catch {
      return; // the page says already that nobody answers
    }
    if (answer.status === 200) {
      etag = answer.headers.get("ETag");
      data = await answer.json();
      if (!plots.length) draw();
      else renew();
    } else if (answer.status === 503 && !data) {
      message(WITHOUT[answer.headers.get("X-Error-Code")] || "No charts: database not responding.");
    }
  }

  document.addEventListener("jobmon:tick", refresh);
  document.addEventListener("jobmon:theme", () => data && draw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data && draw());
  new ResizeObserver(() => {
    plots.forEach((plot) => {
      const width = Math.max(260, plot.root.parentElement.clientWidth - 30);
      if (Math.abs(width - plot.width) > 2) plot.setSize({ width, height: 200 });
    });
  }).observe(box);
  refresh();
})();
