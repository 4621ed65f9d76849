"""The `jobmon` command: its subcommands and their options.

A command imports its modules only when it runs, so that `jobmon --help` is fast.
"""

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobmon import __version__
from jobmon.signals import await_stop_signal, block_stop_signals, end_soon

if TYPE_CHECKING:
    from jobmon.settings import Settings

# The sections of `jobmon --help`, in the order in which people need the commands.
SECTIONS = {
    "To try it": ("demo", "workload"),
    "To set it up": ("init", "check", "alerts", "token", "revoke"),
    "To run it": ("run", "collector", "notify", "mark"),
    "To look at it": ("top", "stats", "jobs", "job", "errors", "mcp"),
    "To mute notices": ("mute", "acknowledge", "unmute", "mutes"),
    "To act on jobs": ("act", "actor"),
    "To build on it": ("openapi",),
}

# The commands that other modules define, with the first sentence of their help.
OTHER_COMMANDS = {
    "init": "Create the indexes that the monitor needs; also its users and a replica set.",
    "check": "Check your deployment; print what is missing and, if it is known, the remedy.",
    "act": "Request an ACTION on jobs.",
    "notify": "Show how many notifications reached each receiver; --test sends a test message.",
    "mute": "Send no message about a NOTICE for a while; the pages still show it, as muted.",
    "acknowledge": "Send no reminders of a NOTICE, but send a message if it gets worse or is over.",
    "unmute": "End a mute or an acknowledgement now; `jobmon mutes` prints the ID.",
    "mutes": "Print which notices are muted or acknowledged, by whom, until when and why.",
    "token": "Print a token signed with JOBMON_JWT_SECRET_KEY.",
    "top": "Watch the queue in the terminal: counts, types, errors, workers, jobs.",
    "stats": "Print what is due, running, failing and dead, what needs attention, and the types.",
    "jobs": "Print the jobs that match the filters of the API; without --sort the newest first.",
    "job": "Print one job: why it does not run, its error and its attempts.",
    "errors": "Print the errors of a window, in groups with the same cause.",
    "mcp": "Answer an assistant's questions over the Model Context Protocol.",
    "revoke": "Refuse a token before it expires, by its `jti`; sessions made with it end, too.",
}


def _import_command(name: str) -> click.Command:
    """Import and return one of `OTHER_COMMANDS`."""
    if name in ("init", "check"):
        from jobmon.setup.commands import check_command, init_command

        return init_command if name == "init" else check_command
    if name == "act":
        from jobmon.actor.act_command import act_command

        return act_command
    if name == "notify":
        from jobmon.notify.notify_command import notify_command

        return notify_command
    if name in SECTIONS["To mute notices"]:
        from jobmon.notify import mute_commands

        command: click.Command = getattr(mute_commands, f"{name}_command")
        return command
    if name in SECTIONS["To look at it"]:
        return _import_terminal_command(name)
    from jobmon.web.token_commands import revoke_command, token_command

    return token_command if name == "token" else revoke_command


def _import_terminal_command(name: str) -> click.Command:
    extra = "mcp" if name == "mcp" else "terminal"
    try:
        from jobmon.terminal import commands

        if extra == "mcp":
            import mcp  # noqa: F401
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"`jobmon {name}` needs {error.name}: pip install 'mongo-jobmon[{extra}]'"
        ) from None
    command: click.Command = getattr(commands, f"{name}_command")
    return command


