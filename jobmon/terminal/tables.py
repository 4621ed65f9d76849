"""Shows answers of the API as tables; the texts of jobs cannot send commands to the terminal."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobmon import humanize
from jobmon.domain import JOB_STATUS_WORDS, JobStatus

# The style by the level of a notice, or by status.
STYLES = {
    "bad": "bold red",
    "watch": "yellow",
    "leased": "cyan",
    "succeeded": "green",
    "failed": "yellow",
    "dlq": "red",
    "cancelled": "dim",
}
MARKS = {"bad": "!", "watch": "~"}  # by the level of a notice
ID_WIDTHS = {"job": 36, "group": 16}  # characters by column, so that an id stays in one line
UNKNOWN = humanize.grouped(None)  # a dash


class Columns(NamedTuple):
    """The columns of a list: their heads, with `>` before numbers, and the `cells` of a row."""

    heads: tuple[str, ...]
    cells: Callable[[Mapping[str, Any]], list[Text]]


def show_list(columns: Columns, rows: Iterable[Mapping[str, Any]]) -> Table:
    """Types, jobs, errors or workers as a table: `show_list(JOBS, answer["data"])`."""
    table = _make_table(*columns.heads)
    for row in rows:
        table.add_row(*columns.cells(row))
    return table


def format_plain(value: object) -> str:
    """A value in one line, with an escape such as `\\x1b` for each character that is not printable.

    A dash for None.
    """
    return humanize.escape_unprintable(UNKNOWN if value is None else str(value))


def format_status(status: object) -> Text:
    """A status as a word for people, in its color; the text of an unknown status is unchanged."""
    text = str(status)
    return Text(format_plain(JOB_STATUS_WORDS.get(text, text)), STYLES.get(text, ""))


def format_time(iso: str | None, now: datetime | None = None) -> str:
    """A time in UTC, such as `13:44:30 (16 s ago)`; with its date if that is not today."""
    if iso is None:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(iso).astimezone(UTC)
    except (ValueError, OverflowError):  # a text, or in UTC before year 1 or after year 9999
        return format_plain(iso)
    now = now or datetime.now(UTC)
    time_format = "%H:%M:%S" if moment.date() == now.date() else "%Y-%m-%d %H:%M:%S"
    elapsed_ms = (now - moment).total_seconds() * 1_000
    distance = humanize.duration(abs(elapsed_ms))
    return f"{moment:{time_format}} ({f'in {distance}' if elapsed_ms < 0 else f'{distance} ago'})"


def show_stats(stats: Mapping[str, Any], queue: Mapping[str, Any]) -> RenderableType:
    """The counts of a queue with its notices, as the overview shows them."""
    counts = Table.grid(padding=(0, 3))
    tiles = list(list_tiles(stats))
    counts.add_row(*(Text(label, style="dim") for label, _, _ in tiles))
    counts.add_row(*(Text(number, style=f"bold {style}") for _, number, style in tiles))
    lines: list[RenderableType] = [counts, Text(describe_pace(stats, queue))]
    lines += show_notices(queue)
    lines += [Text(line, style="dim") for line in describe_reasons(stats.get("reasons"))]
    return Group(*lines)


def list_tiles(stats: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """The label, number and style of each count."""
    yield "due", humanize.grouped(stats["dueJobs"]), ""
    yield "scheduled", humanize.grouped(stats["scheduledJobs"]), ""
    counts = stats["statusCounts"] or {}
    for status in JobStatus:
        if status is not JobStatus.QUEUED:
            number = counts.get(status.value)
            style = STYLES.get(status.value, "") if number else ""
            yield JOB_STATUS_WORDS[status.value], humanize.grouped(number), style


def describe_pace(stats: Mapping[str, Any], queue: Mapping[str, Any]) -> str:
    """Lines with the oldest queued job's age, rates, forecast, and the time of the numbers."""
    age_ms = stats["oldestQueuedJobAgeMs"]  # 0 if no job is queued
    parts = [
        f"oldest queued job: {'none' if age_ms == 0 else humanize.duration(age_ms)}",
        f"expired leases: {humanize.grouped(stats['expiredLeases'])}",
        f"last hour: {humanize.per_minute(queue.get('finishedPerMinute'))} finished, "
        f"{humanize.percent(queue.get('failureRate'))} of them failed",
    ]
    backlog = format_plain((stats.get("forecast") or {}).get("text"))
    source = format_plain(stats["source"])
    lines = (
        " · ".join(parts),
        f"backlog: {backlog}",
        f"as of {format_time(stats['asOf'])}, {source}",
    )
    return "\n".join(lines)


