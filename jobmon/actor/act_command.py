"""`jobmon act`: stores a request for an action, and can wait until the request is over."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click
from pymongo.errors import PyMongoError

from jobmon.actions.catalog import ACTIONS, RequestError
from jobmon.actions.group_jobs import GroupJobReader
from jobmon.actions.preview import ActionPreview, ActionPreviewer, require_suitable
from jobmon.actions.request import ActionRequest, Person, make_id, truncate_to_ms
from jobmon.actions.requests import ActionRequests
from jobmon.actions.state import ActionState, Phase
from jobmon.actions.support import ActionSupport, find_support
from jobmon.actions.target import Target
from jobmon.domain import JobAction
from jobmon.humanize import count, escape_unprintable
from jobmon.redaction.redactor import Redactor
from jobmon.settings import Settings, SettingsError, load_queues, select_queues
from jobmon.store.connection import Connection
from jobmon.store.failures import describe_error, is_unauthorized
from jobmon.store.filter import JobFilter, RefusedFilterError
from jobmon.store.list_count import ListCounter
from jobmon.store.list_plan import ListPlanner
from jobmon.store.lists import JobLists

POLL_S = 0.5
_NO_RIGHT = (
    "the user of JOBMON_MONGO_URI has no right to store requests: `jobmon init --actor ACTOR "
    "--reader READER` grants it to READER, the web service's user."
)
_TYPE_HELP = (
    "Jobs of this type; except for pause_type and resume_type, `mail*` means all types that begin "
    "with `mail`."
)


class IsoTime(click.ParamType[datetime]):
    """A time in ISO 8601; UTC if it has no offset."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> datetime:
        """The time in UTC, truncated to milliseconds."""
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time in ISO 8601, such as 2026-01-31T02:40Z", param, ctx)
        return truncate_to_ms(moment)


@click.command("act")
@click.argument("action", type=click.Choice([name for name in ACTIONS if name != JobAction.UNDO]))
@click.option(
    "--id", "job_ids", multiple=True, help="This job. --id, --status and --type can be repeated."
)
@click.option("--status", "statuses", multiple=True, help="Jobs with this status.")
@click.option("--type", "types", multiple=True, help=_TYPE_HELP)
@click.option("--owner", help="Jobs of this owner.")
@click.option("--worker", help="Jobs that this worker runs or ran.")
@click.option("--error-code", help="Jobs whose newest error has this code.")
@click.option("--error-group", help="Jobs whose newest error belongs to this group.")
@click.option("--created-from", type=IsoTime(), help="Jobs created at this time or later.")
@click.option("--created-to", type=IsoTime(), help="Jobs created before this time.")
@click.option("--run-at", type=IsoTime(), help="The new time, for reschedule.")
@click.option("--priority", type=int, help="The new priority, for prioritize.")
@click.option("--reset-attempts", is_flag=True, help="Retry with the original number of attempts.")
@click.option(
    "--reason",
    default="",
    help="Why; required for more than one job or type, except with --dry-run.",
)
@click.option("--as", "subject", help="Your name in the records; by default your account's name.")
@click.option(
    "--key", help="An idempotency key: a repeated command with this key stores no second request."
)
@click.option("--dry-run", is_flag=True, help="Change nothing; record what would be done.")
@click.option("--yes", is_flag=True, help="Store the request without a confirmation.")
@click.option("--wait", is_flag=True, help="Print the progress until the request is over.")
@click.option("--queue", metavar="NAME", help="A queue in JOBMON_QUEUES; by default the first.")
def act_command(action: str, **options: Any) -> None:
    """Request an ACTION on jobs. `jobmon actor` carries it out and records each job.

    Give ids or filters of jobs; for pause_type and resume_type only --type. The user in
    JOBMON_MONGO_URI needs the right to store requests: `jobmon init --actor ACTOR --reader READER`
    grants it to READER, the web service's user. JOBMON_JWT_SECRET_KEY is not needed. With --wait
    the command exits with 1 unless the request is finished.
    """
    try:
        settings = Settings.from_env(require_keys=False)
        queues = load_queues(settings)
        if options["queue"] is not None:
            queues = select_queues(queues, options["queue"])
            if len(queues) > 1:
                names = ", ".join(queue.queue for queue in queues)
                raise SettingsError(
                    f"--queue: {options['queue']} has several queues. Name one: {names}"
                )
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    with _open(settings, queues[0]) as (requests, previewer, support):
        state = _request(requests, previewer, support, action, options)
        sys.exit(_follow(requests, state, wait=options["wait"]))


@contextmanager
def _open(
    own_settings: Settings, queue_settings: Settings
) -> Iterator[tuple[ActionRequests, ActionPreviewer, ActionSupport]]:
    """The objects that store and preview requests for one queue, and its actions."""
    redactor, support = Redactor(own_settings.redact_keys), find_support(queue_settings)
    with (
        closing(Connection(queue_settings)) as connection,
        closing(Connection(own_settings)) as own_connection,
    ):
        planner = ListPlanner(connection)
        yield (
            ActionRequests(connection, own_connection, redactor),
            ActionPreviewer(
                JobLists(planner, redactor),
                ListCounter(planner),
                support,
                GroupJobReader(planner, redactor),
            ),
            support,
        )


