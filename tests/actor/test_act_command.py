"""`jobmon act` and `jobmon actor`: catches a request without a confirmation or a record, and an
exit code that hides a failure."""

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from jobmon.cli import main
from jobmon.diagnosis.error_kinds import classify_error
from jobmon.diagnosis.error_texts import prepare_error
from jobmon.redaction.redactor import Redactor

from ..support.processes import end_process
from ..support.waiting import eventually
from .conftest import ActingQueue


def act(acting: ActingQueue, *options: str, answer: str | None = None) -> Result:
    environment = {
        "JOBMON_MONGO_URI": acting.settings.mongo_uri,
        "JOBMON_STATE_DB": acting.settings.state_db,
        "JOBMON_ROLLUP_DB": acting.settings.rollup_db,
    }
    return CliRunner().invoke(main, ["act", *options], env=environment, input=answer)


def test_act_prints_the_jobs_and_requests_only_what_is_confirmed(acting: ActingQueue) -> None:
    for number in range(7):
        acting.add(f"dead-{number}", "dlq")
    options = ("retry", "--status", "dlq", "--type", "mail", "--reason", "back", "--as", "ada")
    refused = act(acting, *options, answer="n\n")
    assert refused.output.startswith("retry: 7 jobs\n  dead-")
    assert refused.exit_code == 1
    assert acting.requests.list_recent().states == []
    done = act(acting, *options, answer="y\n")
    assert done.exit_code == 0, done.output
    assert "No actor works for this queue" in done.output
    (state,) = acting.requests.list_recent().states
    assert (state.request.by.subject, state.request.expected, state.request.reason) == (
        "ada",
        7,
        "back",
    )
    acting.act()
    assert acting.state(state).counts.done == 7


def test_act_finds_the_jobs_of_a_group_of_errors_and_counts_types(acting: ActingQueue) -> None:
    error = {"code": "E", "message": "no answer", "stack": None}
    acting.add("dead", "dlq", lastError=error)
    kind = classify_error(prepare_error(error, None, Redactor(())))
    assert kind is not None
    done = act(acting, "retry", "--error-group", kind.id, "--reason", "back", "--yes")
    assert done.output.startswith("retry: 1 job\n  dead"), done.output
    done = act(acting, "pause_type", "--type", "mail", "--yes")
    assert done.output.startswith("pause_type: 1 type\n"), done.output


def test_act_with_the_same_key_requests_once(acting: ActingQueue) -> None:
    acting.add("dead", "dlq")
    for _ in range(2):
        assert act(acting, "retry", "--id", "dead", "--yes", "--key", "k1").exit_code == 0
    assert len(acting.requests.list_recent().states) == 1
    other = act(acting, "cancel", "--id", "dead", "--yes", "--key", "k1")
    assert (other.exit_code, "Was used for another request" in other.output) == (1, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("retry", "--yes"), "--id: Give ids, or at least one filter."),
        (
            ("retry", "--status", "dlq", "--yes"),
            "--reason: Required for more than one job or type.",
        ),
        (("reschedule", "--id", "a", "--yes"), "--run-at: Required for reschedule."),
        (("delete", "--id", "a", "--yes"), "JOBMON_ACTIONS_ALLOW_DELETE=true"),
        (("disable", "--id", "a", "--yes"), "ACTION: This queue has no action disable."),
        (("retry", "--id", "a", "--status", "dlq", "--yes"), "Give either ids or filters."),
        (("retry", "--id", "a", "--run-at", "soon"), "'soon' is not a time in ISO 8601"),
    ],
)
def test_act_refuses_with_the_option_that_is_wrong(
    acting: ActingQueue, options: tuple[str, ...], message: str
) -> None:
    refused = act(acting, *options)
    assert refused.exit_code != 0
    assert message in refused.output
    assert acting.requests.list_recent().states == []


def test_act_waits_for_an_actor_in_another_process(acting: ActingQueue) -> None:
    acting.add("dead", "dlq")
    acting.add("waits")
    environment = os.environ | {
        "JOBMON_MONGO_URI": acting.settings.mongo_uri,
        "JOBMON_STATE_DB": acting.settings.state_db,
        "JOBMON_ROLLUP_DB": acting.settings.rollup_db,
    }
    process = subprocess.Popen([sys.executable, "-m", "jobmon.cli", "actor"], env=environment)
    try:
        eventually(lambda: acting.open_requests().has_actor())
        dry = act(acting, "retry", "--id", "dead", "--dry-run", "--wait")
        assert (dry.exit_code, "finished: 1 possible, 0 skipped" in dry.output) == (0, True)
        assert acting.job("dead")["status"] == "dlq"
        done = act(
            acting, "retry", "--id", "dead", "--id", "waits", "--yes", "--wait", "--reason", "b"
        )
        assert "  1 of the given ids will be skipped" in done.output
        assert (done.exit_code, done.output.splitlines()[-1]) == (0, "finished: 1 done, 1 skipped")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert acting.open_requests().has_actor() is False
    finally:
        end_process(process)
