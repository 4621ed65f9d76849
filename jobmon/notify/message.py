"""A message about a queue, as text and as JSON. It contains no payload, no error and no job."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import orjson

from jobmon.diagnosis.notices import Level
from jobmon.humanize import count
from jobmon.notify.tracking import Change, News
from jobmon.settings import Settings

_CHANGE_WORDS = {
    Change.BEGINS: "New",
    Change.WORSE: "Worse",
    Change.CONTINUES: "Still",
    Change.OVER: "Over",
}


@dataclass(frozen=True, kw_only=True)
class Sender:
    """The queue that a message is about. `url`: its pages' URL; None without JOBMON_PUBLIC_URL."""

    queue: str
    environment: str | None
    url: str | None

    def make_page_url(self, address: str = "/dashboard") -> str | None:
        """The URL of a page of the queue, by default of the overview.

        None if the sender has no URL, or for an empty `address`.
        """
        return None if self.url is None or not address else f"{self.url}{address}"

    @classmethod
    def from_settings(cls, settings: Settings) -> "Sender":
        """The sender for a queue with these settings."""
        url = settings.public_url
        if url is not None:
            path = "" if settings.queues is None else f"/queues/{quote(settings.queue, safe='')}"
            url = f"{url}{path}"
        return cls(queue=settings.queue, environment=settings.environment, url=url)


@dataclass(frozen=True, kw_only=True)
class Message:
    """News about a queue, or a test without news. `id`: the same if the message is sent again.

    `level`: the level of the worst open problem, whether it is in this message or in an earlier
    one; None if no problem is open.
    """

    id: str
    made_at: datetime
    sender: Sender
    news: Sequence[News] = ()
    level: Level | None = None

    def render_title(self) -> str:
        """One line, such as `[PROD] jobmon, payouts: 3 notices`; for one notice with its text."""
        if not self.news:
            subject = "this is a test of notifications"
        elif len(self.news) == 1:
            subject = f"{_format_prefix(self.news[0])}{self.news[0].problem.text}"
        elif all(item.change is Change.OVER for item in self.news):
            subject = f"{count(len(self.news), 'notice')} over"
        else:
            subject = count(len(self.news), "notice")
        environment = "" if self.sender.environment is None else f"[{self.sender.environment}] "
        return f"{environment}jobmon, {self.sender.queue}: {subject}"

    def render_text(self) -> str:
        """A line for each item, followed by the URL of its page unless it is over.

        The last line is the URL of the overview. Without a public URL there are no URLs.
        """
        lines: list[str | None] = [] if self.news else ["This is a test of notifications."]
        for item in self.news:
            lines.append(_format_line(item))
            if item.change is not Change.OVER:
                lines.append(self.sender.make_page_url(item.problem.address))
        lines.append(self.sender.make_page_url())
        return "\n".join(line for line in lines if line is not None)

    def render_json(self) -> bytes:
        """The body for a webhook; the same bytes if the message is sent again."""
        data = {
            "queue": self.sender.queue,
            "environment": self.sender.environment,
            "url": self.sender.make_page_url(),
            "level": self.level,
            "text": f"{self.render_title()}\n{self.render_text()}",
            "notices": [
                {
                    "change": item.change,
                    "kind": item.problem.kind,
                    "level": item.problem.level,
                    "text": item.problem.text,
                    "since": item.problem.since,
                    "endedAt": item.ended_at,
                    "count": item.problem.count,
                    "types": sorted(item.problem.types),
                    "url": self.sender.make_page_url(item.problem.address),
                }
                for item in self.news
            ],
        }
        kind = "jobmon.notices" if self.news else "jobmon.test"
        document = {"type": kind, "timestamp": self.made_at, "data": data}
        return orjson.dumps(document, option=orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS)


def _format_prefix(item: News) -> str:
    return "" if item.change is Change.BEGINS else f"{_CHANGE_WORDS[item.change].lower()}: "


def _format_line(item: News) -> str:
    times = []
    if item.problem.since is not None:
        times.append(f"since {_format_time(item.problem.since)}")
    if item.ended_at is not None:
        times.append(f"until {_format_time(item.ended_at)}")
    suffix = f" ({', '.join(times)})" if times else ""
    urgent = " (urgent)" if item.problem.level is Level.BAD and item.change != Change.OVER else ""
    return f"{_CHANGE_WORDS[item.change]}{urgent}: {item.problem.text}{suffix}"


def _format_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
