"""The JSON of answers: catches a value that makes an answer fail, and an answer that is no JSON."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from jobmon.web.json_text import JSONProvider, dump_json


@pytest.mark.parametrize(
    "value",
    [
        {"b": 1, "a": [None, True, 1.5, "ä\u2028\x00"]},
        {7: "seven", False: "no", None: "nothing"},
        2**63,
        -(2**70),
        {"nested": [{"large": 10**40}]},
    ],
)
def test_json_equals_compact_json_of_the_standard_library(value: Any) -> None:
    assert dump_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_unpaired_surrogate_is_replaced_by_a_question_mark() -> None:
    assert dump_json({"text": "a\ud800b", "large": 2**70}) == f'{{"text":"a?b","large":{2**70}}}'


def test_uuids_and_dates_have_the_json_of_flask_without_spaces() -> None:
    app, uuid = Flask("test"), UUID(int=7)
    app.json = JSONProvider(app)
    now = datetime.now(UTC)
    with app.test_request_context():
        answer = app.json.response({"id": uuid, "at": now})
        assert answer.get_data(as_text=True).count(" ") == 5  # only those of the date
        assert answer.json == json.loads(app.json.dumps({"id": uuid, "at": now}, indent=2))


def test_value_that_json_cannot_represent_raises_type_error() -> None:
    with pytest.raises(TypeError):
        dump_json({"value": object()})
