"""The commands `jobmon stats`, `jobs`, `job`, `errors`, `top` and `mcp`."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec

import click
from rich.console import Console, RenderableType

from jobmon.settings import SettingsError
from jobmon.terminal.client import AnswerError, ApiClient, expecting_form, open_client
from jobmon.terminal.tables import (
    ERRORS,
    JOBS,
    TYPES,
    describe_meta,
    format_plain,
    show_job,
    show_list,
    show_stats,
)

P = ParamSpec("P")

PIPE_WIDTH = 240  # characters in a line if the output is not a terminal

window_option = click.option(
    "--range", "window", default="1h", show_default=True, help="The window: 15m, 1h, 24h, 7d, …"
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the API's answer, for programs."
)


def client_command(
    function: Callable[Concatenate[ApiClient, P], None],
) -> click.Command:
    """A command with --url and --queue; the function's first argument is a client for these."""

    def run(url: str | None, queue: str | None, *args: P.args, **kwargs: P.kwargs) -> None:
        with _connecting(url, queue) as client:
            function(client, *args, **kwargs)

    update_wrapper(run, function)
    command = click.command()(run)
    command.params += [
        click.Option(
            ["--url"],
            envvar="JOBMON_URL",
            show_envvar=True,
            help="The address of a jobmon; the token is in JOBMON_TOKEN. "
            "Without --url the database in JOBMON_MONGO_URI is read.",
        ),
        click.Option(["--queue"], help="One of several queues, by its name."),
    ]
    return command


@contextmanager
def _connecting(url: str | None, queue: str | None) -> Iterator[ApiClient]:
    """A client whose errors end the command with a message of one line."""
    try:
        with open_client(url, queue) as client:
            yield client
    except AnswerError as error:
        raise click.ClickException(format_plain(error)) from None
    except SettingsError as error:
        raise click.ClickException(str(error)) from None


@client_command
@window_option
@json_option
def stats_command(client: ApiClient, /, *, window: str, as_json: bool) -> None:
    """Print what is due, running, failing and dead, what needs attention, and the types."""
    stats, queue, types = client.get_stats(), client.get_queue(), client.get_types(window)
    if as_json:
        _print_json({"stats": stats, "queue": queue, "types": types})
        return
    with expecting_form(client):
        content = [show_stats(stats, queue), "", show_list(TYPES, types["data"] or ())]
        lines = describe_meta(types["meta"])
    _print(content, lines)


@client_command
@click.option("--status", multiple=True, help="Such as dlq; may be given several times.")
@click.option("--type", multiple=True, help="May be given several times.")
@click.option("--owner", help="The `createdBy` of the jobs.")
@click.option("--condition", help="due, scheduled or expired.")
@click.option("--error-code", help="The code of the last error.")
@click.option("--error-group", help="The id of a group of `jobmon errors`.")
@click.option("--worker", help="Jobs that this worker runs or ran.")
@click.option("--created-from", help="In ISO 8601.")
@click.option("--created-to", help="In ISO 8601.")
@click.option("--sort", help="Such as -createdAt.")
@click.option("--limit", "per_page", default=20, show_default=True, type=click.IntRange(1, 100))
@click.option("--cursor", help="The cursor of the next page, as printed below the previous page.")
@json_option
def jobs_command(client: ApiClient, /, *, as_json: bool, **filters: Any) -> None:
    """Print the jobs that match the filters of the API; without --sort the newest first."""
    answer, owner_reason = client.list_jobs(**filters)
    if as_json:
        _print_json(answer)
        if owner_reason:
            click.echo(format_plain(owner_reason), err=True)
        return
    with expecting_form(client):
        content, meta = [show_list(JOBS, answer["data"])], answer["meta"]
        lines = [_count_jobs(len(answer["data"]), meta), *describe_meta(meta)]
        if owner_reason:
            lines.append(format_plain(owner_reason))
        if cursor := meta.get("next_cursor"):
            lines.append(f"The next page: --cursor {format_plain(cursor)}")
    _print(content, lines)


def _count_jobs(count: int, meta: Mapping[str, Any]) -> str:
    """How many jobs a page has, and how many match."""
    total = meta.get("total")
    if total is None:
        return f"{count:,} of an unknown number of jobs"
    at_least = "" if meta.get("total_is_exact", True) else "at least "
    return f"{count:,} of {at_least}{total:,} jobs"


@client_command
@click.argument("job_id", metavar="ID")
@json_option
def job_command(client: ApiClient, /, *, job_id: str, as_json: bool) -> None:
    """Print one job: why it does not run, its error and its attempts."""
    job = client.get_job(job_id)
    if as_json:
        _print_json(job)
        return
    with expecting_form(client):
        content = [show_job(job)]
    _print(content)


@client_command
@window_option
@click.option("--type", help="Only errors of this type.")
@click.option("--worker", help="Only errors of this worker.")
@click.option("--limit", "per_page", default=20, show_default=True, type=click.IntRange(1, 100))
@json_option
def errors_command(client: ApiClient, /, *, window: str, as_json: bool, **filters: Any) -> None:
    """Print the errors of a window, in groups with the same cause."""
    answer = client.get_errors(range=window, **filters)
    if as_json:
        _print_json(answer)
        return
    with expecting_form(client):
        groups, meta = answer["data"], answer["meta"]
        content, lines = [], ["groups: unknown"]
        if groups is not None:
            content = [show_list(ERRORS, groups)]
            lines = [f"{len(groups):,} of {meta['total']:,} groups"]
        lines += describe_meta(meta)
    _print(content, lines)


@client_command
@window_option
def top_command(client: ApiClient, /, *, window: str) -> None:
    """Watch the queue in the terminal: counts, types, errors, workers, jobs. Press ? for keys."""
    from jobmon.terminal.top import Top  # slow to import

    Top(client, window).run()


@client_command
def mcp_command(client: ApiClient, /) -> None:
    """Answer an assistant's questions over the Model Context Protocol.

    It uses standard input and output. It only reads, with the permissions of the token.
    """
    from jobmon.terminal.assistant import make_server  # needs the package `mcp`, an extra

    make_server(client).run("stdio")


def _print_json(answer: Any) -> None:
    """Print an answer as JSON, with escapes for texts that could control the terminal."""
    text = json.dumps(answer, indent=2, ensure_ascii=False)
    is_plain = text.replace("\n", "").isprintable()
    click.echo(text if is_plain else json.dumps(answer, indent=2))


def _print(content: Iterable[RenderableType], lines: Iterable[str] = ()) -> None:
    """Print tables and texts, then plain lines, which are never wrapped."""
    # In a pipe the lines can be long, so that programs can read a row as one line.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    for part in content:
        console.print(part)
    for line in lines:
        click.echo(line)