def show_notices(queue: Mapping[str, Any]) -> list[Text]:
    """A line for each notice and each check that was not made; a sentence if there is neither."""
    notices = queue.get("notices")
    if notices is None:
        return [Text("notices: unknown", style="yellow")]
    lines = [
        Text(
            f"{MARKS.get(notice['level'], '-')} {format_plain(notice['text'])}"
            f"{' (muted)' if notice.get('isMuted') else ''}",
            "dim" if notice.get("isMuted") else STYLES.get(notice["level"], ""),
        )
        for notice in notices
    ]
    unchecked = [Text(format_plain(text), style="dim") for text in queue.get("unchecked") or ()]
    if not lines and not unchecked:
        return [Text("nothing needs attention", style="green")]
    return [*lines, *unchecked]


def describe_reasons(reasons: Mapping[str, Any] | None) -> list[str]:
    """A line for each value that is unknown or not exact, with the reason."""
    return [
        f"{format_plain(name)}: {format_plain(reason)}" for name, reason in (reasons or {}).items()
    ]


def describe_meta(meta: Mapping[str, Any]) -> list[str]:
    """A line for each reason why a list is unknown or its numbers are too low."""
    lines = describe_reasons(meta.get("reasons"))
    if meta.get("is_complete") is False:
        lines.append("the collector is still counting this window: numbers may be too low")
    if gaps := meta.get("gaps"):
        start, end = format_plain(gaps[0]["from"]), format_plain(gaps[-1]["to"])
        lines.append(f"runs may be missing between {start} and {end}")
    return lines


def _type_cells(row: Mapping[str, Any]) -> list[Text]:
    counts = row["statusCounts"] or {}
    numbers = [
        Text(humanize.grouped(counts.get(status, 0) if row["statusCounts"] is not None else None))
        for status in ("queued", "leased", "failed", "dlq")
    ]
    return [
        Text(format_plain(row["type"])),
        *numbers,
        Text(humanize.per_minute(row["finishedPerMinute"])),
        Text(humanize.percent(row["failureRate"])),
        Text(humanize.duration((row["waitMs"] or {}).get("p95"))),
        Text(humanize.duration((row["runMs"] or {}).get("p95"))),
    ]


def _job_cells(job: Mapping[str, Any]) -> list[Text]:
    error = job.get("lastError") or {}
    return [
        Text(format_plain(job["jobId"])),
        Text(format_plain(job["type"])),
        format_status(job["status"]),
        Text(f"{format_plain(job['attemptCount'])}/{format_plain(job['maxAttempts'])}"),
        Text(format_plain(job.get("createdBy"))),
        Text(format_time(job["createdAt"])),
        Text(format_plain(error.get("code") or error.get("message") or "")),
    ]


def _error_cells(group: Mapping[str, Any]) -> list[Text]:
    types = group.get("typeCounts") or {}
    return [
        Text(humanize.grouped(group["count"]), "bold"),
        Text(humanize.grouped(group["previousCount"])),
        Text(format_plain(group["code"]), "red" if group["status"] == "new" else ""),
        Text(format_plain(group["pattern"])),
        Text(format_plain(", ".join(types))),
        Text(format_time(group["lastSeen"])),
        Text(format_plain(group["id"])),
    ]


