"""The `jobmon` command: its subcommands and their options."""

import json
import logging
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import click
from flask.cli import ScriptInfo

from jobmon import __version__, logs
from jobmon.api.openapi import render_document
from jobmon.app import create_app
from jobmon.demo.stack import StackError, run_stack
from jobmon.demo.workload import run_workload
from jobmon.rollup.collecting import collecting
from jobmon.rollup.health import check_collector
from jobmon.settings import Settings, SettingsError, load_queues
from jobmon.setup.check import check_deployment
from jobmon.setup.discover import discover
from jobmon.setup.discovery_report import describe_discovery, write_files
from jobmon.setup.findings import Finding, Level, SetupError, refused_setting
from jobmon.setup.init import InitOptions, preview_init, run_init, script_init
from jobmon.setup.removal import remove, script_removal
from jobmon.setup.users import User
from jobmon.signals import await_stop_signal, end_soon, hold_stop_signals
from jobmon.web.token_commands import revoke_command, token_command

# The sections of `jobmon --help`, in the order in which people need the commands.
SECTIONS = {
    "To try it": ("demo",),
    "To set it up": ("init", "check", "token", "revoke"),
    "To run it": ("run", "collector"),
    "To build on it": ("openapi", "workload"),
}


class Commands(click.Group):
    """A group whose help has sections; commands of no section are listed under `Others`."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections, each command with the first sentence of its help."""
        named = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(context) if name not in named)
        for title, names in (SECTIONS | {"Others": others}).items():
            rows = [
                (name, command.get_short_help_str(limit=100))
                for name in names
                if (command := self.get_command(context, name)) is not None
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobmon")
@click.pass_context
def main(context: click.Context) -> None:
    """A read-only monitor and admin API for a job queue kept in MongoDB.

    Settings come from the environment (JOBMON_…); docs/operations.md lists them. Run `jobmon demo`
    to see a sample queue. For your own queue, set JOBMON_MONGO_URI and JOBMON_JWT_SECRET_KEY, and
    run `jobmon check` to see what is missing.
    """
    needs_key = context.invoked_subcommand != "revoke"  # it may revoke without checking the token
    # Only the commands that need an app call this.
    context.obj = ScriptInfo(create_app=lambda: create_app(_read_settings(require_keys=needs_key)))


main.add_command(token_command)
main.add_command(revoke_command)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("gunicorn_arguments", nargs=-1)
def run(gunicorn_arguments: tuple[str, ...]) -> None:
    """Serve the pages and the API with gunicorn; other arguments are passed to gunicorn.

    It listens on JOBMON_BIND, 127.0.0.1:8000 by default.
    """
    _read_settings()
    # With a heap for each thread, every heap would grow to the largest answer of its thread.
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
    "checks",
    is_flag=True,
    help="Only check: exit with 0 if a collector keeps this queue's statistics, otherwise with 1.",
)
def collector(*, checks: bool) -> None:
    """Keep the statistics up to date, in a process of its own.

    You may start several: one works, and another takes over when it ends. It writes only to the
    database JOBMON_ROLLUP_DB, as the user in JOBMON_ROLLUP_URI, by default JOBMON_MONGO_URI.
    It needs no key for tokens, and exits with 1 after an unexpected failure.
    """
    settings = _read_settings(require_keys=False)
    if checks:
        logs.configure("ERROR")
        health = check_collector(settings)
        click.echo(health.message)
        sys.exit(0 if health.is_good else 1)
    hold_stop_signals()
    logs.configure(settings.log_level, logs.find_secrets(settings))
    with collecting(settings, _end_with_failure):
        await_stop_signal()
        end_soon()


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(*, as_json: bool) -> None:
    """Check your deployment and print what is missing, with a remedy for each problem.

    It uses the settings in the environment and only reads. Exits with 1 if there is a problem;
    warnings do not count.
    """
    try:
        found = check_deployment(Settings.from_env(require_keys=False))
    except SettingsError as error:
        found = iter([refused_setting(error)])
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    counts = {level: sum(finding.level == level for finding in findings) for level in Level}
    fine = not counts[Level.PROBLEM]
    if as_json:
        report = {"ok": fine, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        click.echo(f"\nProblems: {counts[Level.PROBLEM]}. Warnings: {counts[Level.WARNING]}.")
    sys.exit(0 if fine else 1)


_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def _print_finding(finding: Finding, *, err: bool = False) -> Level:
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.check:<12} {finding.message}", err=err)
    for line in (finding.remedy, *(f"  {command}" for command in finding.commands)):
        if line:
            click.echo(f"{'':<22}{line}", err=err)
    return finding.level


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

    With JOBMON_MONGO_URI set, it watches that database instead and writes nothing to it.
    """
    try:
        run_stack(port, state)
    except (StackError, SettingsError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
def openapi() -> None:
    """Print the OpenAPI document that `/openapi.json` answers with; needs no settings."""
    # Nothing connects before the first request, and no setting is part of the document.
    settings = Settings(mongo_uri="mongodb://localhost", jwt_secret_key="-" * 32, log_level="ERROR")
    click.echo(render_document(create_app(settings)), nl=False)


@main.command()
@click.option(
    "--mongo-uri",
    required=True,
    envvar="JOBMON_WORKLOAD_MONGO_URI",
    show_envvar=True,
    help="The database of the sample queue; it is written to.",
)
def workload(mongo_uri: str) -> None:
    """Run producers and workers of a sample queue until interrupted."""
    hold_stop_signals()
    logs.configure("INFO")
    with run_workload(mongo_uri):
        await_stop_signal()
        end_soon()


@main.command()
@click.option(
    "--mongo-uri",
    envvar="JOBMON_ADMIN_MONGO_URI",
    show_envvar=True,
    help="The watched database, with a user who may write to it.  [required]",
)
@click.option(
    "--discover",
    "discovers",
    is_flag=True,
    help="Only read: list the collections that look like queues, with a profile for each.",
)
@click.option(
    "--write",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --discover: write the profiles and settings to files; existing ones are kept.",
)
@click.option("--jobs", metavar="NAME", help="Instead of JOBMON_JOBS_COLLECTION.")
@click.option("--attempts", metavar="NAME", help="Instead of JOBMON_ATTEMPTS_COLLECTION.")
@click.option("--replica-set", metavar="NAME/HOST:PORT", help="Start this replica set first.")
@click.option("--reader", metavar="USER", help="Create this read-only user for the web service.")
@click.option(
    "--reader-password",
    envvar="JOBMON_READER_PASSWORD",
    show_envvar=True,
    help="Better set in the environment.",
)
@click.option("--collector", metavar="USER", help="Create this user for the collector.")
@click.option(
    "--collector-password",
    envvar="JOBMON_COLLECTOR_PASSWORD",
    show_envvar=True,
    help="Better set in the environment.",
)
@click.option(
    "--change-passwords",
    is_flag=True,
    help="Also change the passwords of existing users that `jobmon init` did not create.",
)
@click.option(
    "--create",
    is_flag=True,
    help="For a new, empty queue: create its collections and every index.",
)
@click.option(
    "--unique",
    is_flag=True,
    help="Make the indexes on jobId, and on jobId and attemptNumber, unique.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing; print what would be created.")
@click.option(
    "--print",
    "as_script",
    is_flag=True,
    help="Write nothing; print the steps as lines for mongosh.",
)
@click.option(
    "--remove",
    "removes",
    is_flag=True,
    help="Remove what `jobmon init` created for this queue: users, roles, indexes.",
)
@click.option("--rollup-db", default="jobmon_rollups", envvar="JOBMON_ROLLUP_DB", show_default=True)
@click.option("--state-db", default="jobmon_state", envvar="JOBMON_STATE_DB", show_default=True)
def init(
    *,
    mongo_uri: str | None,
    discovers: bool,
    folder: Path | None,
    jobs: str | None,
    attempts: str | None,
    replica_set: str | None,
    reader: str | None,
    reader_password: str | None,
    collector: str | None,
    collector_password: str | None,
    change_passwords: bool,
    create: bool,
    unique: bool,
    dry_run: bool,
    as_script: bool,
    removes: bool,
    rollup_db: str,
    state_db: str,
) -> None:
    """Create the indexes that the monitor needs; also its users and a replica set.

    JOBMON_PROFILE and the mapping settings describe the documents. Existing indexes, users and
    rights are kept, so you can run it again at any time. If the documents do not match the
    settings, it stops before it creates anything.
    """
    if discovers:
        _discover(mongo_uri, {rollup_db, state_db}, jobs, folder)
        return
    if folder is not None:
        raise click.UsageError("--write needs --discover.")
    if mongo_uri is None:
        raise click.UsageError("Missing option '--mongo-uri' (env var: 'JOBMON_ADMIN_MONGO_URI').")
    if reader and reader == collector:
        raise click.UsageError("--reader and --collector need two names.")
    users = [
        User(name=name, password=password, is_collector=name == collector)
        for name, password in ((reader, reader_password), (collector, collector_password))
        if name
    ]
    for user in users:
        if not (user.password or dry_run or as_script or removes):
            option = "collector" if user.is_collector else "reader"
            raise click.UsageError(
                f"--{option} needs a password: set JOBMON_{option.upper()}_PASSWORD."
            )
    options = InitOptions(
        users=users,
        replica_set=replica_set,
        create=create,
        unique=unique,
        change_passwords=change_passwords,
    )
    try:
        settings = Settings.for_init(mongo_uri)
        settings = replace(
            settings,
            rollup_db=rollup_db,
            state_db=state_db,
            jobs_collection=jobs or settings.jobs_collection,
            attempts_collection=attempts or settings.attempts_collection,
        )
        if as_script:
            lines = script_removal(settings) if removes else script_init(settings, options)
            click.echo("\n".join(lines))
            return
        if removes:
            found = remove(settings, dry_run=dry_run)
        else:
            found = (preview_init if dry_run else run_init)(settings, options)
        levels = [_print_finding(finding) for finding in found]
    except SettingsError as error:
        levels = [_print_finding(refused_setting(error), err=as_script)]
    except SetupError as error:
        levels = [_print_finding(error.finding, err=as_script)]
    if Level.PROBLEM in levels:
        sys.exit(1)


def _discover(mongo_uri: str | None, own: set[str], only: str | None, folder: Path | None) -> None:
    """Print the queues of a deployment; with `folder`, also write their files."""
    source = "JOBMON_ADMIN_MONGO_URI" if mongo_uri else "JOBMON_MONGO_URI"
    uri = mongo_uri or os.environ.get("JOBMON_MONGO_URI")
    if not uri:
        raise click.UsageError("--discover needs JOBMON_ADMIN_MONGO_URI or JOBMON_MONGO_URI.")
    try:
        found = discover(uri, source, own, only)
        click.echo("\n".join(describe_discovery(found)))
        if folder is not None:
            click.echo("")
            for line in write_files(found, folder):
                click.echo(line)
    except SetupError as error:
        sys.exit(_print_finding(error.finding) is Level.PROBLEM)


def _end_with_failure() -> None:
    """Exit with 1 at once: after one thread failed, the others must not look healthy."""
    logging.shutdown()
    os._exit(1)


def _read_settings(*, require_keys: bool = True) -> Settings:
    """The settings in the environment; a bad one ends the command with one line."""
    try:
        settings = Settings.from_env(require_keys=require_keys)
        load_queues(settings)
        return settings
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
