"""The `jobmon` command: its imports, and its help for commands that other modules define."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobmon.cli import OTHER_COMMANDS, SECTIONS, main

CONTEXT = click.Context(main, info_name="jobmon")
# Runs `jobmon`. At its end, prints the top-level packages that it has imported.
PROGRAM = """
import atexit, json, sys
packages = lambda: sorted({name.partition(".")[0] for name in sys.modules})
atexit.register(lambda: print(json.dumps(packages()), file=sys.stderr))
from jobmon.cli import main
main()
"""


def list_imports(*arguments: str, **environment: str) -> set[str]:
    """The top-level packages that `jobmon` with these arguments imports in a new interpreter."""
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    return set(json.loads(process.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["collector", "--help"]]
)
def test_help_imports_click_but_no_slow_library(arguments: list[str]) -> None:
    """Catches an import at the top of `jobmon.cli` that makes every command slower."""
    slow = {"flask", "pymongo", "bson", "marshmallow", "environs", "structlog", "gunicorn"}
    imported = list_imports(*arguments)
    assert "click" in imported
    assert slow.isdisjoint(imported)


def test_collector_imports_no_library_of_the_web_service() -> None:
    """Catches a collector that starts a second later because it imports Flask."""
    imported = list_imports(
        "collector", "--check", JOBMON_MONGO_URI="mongodb://127.0.0.1:1/?connectTimeoutMS=1"
    )
    assert "pymongo" in imported
    libraries = {"flask", "werkzeug", "jwt", "limits", "flask_smorest", "jinja2"}
    assert (libraries | {"prometheus_client"}).isdisjoint(imported)


def test_every_command_is_in_one_section_of_the_help() -> None:
    names_in_sections = [name for names in SECTIONS.values() for name in names]
    assert sorted(names_in_sections) == main.list_commands(CONTEXT)


@pytest.mark.parametrize("name", OTHER_COMMANDS)
def test_listed_help_is_the_first_sentence_of_the_commands_own_help(name: str) -> None:
    """Catches a help text that was changed only in the command's module, not in `jobmon.cli`."""
    command = main.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=100) == OTHER_COMMANDS[name]


def test_argument_that_is_not_utf_8_is_refused_in_one_line() -> None:
    arguments = ["act", "retry", "--id", "job\udce9"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.output.endswith("Error: Argument 4 is not a text in UTF-8.\n")
