"""Template filters for statuses, times, environments, texts, commands and trends."""

import re
from binascii import crc32
from datetime import datetime

from markupsafe import Markup, escape

from jobmon.domain import JOB_STATUS_WORDS, AttemptStatus

STATUS_WORDS = JOB_STATUS_WORDS | {
    AttemptStatus.RUNNING.value: "running",
    AttemptStatus.EXPIRED.value: "expired",
}
# The first kind that has a word of the name applies: `pre-prod` is staging, not production.
_ENVIRONMENTS = {
    "staging": {"staging", "stage", "stg", "pre", "preprod", "non", "nonprod", "uat", "qa"},
    "prod": {"prod", "production", "prd", "live"},
    "dev": {"dev", "develop", "development", "test", "testing", "local", "sandbox", "demo"},
}
_OTHER_COLOURS = 4  # `env-0` to `env-3` in jobmon.css
_COMMAND = re.compile(r"`(jobmon [a-z]+)`")


def status_word(status: str | None) -> str:
    """The word for a status on the pages; an unknown status is its own word, None is `none`."""
    if status is None:
        return "none"
    return STATUS_WORDS.get(status, status)


def to_datetime_local(moment: str | None) -> str:
    """An ISO time for a `datetime-local` input, not converted to another zone; empty if bad."""
    try:
        return datetime.fromisoformat(moment or "").strftime("%Y-%m-%dT%H:%M")
    except ValueError:
        return ""


def environment_kind(name: str) -> str:
    """The kind that sets the colour of an environment: `prod`, `staging`, `dev`, or `0` to `3`."""
    words = set(re.findall(r"[a-z]+", name.lower()))
    kinds = (kind for kind, names in _ENVIRONMENTS.items() if words & names)
    return next(kinds, str(crc32(name.encode()) % _OTHER_COLOURS))


def capitalize_first(text: str) -> str:
    """The text with its first letter in upper case; all other letters stay unchanged."""
    return text[:1].upper() + text[1:]


def mark_commands(text: str) -> Markup:
    """The text as HTML: each command in backticks, such as `jobmon init`, becomes `<code>`."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704


MIN_TREND_POINTS = 20  # fewer points do not show a trend


def sparkline(values: list[float | None]) -> str:
    """A line through the values, as the path of an SVG that is 100 wide and 24 high.

    Zero is drawn at y = 23, the highest value at y = 2. The line begins at the first known value
    and ends at the last. An unknown value makes a gap; a value between
    gaps is drawn as a dot. The path is empty if fewer than `MIN_TREND_POINTS` values are known.
    """
    known_indexes = [index for index, value in enumerate(values) if value is not None]
    if len(known_indexes) < MIN_TREND_POINTS:
        return ""
    shown = values[known_indexes[0] : known_indexes[-1] + 1]
    highest = max(value for value in shown if value is not None) or 1
    step = 100 / (len(shown) - 1)
    path, is_joined = [], False
    for index, value in enumerate(shown):
        if value is not None:
            command = "L" if is_joined else "M"
            path.append(f"{command}{index * step:.1f},{23 - 21 * value / highest:.1f}")
            is_alone = not is_joined and shown[index + 1 : index + 2] in ([], [None])
            path += ["h0"] if is_alone else []
        is_joined = value is not None
    return "".join(path)
