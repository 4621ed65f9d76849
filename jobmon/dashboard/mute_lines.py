"""The lines about mutes below the status strip: the muted notices, who muted them, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobmon.actions.mutes import SAME_NOTICE, ActiveMutes, Mute, MuteMode
from jobmon.diagnosis.notice_address import find_notice_address
from jobmon.diagnosis.notices import Check, Notice


@dataclass(frozen=True, kw_only=True)
class MuteLine:
    """A mute, and a present notice that it is about; None if there is none."""

    mute: Mute
    notice: Notice | None = None

    @property
    def text(self) -> str:
        """The notice; without one, what the mute is about, such as `stalled types of mail*`."""
        if self.notice is not None:
            return self.notice.text
        kind = self.mute.kind
        notices = "all notices" if kind is None else kind.value.replace("_", " ")
        return f"{notices} of {self.mute.types}" if self.mute.types else notices

    @property
    def link(self) -> str:
        """The address of the jobs or types that the notice counts; empty if there are none."""
        return "" if self.notice is None else find_notice_address(self.notice)

    @property
    def mode_text(self) -> str:
        """`muted`, `acknowledged`, or `mail* muted` if the notice may also be about other types."""
        mode = "muted" if self.mute.mode is MuteMode.MUTE else "acknowledged"
        return f"{self.mute.types} {mode}" if self.notice and self.mute.types else mode


def list_mute_lines(checks: Sequence[Check], mutes: ActiveMutes) -> list[MuteLine]:
    """A line for each mute of each notice, then for each mute without a notice."""
    lines = [
        MuteLine(mute=mute, notice=notice)
        for check in checks
        for notice in check.notices
        for mute in mutes.find(check.kind, notice.about_types)
        if _is_about(mute, notice)
    ]
    with_notice = {line.mute.id for line in lines}
    lines += [MuteLine(mute=mute) for mute in mutes.mutes if mute.id not in with_notice]
    return lines


def _is_about(mute: Mute, notice: Notice) -> bool:
    """Whether a mute is about this notice: an acknowledgement is not if the notice began later."""
    began_later = notice.since is not None and notice.since > mute.at + SAME_NOTICE
    return mute.mode is MuteMode.MUTE or not began_later
