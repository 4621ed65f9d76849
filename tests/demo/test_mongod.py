"""The MongoDB server of the demo and the tests: catches a JOBMON_MONGOD that is ignored."""

from pathlib import Path

import pytest

from jobmon.demo.mongod import Mongod, MongodUnavailableError


def test_server_is_the_program_that_jobmon_mongod_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "mongod"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\n')
    program.chmod(0o755)
    monkeypatch.setenv("JOBMON_MONGOD", str(program))
    with pytest.raises(MongodUnavailableError, match="ended before it was ready"):
        Mongod(tmp_path / "data").start()
    assert f"--dbpath {tmp_path}/data" in (tmp_path / "arguments").read_text()


def test_jobmon_mongod_that_does_not_exist_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JOBMON_MONGOD", str(tmp_path / "mongod"))
    with pytest.raises(MongodUnavailableError, match=r"JOBMON_MONGOD: .* is not an executable"):
        Mongod(tmp_path / "data").start()
