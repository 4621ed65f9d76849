"""The status strip of a page: the worst notices, or a sentence if there is no notice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobmon.diagnosis.notices import ALL_CLEAR, Level

MAX_WORST = 3


@dataclass(frozen=True, kw_only=True)
class StripNotice:
    """A notice on the page. `link` leads to the jobs or types that it counts; empty for no link.

    If the notice is about one type, `link` leads to the page of the type. `since` is when the
    notice began. `kind` is the kind of notice if it can be muted, otherwise empty.
    """

    level: str
    text: str
    link: str = ""
    since: datetime | None = None
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class StatusStrip:
    """`worst` are the worst three notices, `others` the other notices, the worst first.

    Without notices it shows `sentence` with the mark of `level`.
    """

    worst: Sequence[StripNotice] = ()
    others: Sequence[StripNotice] = ()
    sentence: str = ""
    level: str = ALL_CLEAR

    @property
    def problem_count(self) -> int:
        """The number of notices that need action."""
        return sum(notice.level == Level.BAD for notice in (*self.worst, *self.others))


def make_strip(
    notices: Sequence[StripNotice], sentence: str, level: str = ALL_CLEAR
) -> StatusStrip:
    """The strip with these notices, the worst first, or with the sentence if there are none."""
    return StatusStrip(
        worst=notices[:MAX_WORST], others=notices[MAX_WORST:], sentence=sentence, level=level
    )
