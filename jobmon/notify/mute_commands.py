"""`jobmon mute`, `acknowledge`, `unmute` and `mutes`: stop messages about notices for a while."""

import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from pymongo.errors import PyMongoError

from jobmon.actions.catalog import RequestError
from jobmon.actions.mute_records import MuteRecords
from jobmon.actions.mutes import Mute, MuteMode
from jobmon.actions.request import Person
from jobmon.diagnosis.notices import CheckKind
from jobmon.redaction.redactor import Redactor
from jobmon.rollup.documents import connect_as_writer, describe_missing_right
from jobmon.settings import Settings, SettingsError, load_queues, select_queues
from jobmon.store.connection import connect_queues
from jobmon.store.failures import describe_error, is_unauthorized

ALL = "all"
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class _Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, _: object, __: object) -> timedelta:
        match = re.fullmatch(r"([0-9]{1,4})([mhd])", str(value))
        if match is None:
            self.fail("is not a duration, such as 30m, 2h or 3d")
        return int(match[1]) * _UNITS[match[2]]


class _Notice(click.ParamType[str]):
    """A kind of notices, by its name or an unambiguous beginning of it; `all` for every kind."""

    name = "notice"

    def convert(self, value: Any, _: object, __: object) -> str:
        names = [*CheckKind, ALL]
        matches = [str(name) for name in names if name.startswith(str(value))]
        if len(matches) != 1:
            self.fail(f"is not one of {', '.join(names)}")
        return matches[0]


_MUTE_OPTIONS = (
    click.argument("notice", type=_Notice()),
    click.option("--type", "types", default="", help="Only these types: a name, or mail.*"),
    click.option("--reason", required=True, help="Why; shown on the pages and in the records."),
    click.option("--as", "subject", help="Your name in the records; by default your account's."),
    click.option("--queue", metavar="NAME", help="A queue in JOBMON_QUEUES; by default the first."),
)


def _add_options(function: Any) -> Any:
    for add in reversed(_MUTE_OPTIONS):
        function = add(function)
    return function


@click.command("mute")
@_add_options
@click.option("--for", "length", type=_Duration(), required=True, help="Such as 30m, 2h or 3d.")
def mute_command(length: timedelta, **options: Any) -> None:
    """Send no message about a NOTICE for a while; the pages still show it, as muted.

    NOTICE is its kind, such as stalled_types, or the beginning of it, such as stalled; all is every
    notice of the queue. When the time is over, a notice that is still open is sent again. The user
    in JOBMON_ROLLUP_URI (or else JOBMON_MONGO_URI) needs the right to write JOBMON_STATE_DB, as the
    collector's user has.
    """
    _add_mutes(MuteMode.MUTE, length, options)


@click.command("acknowledge")
@_add_options
@click.option(
    "--for", "length", type=_Duration(), default="1d", show_default=True, help="At most 30d."
)
def acknowledge_command(length: timedelta, **options: Any) -> None:
    """Send no reminders of a NOTICE, but send a message if it gets worse or is over.

    An acknowledgement is over when the notice is over, or after the time in --for. The command
    takes the arguments of `jobmon mute`, and needs the same right.
    """
    _add_mutes(MuteMode.ACKNOWLEDGE, length, options)


@click.command("unmute")
@click.argument("mute_id", metavar="ID")
@click.option("--reason", default="", help="Why; shown in the records.")
@click.option("--as", "subject", help="Your name in the records; by default your account's.")
def unmute_command(mute_id: str, reason: str, subject: str | None) -> None:
    """End a mute or an acknowledgement now; `jobmon mutes` prints the ID."""
    now = datetime.now(UTC)
    with _open_records(None) as queues:
        matches = [
            (records, mute)
            for _, records in queues
            for mute in records.list_recent()
            if mute_id and mute.id.startswith(mute_id) and mute.is_active(now)
        ]
        if len(matches) != 1:
            quantity = "several mutes" if matches else "no mute"
            raise click.ClickException(f"{quantity} in force with the id {mute_id}")
        records, mute = matches[0]
        records.end(mute, Person.from_terminal(subject), reason)
    click.echo(f"ended: {_describe(mute)}")


@click.command("mutes")
@click.option("--all", "shows_all", is_flag=True, help="Also print mutes that are over (30 days).")
def mutes_command(*, shows_all: bool) -> None:
    """Print which notices are muted or acknowledged, by whom, until when and why."""
    now = datetime.now(UTC)
    with _open_records(None) as queues:
        lines = [
            f"{mute.id[:8]}  {'' if len(queues) == 1 else f'{name}: '}{_describe(mute)}"
            for name, records in queues
            for mute in records.list_recent()
            if shows_all or mute.is_active(now)
        ]
    click.echo("\n".join(lines) or "No notice is muted or acknowledged.")


def _add_mutes(mode: MuteMode, length: timedelta, options: dict[str, Any]) -> None:
    notice = options["notice"]
    now = datetime.now(UTC)
    try:
        mute = Mute(
            kind=None if notice == ALL else CheckKind(notice),
            types=options["types"],
            mode=mode,
            by=Person.from_terminal(options["subject"]),
            at=now,
            until=now + length,
            reason=options["reason"],
        )
    except RequestError as error:
        option = {"until": "--for", "types": "--type", "kind": "NOTICE"}.get(
            error.field, "--reason"
        )
        raise click.ClickException(f"{option}: {error}") from None
    with _open_records(options["queue"]) as queues:
        for name, records in queues if options["queue"] else queues[:1]:
            records.create_indexes()
            # With an id for each queue: `unmute` has only the id to find the mute.
            added = records.add(replace(mute, id=secrets.token_hex(10)))
            prefix = "" if len(queues) == 1 else f"{name}: "
            click.echo(f"{added.id[:8]}  {prefix}{_describe(added)}")


@contextmanager
def _open_records(name: str | None) -> Iterator[Sequence[tuple[str, MuteRecords]]]:
    """The name and the mutes of each queue, or only of the queue with this name.

    A failure ends the command with a message.
    """
    try:
        settings = Settings.from_env(require_keys=False)
        queues = load_queues(settings)
        queues = queues if name is None else select_queues(queues, name)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    redactor = Redactor(settings.redact_keys)
    with (
        closing(connect_as_writer(settings)) as own,
        connect_queues(queues) as connections,  # of which only the keys are read
    ):
        try:
            yield [
                (connection.settings.queue, MuteRecords(connection, own, redactor))
                for connection in connections
            ]
        except PyMongoError as error:
            raise click.ClickException(_explain(error, settings)) from None


def _explain(error: PyMongoError, settings: Settings) -> str:
    if is_unauthorized(error):
        return describe_missing_right(settings, settings.state_db, "write", "mute")
    return describe_error(error)


def _describe(mute: Mute) -> str:
    notice = ALL if mute.kind is None else mute.kind.value
    types = f" of {mute.types}" if mute.types else ""
    verb = "muted" if mute.mode is MuteMode.MUTE else "acknowledged"
    text = f"{notice}{types}: {verb} by {mute.by.subject} until {mute.until:%Y-%m-%d %H:%M} UTC"
    if mute.end is not None:
        text += f", ended by {mute.end.by.subject} at {mute.end.at:%Y-%m-%d %H:%M} UTC"
    return f"{text}: {mute.reason}"