class Commands(click.Group):
    """A group whose help has sections; commands without a section are under `Others`."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The names of all commands, imported or not."""
        return sorted({*super().list_commands(context), *OTHER_COMMANDS})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command with this name, imported if another module defines it."""
        if name in OTHER_COMMANDS:
            return _import_command(name)
        return super().get_command(context, name)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments of `jobmon` and of its command; UsageError if one is not UTF-8."""
        for number, argument in enumerate(args, start=1):
            if argument.encode(errors="ignore").decode() != argument:
                raise click.UsageError(f"Argument {number} is not a text in UTF-8.", context)
        return super().parse_args(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, each command with the first sentence of its help."""
        in_sections = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(context) if name not in in_sections)
        for title, names in (SECTIONS | {"Others": others}).items():
            rows = [(name, self._describe(context, name)) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _describe(self, context: click.Context, name: str) -> str:
        """The first sentence of a command's help, without importing another module."""
        if name in OTHER_COMMANDS:
            return OTHER_COMMANDS[name]
        command = self.get_command(context, name)
        return "" if command is None else command.get_short_help_str(limit=100)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobmon")
@click.pass_context
def main(context: click.Context) -> None:
    """A monitor and admin API for job queues kept in MongoDB; only `jobmon actor` changes jobs.

    Settings come from the environment (JOBMON_…); docs/operations.md lists them. Run `jobmon demo`
    to see a sample queue. For your own queue, set JOBMON_MONGO_URI and JOBMON_JWT_SECRET_KEY, and
    run `jobmon check` to see what is missing.
    """
    if context.invoked_subcommand in ("token", "revoke"):  # both need a Flask app
        from flask.cli import ScriptInfo

        from jobmon.app import create_app

        # `revoke` needs a key only for --token-stdin.
        needs_key = context.invoked_subcommand == "token"
        context.obj = ScriptInfo(
            create_app=lambda: create_app(_read_settings(require_keys=needs_key))
        )


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("gunicorn_arguments", nargs=-1)
def run(gunicorn_arguments: tuple[str, ...]) -> None:
    """Serve the pages and the API with gunicorn; all arguments are passed on to gunicorn.

    It listens on JOBMON_BIND, 127.0.0.1:8000 by default.
    """
    _read_settings()  # a wrong setting is reported before gunicorn starts
    # Each of malloc's arenas keeps the memory of the largest answer that its threads have made.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    command = [
        "-m",
        "gunicorn",
        "--config",
        "python:jobmon.serving.gunicorn_config",
        *gunicorn_arguments,
    ]
    os.execv(sys.executable, [sys.executable, *command, "jobmon.app:create_app()"])  # noqa: S606


@main.command()
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Only check: exit with 1 if no queue is up to date, or if a restart may help a queue.",
)
@click.option(
    "--check-liveness",
    is_flag=True,
    help="Only check: exit with 1 if a restart may help a queue.",
)
def collector(*, only_check: bool, check_liveness: bool) -> None:
    """Keep the statistics up to date, in a process of its own.

    You may start several processes. They divide the queues; each queue has one collector at a time.
    If its process ends, another process takes over. A collector writes only to the database
    JOBMON_ROLLUP_DB, as the user in JOBMON_ROLLUP_URI, by default JOBMON_MONGO_URI. It needs no key
    for tokens. After an unexpected failure of a collector, the process exits with 1 if there is one
    queue. If there are several, it restarts only that collector.
    """
    from jobmon import logs
    from jobmon.collector.collecting import collecting
    from jobmon.rollup.health import are_good, check_collectors, may_restart_help
    from jobmon.settings import SettingsError, load_queues

    settings = _read_settings(require_keys=False)
    if only_check or check_liveness:
        logs.configure("ERROR")
        collectors = check_collectors(settings)
        for health in sorted(collectors, key=lambda health: health.is_good):
            name = f"{health.queue}: " if len(collectors) > 1 else ""
            click.echo(f"{name}{health.message}")
        is_failure = may_restart_help(collectors) if check_liveness else not are_good(collectors)
        sys.exit(1 if is_failure else 0)
    block_stop_signals()
    logs.configure(settings.log_level, logs.find_secrets(settings, load_queues(settings)))
    logs.warn_of_deprecated_settings()
    try:
        with collecting(settings, _end_with_failure):
            await_stop_signal()
            end_soon()
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@main.command()
def actor() -> None:
    """Carry out the requested actions on jobs, in a process of its own.

    It changes the watched jobs as the user in JOBMON_ACTOR_MONGO_URI, by default JOBMON_MONGO_URI;
    the web service and the collector never change them. You may start several processes: each queue
    has one actor at a time; if its process ends, another process takes over. It needs no key for
    tokens. After an unexpected failure it exits with 1. docs/actions.md describes it.
    """
    from jobmon import logs
    from jobmon.actor.acting import acting
    from jobmon.settings import load_queues

    settings = _read_settings(require_keys=False)
    block_stop_signals()
    logs.configure(settings.log_level, logs.find_secrets(settings, load_queues(settings)))
    logs.warn_of_deprecated_settings()
    with acting(settings, _end_with_failure):
        await_stop_signal()
        end_soon()


