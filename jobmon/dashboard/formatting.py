"""Template filters that format statuses, times, trends and names."""

import re
from binascii import crc32
from datetime import datetime

from markupsafe import Markup, escape

from jobmon.domain import JOB_STATUS_WORDS, AttemptStatus

STATUS_WORDS = JOB_STATUS_WORDS | {
    AttemptStatus.RUNNING.value: "running",
    AttemptStatus.EXPIRED.value: "expired",
}
# The first row with a word of the name decides: `pre-prod` is no production.
_ENVIRONMENTS = {
    "staging": {"staging", "stage", "stg", "pre", "preprod", "non", "nonprod", "uat", "qa"},
    "prod": {"prod", "production", "prd", "live"},
    "dev": {"dev", "develop", "development", "test", "testing", "local", "sandbox", "demo"},
}
_OTHER_COLOURS = 4
_COMMAND = re.compile(r"`(jobmon [a-z]+)`")


def status_word(status: str | None) -> str:
    """A status as the pages name it; an unknown one keeps its own name."""
    if status is None:
        return "none"
    return STATUS_WORDS.get(status, status)


def local_minute(moment: str | None) -> str:
    """An instant for a field `datetime-local`, without its zone; empty if it is no instant."""
    try:
        return datetime.fromisoformat(moment or "").strftime("%Y-%m-%dT%H:%M")
    except ValueError:
        return ""


def environment_kind(name: str) -> str:
    """The colour of an environment: `prod`, `staging`, `dev`, or for another name a number."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    known = (kind for kind, names in _ENVIRONMENTS.items() if words & names)
    return next(known, str(crc32(name.encode()) % _OTHER_COLOURS))


def capitalize_first(text: str) -> str:
    """The text with its first letter as a capital; the others stay unchanged."""
    return text[:1].upper() + text[1:]


def mark_commands(text: str) -> Markup:
    """The text as HTML: commands of jobmon that are in backticks become `<code>`."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704


MIN_TREND_POINTS = 20


def spark(values: list[float | None]) -> str:
    """A line through the values as the path of an SVG, 100 wide and 24 high; its lower edge is 0.

    It begins at the first known value and ends at the last one. An unknown value is drawn as a gap,
    a value between two gaps as a dot. Empty with fewer than 20 known values: these show no trend.
    """
    known = [index for index, value in enumerate(values) if value is not None]
    if len(known) < MIN_TREND_POINTS:
        return ""
    shown = values[known[0] : known[-1] + 1]
    top = max(value for value in shown if value is not None) or 1
    step = 100 / (len(shown) - 1)
    path, is_joined = [], False
    for index, value in enumerate(shown):
        if value is not None:
            command = "L" if is_joined else "M"
            path.append(f"{command}{index * step:.1f},{23 - 21 * value / top:.1f}")
            is_alone = not is_joined and shown[index + 1 : index + 2] in ([], [None])
            path += ["h0"] if is_alone else []
        is_joined = value is not None
    return "".join(path)
