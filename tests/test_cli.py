"""The `jobmon` command: what it imports, and the help of commands that it has not imported."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobmon.cli import OTHER_COMMANDS, SECTIONS, main

CONTEXT = click.Context(main, info_name="jobmon")
# Prints the top-level packages that a command has imported when it ends.
RUN = """
import atexit, json, sys
names = lambda: sorted({name.partition(".")[0] for name in sys.modules})
atexit.register(lambda: print(json.dumps(names()), file=sys.stderr))
from jobmon.cli import main
main()
"""


def find_imported(*arguments: str, **environment: str) -> set[str]:
    """The packages that `jobmon` with these arguments imports in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["collector", "--help"]]
)
def test_help_imports_no_library_but_click(arguments: list[str]) -> None:
    """Catches an import at the top of `jobmon.cli` that every command then waits for."""
    others = {"flask", "pymongo", "bson", "marshmallow", "environs", "structlog", "gunicorn"}
    assert others.isdisjoint(find_imported(*arguments))


def test_collector_imports_no_library_of_the_web_service() -> None:
    """Catches a collector that starts a second later because it imports Flask."""
    imported = find_imported(
        "collector", "--check", JOBMON_MONGO_URI="mongodb://127.0.0.1:1/?connectTimeoutMS=1"
    )
    assert "pymongo" in imported
    web = {"flask", "werkzeug", "jwt", "limits", "flask_smorest", "jinja2", "prometheus_client"}
    assert web.isdisjoint(imported)


def test_help_shows_every_command_once() -> None:
    shown = [name for names in SECTIONS.values() for name in names]
    assert sorted(shown) == main.list_commands(CONTEXT)


@pytest.mark.parametrize("name", OTHER_COMMANDS)
def test_listed_help_is_the_first_sentence_of_the_help_of_the_command(name: str) -> None:
    """Catches a help that was changed in the command's module only."""
    command = main.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=100) == OTHER_COMMANDS[name]
