"""The commands `jobmon check` and `jobmon init`: their options, and how they print findings."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from jobmon.settings import Settings, SettingsError, read_variable
from jobmon.setup.check_queues import check_queues
from jobmon.setup.discover import discover
from jobmon.setup.discovery_report import describe_discovery, write_files
from jobmon.setup.findings import Finding, Level, SetupError, refused_setting
from jobmon.setup.init import preview_init, run_init, script_init
from jobmon.setup.init_plan import InitOptions
from jobmon.setup.init_queues import OWN_URI, InitTarget, find_targets
from jobmon.setup.removal import remove, script_removal
from jobmon.setup.users import User, UserKind

Command = Callable[..., Any]
_SAFER_IN_VARIABLE = "The user's password. The variable is safer than this option."


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--queue", metavar="NAME", help="Check only this queue of JOBMON_QUEUES.")
def check_command(*, as_json: bool, queue: str | None) -> None:
    """Check your deployment; print what is missing and, if it is known, the remedy.

    It uses the settings in the environment, and only reads. It exits with 1 if there is a problem,
    but not for warnings.
    """
    findings: list[Finding] = []
    for finding in _check(queue):
        if not as_json:
            if finding.queue and finding.queue != (findings[-1].queue if findings else None):
                click.secho(f"\n{finding.queue}", bold=True)
            _print_finding(finding)
        findings.append(finding)
    counts = {level: sum(finding.level == level for finding in findings) for level in Level}
    is_ok = not counts[Level.PROBLEM]
    if as_json:
        report = {"ok": is_ok, "findings": [asdict(finding) for finding in findings]}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        summary = f"\nProblems: {counts[Level.PROBLEM]}. Warnings: {counts[Level.WARNING]}."
        problems = [finding for finding in findings if finding.level is Level.PROBLEM]
        if names := dict.fromkeys(finding.queue for finding in problems if finding.queue):
            summary += f" Queues with problems: {', '.join(names)}."
        click.echo(summary)
    sys.exit(0 if is_ok else 1)


def _check(queue: str | None) -> Iterator[Finding]:
    """The findings of `jobmon check`; a bad setting is also a finding."""
    try:
        settings = Settings.from_env(require_keys=False)
        if queue is not None and settings.queues is None:
            raise click.UsageError("--queue needs JOBMON_QUEUES.")
        yield from check_queues(settings, queue)
    except SettingsError as error:
        yield refused_setting(error)


_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def _print_finding(finding: Finding, *, err: bool = False) -> Level:
    level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.check:<12} {finding.message}", err=err)
    for line in (finding.remedy, *(f"  {command}" for command in finding.commands)):
        if line:
            click.echo(f"{'':<22}{line}", err=err)
    return finding.level


def _secret_option(flag: str, variable: str, text: str) -> Callable[[Command], Command]:
    """An option whose value may be in a variable, or in the file that `{variable}_FILE` names.

    An empty variable and an empty file count as not set.
    """

    def read_value() -> str | None:
        try:
            return read_variable(variable) or None
        except SettingsError as error:
            raise click.UsageError(str(error)) from None

    return click.option(flag, envvar=variable, show_envvar=True, default=read_value, help=text)


@click.command("init")
@_secret_option(
    "--mongo-uri",
    "JOBMON_ADMIN_MONGO_URI",
    "The watched database, with a user who may write to it.  [required]",
)
@click.option(
    "--discover",
    "only_discover",
    is_flag=True,
    help="Only read: list the collections that look like queues, with a profile for each.",
)
@click.option(
    "--write",
    "folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="With --discover: write the profiles and settings to files; existing files are kept.",
)
@click.option(
    "--queue",
    metavar="NAME",
    help="Prepare only this queue of JOBMON_QUEUES; by default all queues in the database.",
)
@click.option("--jobs", metavar="NAME", help="Overrides JOBMON_JOBS_COLLECTION.")
@click.option("--attempts", metavar="NAME", help="Overrides JOBMON_ATTEMPTS_COLLECTION.")
@click.option("--replica-set", metavar="NAME/HOST:PORT", help="Start this replica set first.")
@click.option("--reader", metavar="USER", help="Create this read-only user for the web service.")
@_secret_option("--reader-password", "JOBMON_READER_PASSWORD", _SAFER_IN_VARIABLE)
@click.option("--collector", metavar="USER", help="Create this user for the collector.")
@_secret_option("--collector-password", "JOBMON_COLLECTOR_PASSWORD", _SAFER_IN_VARIABLE)
@click.option("--actor", metavar="USER", help="Create this user for the actor: docs/actions.md.")
@_secret_option("--actor-password", "JOBMON_ACTOR_PASSWORD", _SAFER_IN_VARIABLE)
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
    "is_removal",
    is_flag=True,
    help="Remove what `jobmon init` created for this queue: users, roles, indexes.",
)
@click.option("--rollup-db", default="jobmon_rollups", envvar="JOBMON_ROLLUP_DB", show_default=True)
@click.option("--state-db", default="jobmon_state", envvar="JOBMON_STATE_DB", show_default=True)
def init_command(
    *,
    mongo_uri: str | None,
    only_discover: bool,
    folder: Path | None,
    queue: str | None,
    jobs: str | None,
    attempts: str | None,
    replica_set: str | None,
    reader: str | None,
    reader_password: str | None,
    collector: str | None,
    collector_password: str | None,
    actor: str | None,
    actor_password: str | None,
    change_passwords: bool,
    create: bool,
    unique: bool,
    dry_run: bool,
    as_script: bool,
    is_removal: bool,
    rollup_db: str,
    state_db: str,
) -> None:
    """Create the indexes that the monitor needs; also its users and a replica set.

    JOBMON_PROFILE and the mapping settings describe the documents; for several queues, the file in
    JOBMON_QUEUES does. It keeps existing indexes, users and rights, except rights that older
    versions granted too widely; so you can run it again at any time. If the documents do not match
    the settings, it creates nothing but the replica set.
    """
    if only_discover:
        _discover(mongo_uri, {rollup_db, state_db}, jobs, folder)
        return
    if folder is not None:
        raise click.UsageError("--write needs --discover.")
    if mongo_uri is None:
        raise click.UsageError("Missing option '--mongo-uri' (env var: 'JOBMON_ADMIN_MONGO_URI').")
    users = _list_users(
        (UserKind.READER, reader, reader_password),
        (UserKind.COLLECTOR, collector, collector_password),
        (UserKind.ACTOR, actor, actor_password),
    )
    if not (dry_run or as_script or is_removal):
        _require_passwords(users)
    options = InitOptions(
        users=users,
        replica_set=replica_set,
        create=create,
        unique=unique,
        change_passwords=change_passwords,
    )
    run = _choose_action(options, dry_run=dry_run, as_script=as_script, is_removal=is_removal)
    targets: list[InitTarget] = []
    try:
        settings = Settings.for_init(mongo_uri)
        _refuse_options(
            settings, queue, has_collection_option=bool(jobs or attempts), is_removal=is_removal
        )
        settings = replace(
            settings,
            rollup_db=rollup_db,
            state_db=state_db,
            jobs_collection=jobs or settings.jobs_collection,
            attempts_collection=attempts or settings.attempts_collection,
        )
        targets, notes = find_targets(settings, read_variable(OWN_URI) or "", queue)
    except SettingsError as error:
        notes = [refused_setting(error)]
    except SetupError as error:
        notes = [error.finding]
    levels = {_print_finding(note, err=as_script) for note in notes}
    for target in targets:
        if len(targets) > 1:
            name = target.settings.queue
            click.echo(f"\n// {name}" if as_script else click.style(f"\n{name}", bold=True))
        try:
            levels |= run(target)
        except SetupError as error:
            levels.add(_print_finding(error.finding, err=as_script))
    if Level.PROBLEM in levels:
        sys.exit(1)


def _list_users(*options: tuple[UserKind, str | None, str | None]) -> list[User]:
    """The users to create, from (kind, name, password) tuples; skips tuples without a name."""
    users = [
        User(name=name, kind=kind, password=password) for kind, name, password in options if name
    ]
    for first, second in combinations(users, 2):
        if first.name == second.name:
            raise click.UsageError(f"--{first.kind} and --{second.kind} need different names.")
    return users


def _require_passwords(users: list[User]) -> None:
    for user in users:
        if not user.password:
            raise click.UsageError(
                f"--{user.kind} needs a password: set JOBMON_{user.kind.upper()}_PASSWORD."
            )


def _refuse_options(
    settings: Settings, queue: str | None, *, has_collection_option: bool, is_removal: bool
) -> None:
    """Raise UsageError for options that JOBMON_QUEUES excludes, or that need it."""
    if settings.queues is None:
        if queue:
            raise click.UsageError("--queue needs JOBMON_QUEUES.")
    elif has_collection_option:
        raise click.UsageError("--jobs and --attempts: set them in the file in JOBMON_QUEUES.")
    elif is_removal and not queue:
        raise click.UsageError("With JOBMON_QUEUES, --remove needs --queue NAME.")


def _choose_action(
    options: InitOptions, *, dry_run: bool, as_script: bool, is_removal: bool
) -> Callable[[InitTarget], set[Level]]:
    """A function that runs the steps for a queue, prints the findings and returns their levels."""

    def run(target: InitTarget) -> set[Level]:
        settings = target.settings
        queue_options = replace(options, has_own_databases=target.has_own_databases)
        if as_script:
            lines = script_removal(settings) if is_removal else script_init(settings, queue_options)
            click.echo("\n".join(lines))
            return set()
        if is_removal:
            findings = remove(settings, dry_run=dry_run)
        else:
            findings = (preview_init if dry_run else run_init)(settings, queue_options)
        return {_print_finding(finding) for finding in findings}

    return run


def _discover(
    mongo_uri: str | None, own_databases: set[str], collection: str | None, folder: Path | None
) -> None:
    """Print the queues of a deployment; with `folder`, also write their files."""
    source = "JOBMON_ADMIN_MONGO_URI" if mongo_uri else "JOBMON_MONGO_URI"
    try:
        uri = mongo_uri or read_variable("JOBMON_MONGO_URI")
        if not uri:
            raise click.UsageError("--discover needs JOBMON_ADMIN_MONGO_URI or JOBMON_MONGO_URI.")
        discovery = discover(uri, source, own_databases, collection)
        click.echo("\n".join(describe_discovery(discovery)))
        if folder is not None:
            click.echo("")
            for line in write_files(discovery, folder):
                click.echo(line)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except SetupError as error:
        sys.exit(_print_finding(error.finding) is Level.PROBLEM)
