"""The status strip of a page: the worst notices, or a sentence if there is no notice."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from jobmon.diagnosis.notices import ALL_CLEAR, Level

CHIPS_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Chip:
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
    """`chips` are the worst notices, `more` are the others, the worst first.

    Without notices it shows `sentence` with the mark of `level`.
    """

    chips: Sequence[Chip] = ()
    more: Sequence[Chip] = ()
    sentence: str = ""
    level: str = ALL_CLEAR

    @property
    def problem_count(self) -> int:
        """The number of notices that need action."""
        return sum(chip.level == Level.BAD for chip in (*self.chips, *self.more))


def make_strip(notices: Sequence[Chip], sentence: str, level: str = ALL_CLEAR) -> StatusStrip:
    """The strip with these notices, the worst first, or with the sentence if there are none."""
    return StatusStrip(
        chips=notices[:CHIPS_SHOWN], more=notices[CHIPS_SHOWN:], sentence=sentence, level=level
    )