def _worker_cells(worker: Mapping[str, Any]) -> list[Text]:
    running = ", ".join(sorted({str(job["type"]) for job in worker.get("jobs") or ()}))
    return [
        Text(format_plain(worker["name"])),
        Text(format_plain(worker["state"]), "" if worker["state"] == "running" else "yellow"),
        Text(humanize.grouped(worker["attempts"])),
        Text(humanize.percent(worker["failureRate"])),
        Text(humanize.duration((worker["runMs"] or {}).get("p95"))),
        Text(format_plain(running)),
        Text(format_time(worker["lastSeen"])),
    ]


def show_job(job: Mapping[str, Any]) -> RenderableType:
    """One job: why it does not run, its times, its error and its attempts."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for label, value in {
        "job": Text(format_plain(job["jobId"]), "bold"),
        "type": Text(format_plain(job["type"])),
        "status": format_status(job["status"]),
        "owner": Text(format_plain(job.get("createdBy"))),
        "priority": Text(format_plain(job["priority"])),
        "attempts": Text(
            f"{format_plain(job['attemptCount'])} of {format_plain(job['maxAttempts'])}"
        ),
        "created": Text(format_time(job["createdAt"])),
        "runs next": Text(format_time(job["nextRunAt"])),
        "leased by": Text(format_plain(job["leasedBy"])),
        "lease ends": Text(format_time(job["leaseExpiresAt"])),
        "finished": Text(format_time(job["finishedAt"])),
    }.items():
        if value.plain != UNKNOWN:
            facts.add_row(label, value)
    parts: list[RenderableType] = [facts]
    if text := (job.get("explanation") or {}).get("text"):
        parts.append(Text(f"\n{format_plain(text)}", style="bold"))
    if (job.get("explanation") or {}).get("code") == "type_paused":
        name = shlex.quote(format_plain(job["type"]))
        parts.append(Text(f"Resume it: jobmon act resume_type --type {name}", style="dim"))
    if error := job.get("lastError"):
        parts.append(Text(f"\n{_describe_error(error)}", style="red"))
    if attempts := job.get("attempts"):
        parts += [Text(), _show_attempts(attempts)]
    parts += [Text(line, style="dim") for line in describe_reasons(job.get("reasons"))]
    return Group(*parts)


def _show_attempts(attempts: Iterable[Mapping[str, Any]]) -> Table:
    table = _make_table(">attempt", "status", "worker", "started", ">waited", ">ran", "error")
    for attempt in attempts:
        error = attempt.get("error")
        status = str(attempt["status"])
        table.add_row(
            Text(format_plain(attempt["attemptNumber"])),
            Text(format_plain(status), STYLES.get(status, "")),
            Text(format_plain(attempt["workerId"])),
            Text(format_time(attempt["startedAt"])),
            Text(humanize.duration(attempt["waitMs"])),
            Text(humanize.duration(attempt["durationMs"])),
            Text(_describe_error(error) if error else ""),
        )
    return table


def _describe_error(error: Mapping[str, Any]) -> str:
    parts = [format_plain(error[name]) for name in ("code", "message") if error.get(name)]
    return ": ".join(parts)


def _make_table(*heads: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for head in heads:
        table.add_column(
            head.removeprefix(">"),
            justify="right" if head[0] == ">" else "left",
            overflow="fold",
            min_width=ID_WIDTHS.get(head),
        )
    return table


TYPES = Columns(
    (
        "type",
        ">queued",
        ">running",
        ">retrying",
        ">dead",
        ">finished",
        ">failing",
        ">p95 wait",
        ">p95 run",
    ),
    _type_cells,
)
JOBS = Columns(("job", "type", "status", ">attempts", "owner", "created", "error"), _job_cells)
ERRORS = Columns(
    (">count", ">before", "code", "message", "types", "last seen", "group"), _error_cells
)
WORKERS = Columns(
    ("worker", "state", ">attempts", ">failing", ">p95 run", "runs", "last seen"), _worker_cells
)
