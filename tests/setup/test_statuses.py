"""Statuses of other programs: catches a meaning that no document shows."""

from dataclasses import fields
from typing import Any

import pytest
from pymongo.errors import ExecutionTimeout

from jobmon.setup.collection_sample import CollectionSample, SampledField
from jobmon.setup.status_rules import StateFields
from jobmon.setup.statuses import StatusMeanings


@pytest.mark.parametrize("is_slow", [True, False])
def test_status_whose_documents_cannot_be_read_has_no_meaning(is_slow: bool) -> None:
    """Catches a rare number that is read as queued, because its documents showed no other sign."""

    def resample(_: dict[str, Any]) -> CollectionSample:
        if is_slow:
            raise ExecutionTimeout("too slow")
        return CollectionSample("shop", "jobs")

    empty = CollectionSample("shop", "jobs")
    names = {field.name for field in fields(StateFields)} - {
        "sample",
        "paths",
        "doubts",
        "is_clear",
    }
    state = StateFields(sample=empty, paths=[], **dict.fromkeys(names))
    meanings = StatusMeanings(
        status=SampledField("status"), names=["3"], resample=resample, state=state
    )
    assert meanings.find() == {}
    assert meanings.doubts == ["the status 3 is unknown: it is shown under its own name"]
