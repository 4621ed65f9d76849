"""`jobmon act` and `jobmon actor`: catches a request without a confirmation or a record, and an
exit code that hides a failure."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from click.testing import CliRunner, Result
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from jobmon.actions.preview import ActionPreviewer
from jobmon.actions.requests import ActionRequests
from jobmon.cli import main
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.redaction.redactor import Redactor
from jobmon.store.failures import UNAUTHORIZED

from ..support.processes import end_process
from ..support.waiting import eventually
from .conftest import ActingQueue


def make_environment(queue: ActingQueue) -> dict[str, Any]:
    return {
        "JOBMON_MONGO_URI": queue.settings.mongo_uri,
        "JOBMON_STATE_DB": queue.settings.state_db,
        "JOBMON_ROLLUP_DB": queue.settings.rollup_db,
    }


def run_act(queue: ActingQueue, *options: str, user_input: str | None = None) -> Result:
    command = ["act", *options]
    return CliRunner().invoke(main, command, env=make_environment(queue), input=user_input)


def test_act_prints_the_jobs_and_files_a_request_only_if_confirmed(queue: ActingQueue) -> None:
    for index in range(7):
        queue.add(f"dead-{index}", "dlq")
    options = ("retry", "--status", "dlq", "--type", "mail", "--reason", "back", "--as", "ada")
    declined = run_act(queue, *options, user_input="n\n")
    assert declined.output.startswith("retry: 7 jobs\n  dead-")
    assert declined.exit_code == 1
    assert queue.requests.list_recent().states == []
    confirmed = run_act(queue, *options, user_input="y\n")
    assert confirmed.exit_code == 0, confirmed.output
    assert "No actor works for this queue" in confirmed.output
    (state,) = queue.requests.list_recent().states
    assert (state.request.by.subject, state.request.expected, state.request.reason) == (
        "ada",
        7,
        "back",
    )
    queue.act()
    assert queue.state(state).counts.done == 7


def test_act_counts_jobs_of_an_error_group_and_types(queue: ActingQueue) -> None:
    error = {"code": "E", "message": "no answer", "stack": None}
    queue.add("dead", "dlq", lastError=error)
    kind = classify_error(prepare_error(error, None, Redactor(())))
    assert kind is not None
    result = run_act(queue, "retry", "--error-group", kind.id, "--reason", "back", "--yes")
    assert result.output.startswith("retry: 1 job\n  dead"), result.output
    result = run_act(queue, "pause_type", "--type", "mail", "--yes")
    assert result.output.startswith("pause_type: 1 type\n"), result.output


def test_act_prints_no_control_characters_of_jobs(queue: ActingQueue) -> None:
    """Catches a type of job that changes the terminal of the person who is asked to confirm."""
    queue.add("dead", "dlq", type="mail\x1b[2J\n")
    result = run_act(queue, "retry", "--id", "dead", "--dry-run")
    assert "  dead  mail\\x1b[2J\\n  dlq  " in result.output


def test_act_refuses_a_name_of_several_queues(tmp_path: Path) -> None:
    """Catches a request that is filed for the first of them without a word."""
    queues = tmp_path / "queues.toml"
    queues.write_text("[mails]\ncollections = ['new', 'old']\n")
    environment = {"JOBMON_MONGO_URI": "mongodb://127.0.0.1/app", "JOBMON_QUEUES": str(queues)}
    result = CliRunner().invoke(main, ["act", "retry", "--queue", "mails"], env=environment)
    assert (result.exit_code, result.output) == (
        1,
        "Error: --queue: mails has several queues. Name one: mails.new, mails.old\n",
    )


def test_act_with_the_same_key_files_one_request(queue: ActingQueue) -> None:
    queue.add("dead", "dlq")
    for _ in range(2):
        assert run_act(queue, "retry", "--id", "dead", "--yes", "--key", "k1").exit_code == 0
        queue.act()  # then the second command counts no job
    assert len(queue.requests.list_recent().states) == 1
    result = run_act(queue, "cancel", "--id", "dead", "--yes", "--key", "k1")
    assert (result.exit_code, "Was used for another request" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("retry", "--yes"), "--id: Give ids, or at least one filter."),
        (
            ("retry", "--status", "dlq", "--yes"),
            "--reason: Required for more than one job or type.",
        ),
        (("reschedule", "--id", "a", "--yes"), "--run-at: Required for reschedule."),
        (
            ("retry", "--status", "dead", "--reason", "b", "--yes"),
            "--status: No job with this status can be changed by retry.",
        ),
        (("pause_type", "--yes"), "--type: Required for pause_type."),
        (("pause_type", "--type", "a", "--type", "a", "--yes"), "--type: A type is given twice."),
        (("delete", "--id", "a", "--yes"), "JOBMON_ACTIONS_ALLOW_DELETE=true"),
        (("disable", "--id", "a", "--yes"), "ACTION: This queue has no action disable."),
        (("retry", "--id", "a", "--status", "dlq", "--yes"), "Give either ids or filters."),
        (("retry", "--id", "a", "--run-at", "soon"), "'soon' is not a time in ISO 8601"),
    ],
    ids=[
        "no target",
        "no reason",
        "no time",
        "unsuitable status",
        "no type",
        "type twice",
        "deletion is off",
        "action of another queue",
        "ids and filters",
        "bad time",
    ],
)
def test_act_with_a_bad_option_has_a_message_and_files_nothing(
    queue: ActingQueue, options: tuple[str, ...], message: str
) -> None:
    result = run_act(queue, *options)
    assert result.exit_code != 0
    assert message in result.output
    assert queue.requests.list_recent().states == []


@pytest.mark.parametrize(("options", "exit_code"), [((), 0), (("--wait",), 1)])
def test_act_reports_a_stored_request_as_stored_if_its_progress_is_unknown(
    queue: ActingQueue,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    exit_code: int,
) -> None:
    """Catches "not requested" for a stored request: the operator would request it again."""
    queue.add("dead", "dlq")
    monkeypatch.setattr(ActionRequests, "has_actor", Mock(side_effect=AutoReconnect("lost")))
    result = run_act(queue, "retry", "--id", "dead", "--yes", *options)
    assert result.exit_code == exit_code
    (state,) = queue.requests.list_recent().states
    assert f"requested: {state.request.id} (waiting)" in result.output
    assert "The request is stored, but its progress is unknown: " in result.output
    assert "not requested" not in result.output


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (
            (ActionRequests, "file"),
            OperationFailure("", UNAUTHORIZED),
            "not requested: the user of JOBMON_MONGO_URI has no right to store requests",
        ),
        (
            (ActionRequests, "file"),
            AutoReconnect("lost"),
            "it is unknown whether the request is stored: ",
        ),
        ((ActionPreviewer, "preview"), OperationFailure("", UNAUTHORIZED), "not requested: "),
    ],
    ids=["no right", "connection lost", "no right to read"],
)
def test_act_whose_database_fails_names_what_failed(
    queue: ActingQueue,
    monkeypatch: pytest.MonkeyPatch,
    method: tuple[type, str],
    error: PyMongoError,
    message: str,
) -> None:
    queue.add("dead", "dlq")
    monkeypatch.setattr(*method, Mock(side_effect=error))
    result = run_act(queue, "retry", "--id", "dead", "--yes")
    assert result.exit_code == 1
    assert f"Error: {message}" in result.output
    assert ("right to store requests" in result.output) is ("right to store" in message)


def test_act_for_too_many_jobs_names_no_option_that_does_not_exist(
    queue: ActingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(2):
        queue.add(f"dead-{index}", "dlq")
    monkeypatch.setattr("jobmon.actions.preview.MAX_JOBS", 1)
    monkeypatch.setattr("jobmon.store.list_count.COUNT_EXACTLY_UP_TO", 1)
    result = run_act(queue, "retry", "--status", "dlq", "--reason", "back", "--yes")
    assert result.output.startswith("Error: not requested: More than 1 jobs match"), result.output


def test_act_waits_for_an_actor_in_another_process(queue: ActingQueue) -> None:
    queue.add("dead", "dlq")
    queue.add("waits")
    command = [sys.executable, "-m", "jobmon.cli", "actor"]
    process = subprocess.Popen(command, env=os.environ | make_environment(queue))
    try:
        eventually(lambda: queue.open_requests().has_actor())
        dry_run = run_act(queue, "retry", "--id", "dead", "--dry-run", "--wait")
        assert (dry_run.exit_code, "finished: 1 possible, 0 skipped" in dry_run.output) == (0, True)
        assert queue.job("dead")["status"] == "dlq"
        result = run_act(
            queue, "retry", "--id", "dead", "--id", "waits", "--yes", "--wait", "--reason", "b"
        )
        assert "  1 of the given ids will be skipped" in result.output
        assert (result.exit_code, result.output.splitlines()[-1]) == (
            0,
            "finished: 1 done, 1 skipped",
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert queue.open_requests().has_actor() is False
    finally:
        end_process(process)
