"""`GET /admin/jobs/suggestions`: what a text in the search box may mean."""

from http import HTTPStatus
from typing import Any

from marshmallow import fields

from jobmon.api.answers import Answer, array, boolean, integer, mapping, nested, string
from jobmon.api.openapi import Routes
from jobmon.api.parameters import Parameters, optional_text
from jobmon.api.search_meanings import MAX_MEANINGS, Meaning, MeaningKind, find_meanings
from jobmon.api.search_text import MAX_TEXT_LENGTH
from jobmon.store.finder import COUNT_UP_TO
from jobmon.web.queues import current_queue

_EXAMPLE = {
    "meta": {"problems": [], "reasons": {}},
    "data": [
        {
            "kind": "jobs",
            "value": "payout.execute",
            "title": "payout.execute",
            "note": "type",
            "text": "type:payout.execute",
            "filters": {"type": ["payout.execute"]},
            "jobs": 120,
            "jobsIsExact": True,
            "isExact": True,
        }
    ],
}


class SuggestionParameters(Parameters):
    """The text of the search box."""

    q = optional_text(
        "The text: words, an id or the beginning of an id, or filters such as `status:dead`, "
        "`type:mail`, `owner:ada`, `worker:w1`, `code:ETIMEDOUT`, `id:a56e`, and `orderId:8425` "
        "for the field `payload.orderId` of JOBMON_SEARCH_FIELDS. Put a value with spaces in "
        "double quotes.",
        max_length=MAX_TEXT_LENGTH,
    )


class SuggestionAnswer(Answer):
    """Something that the text may mean."""

    kind = string(
        "`job`: a job, by its id. `jobs`: the list of jobs with `filters`. `error`: a group of "
        "errors, by its id. `type`, `worker`: a type or a worker, by its name. `key`: the "
        "beginning of a filter.",
        enum=[kind.value for kind in MeaningKind],
    )
    value = string(
        "The id of the job or of the group, the name, or the key; for `jobs`, the same as `title`."
    )
    title = string("A title for people.")
    note = string("A description for people.")
    text = string("The `q` that has only this meaning; null if there is none.", nullable=True)
    filters = mapping(
        fields.List(fields.String()),
        "Parameters of `GET /admin/jobs/queue`, with their values; empty unless `kind` is `jobs`.",
    )
    jobs = integer("Number of matching jobs; null if unknown.", nullable=True)
    jobsIsExact = boolean(
        "Whether `jobs` is exact; otherwise it is null or a lower bound. Jobs that the statistics "
        f"do not count are counted up to {COUNT_UP_TO:,}."
    )
    isExact = boolean(
        "Whether the text is the whole value or name, not only a part of it.", attribute="is_exact"
    )


class SuggestionMeta(Answer):
    """What could not be searched."""

    problems = array(fields.String(), "Sentences about parts of the text that cannot be searched.")
    reasons = mapping(
        fields.String(), "Keys `types`, `workers` and `errors`: why these names were not searched."
    )


class SuggestionList(Answer):
    """What a text may mean."""

    meta = nested(SuggestionMeta, "What could not be searched.")
    data = array(SuggestionAnswer, f"At most {MAX_MEANINGS} meanings, exact meanings first.")


def add_routes(routes: Routes) -> None:
    """Add `/suggestions` to the routes of operators."""

    @routes.get("/suggestions")
    @routes.doc(operationId="listSuggestions")
    @routes.arguments(SuggestionParameters, location="query")
    @routes.response(HTTPStatus.OK, SuggestionList, example=_EXAMPLE)
    def suggestions(query: dict[str, Any]) -> dict[str, Any]:
        """List what a text of the search box may mean.

        It reads the collector's statistics and history, and a bounded number of index keys.
        """
        meanings = find_meanings(current_queue(), query["q"] or "")
        meta = {"problems": meanings.search.problems, "reasons": meanings.reasons}
        return {"meta": meta, "data": list(map(_format_meaning, meanings.found))}


def _format_meaning(meaning: Meaning) -> dict[str, Any]:
    jobs = meaning.jobs
    return vars(meaning) | {
        "jobs": None if jobs is None else jobs.value,
        "jobsIsExact": jobs is not None and jobs.is_exact,
    }