def _request(
    requests: ActionRequests,
    previewer: ActionPreviewer,
    support: ActionSupport,
    action: str,
    options: dict[str, Any],
) -> ActionState:
    """Show the jobs, ask, and store the request; ClickException if it cannot be stored."""
    try:
        target = _make_target(action, options)
        preview = previewer.preview(action, target)
        if target.job_filter is not None:
            require_suitable(action, target.job_filter, support)
        _print_preview(action, preview)
        if not options["dry_run"] and not options["yes"]:
            click.confirm("Request it?", abort=True)
        request = ActionRequest(
            action=action,
            target=target,
            by=Person.from_terminal(options["subject"]),
            expected=preview.count,
            reason=options["reason"],
            run_at=options["run_at"],
            priority=options["priority"],
            reset_attempts=options["reset_attempts"],
            dry_run=options["dry_run"],
        )
        return _store(requests, request, options["key"])
    except RequestError as error:
        message = f"{_name_option(error.field)}{error}"
    except RefusedFilterError as error:
        message = f"{_name_option(error.parameter)}{error}"
    except PyMongoError as error:
        message = describe_error(error)
    raise click.ClickException(f"not requested: {message}")


def _store(requests: ActionRequests, request: ActionRequest, key: str | None) -> ActionState:
    try:
        if key is not None and (earlier := requests.get(make_id(request.by.subject, key))):
            # A repeated command: the earlier request may have changed some of the jobs since.
            request = replace(request, expected=earlier.expected)
        return requests.file(request, key=key)
    except PyMongoError as error:
        if is_unauthorized(error):
            raise click.ClickException(f"not requested: {_NO_RIGHT}") from None
        # The server may have stored it before the connection failed.
        message = f"it is unknown whether the request is stored: {describe_error(error)}"
        raise click.ClickException(message) from None


def _follow(requests: ActionRequests, state: ActionState, *, wait: bool) -> int:
    """Print the stored request, with `wait` also its progress; returns the exit code."""
    click.echo(f"requested: {state.request.id} ({_describe_phase(state)})")
    try:
        if not requests.has_actor():
            click.echo("No actor works for this queue: start `jobmon actor`.", err=True)
        return _wait(requests, state) if wait else 0
    except PyMongoError as error:
        reason = describe_error(error)
        click.echo(f"The request is stored, but its progress is unknown: {reason}", err=True)
        return 1 if wait else 0


def _name_option(field: str) -> str:
    """`--id: ` for the field `ids` of a request; empty if no option or argument sets the field."""
    names = {"ids": "id", "types": "type", "idempotency_key": "key"}
    option = f"--{names.get(field, field)}".replace("_", "-")
    if field == "action":
        return "ACTION: "
    is_option = any(option in parameter.opts for parameter in act_command.params)
    return f"{option}: " if is_option else ""


def _make_target(action: str, options: dict[str, Any]) -> Target:
    names = ("owner", "worker", "error_code", "error_group", "created_from", "created_to")
    filters = {name: options[name] for name in names if options[name] is not None}
    if ACTIONS[action].is_for_types:
        if filters or options["statuses"] or options["job_ids"]:
            raise RequestError("type", f"{action} takes only --type.")
        if not options["types"]:
            raise RequestError("type", f"Required for {action}.")
        return Target(types=options["types"])
    if options["job_ids"]:
        if filters or options["statuses"] or options["types"]:
            raise RequestError("id", "Give either ids or filters.")
        return Target(job_ids=options["job_ids"])
    if not filters and not options["statuses"] and not options["types"]:
        raise RequestError("id", "Give ids, or at least one filter.")
    statuses, types = tuple(options["statuses"]), tuple(options["types"])
    return Target(job_filter=JobFilter(statuses=statuses, types=types, **filters))


def _print_preview(action: str, preview: ActionPreview) -> None:
    noun = "type" if ACTIONS[action].is_for_types else "job"
    click.echo(f"{action}: {count(preview.count, noun)}")
    if preview.unsuitable:
        click.echo(f"  {preview.unsuitable:,} of the given ids will be skipped")
    for job in preview.sample:
        parts = (job.get("jobId"), job.get("type"), job.get("status"), job.get("createdAt"))
        line = "  ".join(str(part) for part in parts if part is not None)
        click.echo("  " + escape_unprintable(line))
    if preview.count > len(preview.sample) > 0:
        click.echo("  …")


def _describe_phase(state: ActionState) -> str:
    text = state.phase.value.replace("_", " ")
    return f"{text}: {state.reason}" if state.reason else text


def _wait(requests: ActionRequests, state: ActionState) -> int:
    """Print the progress until the request is over; returns the exit code."""
    last_line = ""
    while True:
        counts = state.counts
        progress = (
            f"{counts.possible:,} possible" if state.request.dry_run else f"{counts.done:,} done"
        )
        line = f"{_describe_phase(state)}: {progress}, {counts.skipped:,} skipped"
        if line != last_line:
            click.echo(last_line := line)
        if state.is_over:
            return 0 if state.phase is Phase.FINISHED else 1
        time.sleep(POLL_S)
        state = requests.get(state.request.id) or state