@main.command()
@click.argument("text")
@click.option("--at", help="The time in ISO 8601; UTC if it has no offset. Default: now.")
@click.option("--queue", "queue_name", help="Mark only this queue of JOBMON_QUEUES.")
@click.option("--link", help="The address of a page with details, https://…")
def mark(text: str, at: str | None, queue_name: str | None, link: str | None) -> None:
    """Mark a moment, such as a deployment, in the charts and the time series of all queues.

    Run it when you deploy, with what was deployed as TEXT: jobmon mark "v2.31". The user in
    JOBMON_ROLLUP_URI (or else JOBMON_MONGO_URI) must be able to write JOBMON_STATE_DB, like
    the collector's user. The command writes to no other database, and needs no key for tokens.
    """
    from jobmon.collector.mark_writer import write_marks
    from jobmon.redaction.redactor import Redactor
    from jobmon.rollup.marks import Mark, MarkError
    from jobmon.settings import SettingsError, load_queues, select_queues

    settings = _read_settings(require_keys=False)
    queues = load_queues(settings)
    try:
        if queue_name is not None:
            queues = select_queues(queues, queue_name)
        new_mark = Mark(at=_read_time(at), text=text.strip(), link=link)
        redacted = new_mark.redact(Redactor(settings.redact_keys))
        results = list(write_marks(settings, queues, redacted))
    except MarkError as error:
        raise click.ClickException(f"not marked: {error.field} {error}.") from None
    except SettingsError as error:
        raise click.ClickException(f"not marked: {error}") from None
    for queue, failure in results:
        prefix = f"{queue}: " if len(results) > 1 else ""
        outcome = f"not marked: {failure}" if failure else f"marked: {redacted.text}"
        click.echo(prefix + outcome, err=failure is not None)
    sys.exit(1 if any(failure for _, failure in results) else 0)


def _read_time(text: str | None) -> datetime:
    """The time of an ISO 8601 text, to the millisecond; now for None. Raises MarkError."""
    from jobmon.rollup.marks import MarkError

    try:
        moment = datetime.fromisoformat(text) if text is not None else datetime.now(UTC)
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise MarkError("at", "is not a time in ISO 8601, such as 2026-01-31T02:40Z") from None
    return moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)


@main.command()
@click.option("--port", default=8000, envvar="PORT", show_default=True)
@click.option(
    "--state",
    default=".jobmon",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the embedded database and the secret of the tokens.",
)
def demo(port: int, state: Path) -> None:
    """Run a real MongoDB, a sample workload and the service on this machine.

    With JOBMON_MONGO_URI set, jobmon watches that database instead and writes nothing to it.
    """
    from jobmon.demo.stack import StackError, run_stack
    from jobmon.settings import SettingsError

    try:
        run_stack(port, state)
    except (StackError, SettingsError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
def openapi() -> None:
    """Print the OpenAPI document of the route `/openapi.json`; needs no settings.

    It also has the routes that need JOBMON_ACTIONS, but not the fields of JOBMON_SEARCH_FIELDS.
    """
    from jobmon.api.openapi import render_document
    from jobmon.app import create_app
    from jobmon.settings import Settings

    # Nothing connects before the first request.
    settings = Settings(
        mongo_uri="mongodb://localhost", jwt_secret_key="-" * 32, log_level="ERROR", actions=True
    )
    click.echo(render_document(create_app(settings)), nl=False)


@main.command()
def alerts() -> None:
    """Print alert rules for Prometheus with the thresholds of JOBMON_RULES.

    It needs no other setting. docs/runbook.md has a section for each alert.
    """
    from jobmon.settings import SettingsError, read_variable
    from jobmon.settings.rules import load_rules
    from jobmon.setup.alert_rules import render_alert_rules

    try:
        rules = load_rules(read_variable("JOBMON_RULES") or None)
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(render_alert_rules(rules), nl=False)


@main.command()
@click.option(
    "--mongo-uri",
    required=True,
    envvar="JOBMON_WORKLOAD_MONGO_URI",
    show_envvar=True,
    help="The database of the sample queue; it is written to.",
)
def workload(mongo_uri: str) -> None:
    """Run a producer and workers of a sample queue until interrupted."""
    from jobmon import logs
    from jobmon.demo.workload import run_workload

    block_stop_signals()
    logs.configure("INFO")
    with run_workload(mongo_uri):
        await_stop_signal()
        end_soon()


def _end_with_failure() -> None:
    """Exit with 1 at once: a process in which a thread failed must not look healthy."""
    logging.shutdown()
    os._exit(1)


def _read_settings(*, require_keys: bool = True) -> "Settings":
    """The settings in the environment; a bad setting ends the command with one line."""
    from jobmon.settings import Settings, SettingsError, load_queues

    try:
        settings = Settings.from_env(require_keys=require_keys)
        load_queues(settings)
        return settings
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
