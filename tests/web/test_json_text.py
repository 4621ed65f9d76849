"""The JSON of answers: catches a value that makes an answer fail, and a text that is not JSON."""

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
def test_json_is_the_same_as_from_the_standard_library_but_without_spaces(value: Any) -> None:
    assert dump_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    assert dump_json({"text": "a\ud800b", "large": 2**70}) == f'{{"text":"a?b","large":{2**70}}}'


def test_uuids_and_dates_have_the_same_json_as_from_flask() -> None:
    app, uuid = Flask("test"), UUID(int=7)
    app.json = JSONProvider(app)
    now = datetime.now(UTC)
    with app.test_request_context():
        answer = app.json.response({"id": uuid, "at": now})
        assert answer.get_data(as_text=True).count(" ") == 5  # all of them in the date
        assert answer.json == json.loads(app.json.dumps({"id": uuid, "at": now}, indent=2))


def test_value_that_json_cannot_express_raises() -> None:
    with pytest.raises(TypeError):
        dump_json({"value": object()})
