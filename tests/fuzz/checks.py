"""Checks that answers must pass for all documents and requests; else they raise AssertionError."""

import csv
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html.parser import HTMLParser
from itertools import chain
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

from bson import ObjectId
from bson.errors import InvalidBSON
from bson.raw_bson import RawBSONDocument
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient
from pymongo.errors import BulkWriteError
from werkzeug.datastructures import Headers
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse, run_wsgi_app

from jobmon.app import create_app
from jobmon.collector import segments as segments_module
from jobmon.collector.segments import SegmentMap
from jobmon.demo.mongod import Mongod
from jobmon.rollup import series as series_module
from jobmon.rollup.activity import count_activity
from jobmon.rollup.buckets import DAY, HOUR, dump_tallies, load_tallies
from jobmon.rollup.stats_document import dump_counts, load_counts
from jobmon.settings import Settings
from jobmon.setup.indexes import create_indexes
from jobmon.store.cursor import NEWEST_FIRST, OLDEST_FIRST
from jobmon.store.indexes import JOB_ID
from jobmon.web.auth import SESSION_COOKIE

from ..conftest import NOW, SECRET, Api
from ..support.commands import database_uri
from . import documents
from .documents import PLANTED
from .requests import Request

PATHS_WITH_TOKEN = ("/job", "/jobs", "/admin/jobs/", "/metrics")  # routes that need a token
# The statuses that answers can have.
STATUSES = {200, 206, 302, 303, 304, 308, 400, 401, 403, 404, 405, 413, 415, 416, 422, 429, 503}
VOID_ELEMENTS = {"meta", "link", "input", "br", "img", "hr"}


class _BalancedPage(HTMLParser):
    """Parses a page; AssertionError if an element is not closed or has an event handler."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open_tags: list[str] = []
        self.tag_counts: Counter[str] = Counter()
        self.feed(page)
        self.close()
        assert not self.open_tags, f"not closed: {self.open_tags}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag_counts[tag] += 1
        assert not any(name.startswith("on") for name, _ in attrs), f"{tag} with {attrs}"
        if tag not in VOID_ELEMENTS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag_counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "li") and self.open_tags and self.open_tags[-1] != tag:
            return
        assert self.open_tags, f"</{tag}> closes nothing"
        assert self.open_tags[-1] == tag, f"</{tag}> in <{self.open_tags[-1]}>"
        self.open_tags.pop()


def parse_strictly(text: str) -> Any:
    """Parse JSON; AssertionError for NaN and for a number that other parsers read as infinite.

    All numbers become floats.
    """

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    def parse_finite(digits: str) -> float:
        number = float(digits)
        assert abs(number) != float("inf"), f"{digits[:40]} is infinite to most parsers"
        return number

    return json.loads(text, parse_constant=refuse, parse_float=parse_finite, parse_int=parse_finite)


class Log(logging.Handler):
    """Collects the lines of the loggers to which it is added."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def check(self) -> None:
        """Raise AssertionError if a line has a secret or a traceback; else forget the lines."""
        for line in self.lines:
            assert PLANTED not in line, line[:2_000]
            assert SECRET not in line, line[:2_000]
            assert "Traceback" not in line, line[-4_000:]
        self.lines.clear()


@contextmanager
def captured_logs() -> Iterator[Log]:
    """A log that collects the lines of all loggers during the block."""
    log, root = Log(), logging.getLogger()
    root.addHandler(log)
    yield log
    root.removeHandler(log)


Counts = set[tuple[str, str, float]]  # of a status, a type and the number of jobs with both


def _flatten_stats(stats: dict[str, Any]) -> Counts:
    return {
        (status, job_type, count)
        for job_type, by_status in stats["typeCounts"].items()
        for status, count in by_status.items()
    }


class FuzzedService:
    """The service over its own database, which is filled again for each batch of documents."""

    def __init__(
        self, mongod: Mongod, mongo: MongoClient[dict[str, Any]], name: str, *, indexed: bool
    ) -> None:
        self.database = mongo[name]
        self._indexed = indexed
        uri = database_uri(mongod, name)
        self.settings = Settings(
            mongo_uri=uri, jwt_secret_key=SECRET, stats_ttl_ms=0, rollup_db=f"{name}_rollups"
        )
        self._address = mongod.address
        self.app = create_app(self.settings)
        self.api = Api(self.app)
        self.connection = self.app.extensions["jobmon_connection"]
        self.tokens = {name: self.api.token(name, "user", 86_400) for name in documents.OWNERS}
        self.tokens["admin"] = self.api.token("root", "admin", 86_400)
        self.browser = self.app.test_client()
        self.browser.set_cookie(
            SESSION_COOKIE, self.tokens["admin"], path="/dashboard", domain="localhost"
        )

    def close(self) -> None:
        self.database.client.drop_database(self.database.name)
        self.connection.client.close()

    def fill(self, jobs: Iterable[RawBSONDocument], attempts: Iterable[RawBSONDocument]) -> int:
        """Replace all documents with these; returns how many of them the server accepted."""
        # The service caches for a second which fields have no arrays: forget these fields.
        self.connection.jobs._without_arrays.clear()
        for collection in (self.database.jobs, self.database.job_attempts):
            collection.drop()  # deleting the documents would leave multikey indexes
        if self._indexed:
            self.database.jobs.create_index(JOB_ID)
            create_indexes(self.connection)
        accepted = 0
        for collection, candidates in (
            (self.database.jobs, jobs),
            (self.database.job_attempts, attempts),
        ):
            if batch := list(candidates):
                # The server refuses an _id that exists or is invalid, and arrays in two fields of
                # an index. Its reply repeats the value, which the driver cannot always decode.
                with suppress(BulkWriteError, InvalidBSON):
                    collection.insert_many(batch, ordered=False)
            accepted += collection.count_documents({})
        return accepted

    def fill_from(self, seeds: Sequence[int]) -> int:
        """Fill with a job for each seed, and two attempts with its id if 3 divides the seed.

        Some jobs have a malformed id, so that their attempts have no job. Returns the same as
        `fill`. The priority of a job is its index, by which checks find it.
        """
        jobs, attempts = [], []
        for index, seed in enumerate(seeds):
            dice = documents.Dice(f"jobId {seed}")
            name = documents.text(f"job-{index}")
            job_id = name if dice.random() < 0.8 else dice.draw_value()
            leading_fields = {"_id": documents.draw_id(seed), "jobId": job_id}
            leading_fields["priority"] = documents.int32(index)
            jobs.append(documents.build_document(documents.draw_job(seed), **leading_fields))
            if seed % 3 == 0:
                for attempt_seed in (seed, seed + 2):
                    attempt = documents.draw_attempt(attempt_seed)
                    attempts.append(documents.build_document(attempt, jobId=name))
        return self.fill(jobs, attempts)

    def get(
        self, path: str, user: str = "admin", status: int = 200, /, **query: Any
    ) -> TestResponse:
        """GET with the token of `user`; asserts that the answer has this status and no secret.

        The parameters before `/` are positional, because `query` can have the filter `status`.
        """
        answer = self.api.get(path, token=self.tokens[user], **query)
        assert answer.status_code == status, f"{path} {query}: {answer.status} {answer.text[:500]}"
        assert PLANTED not in answer.text, f"{path} {query} shows a secret"
        return answer

    def get_page(self, path: str, **query: Any) -> None:
        """GET a page with the session of an admin, and check its elements."""
        answer = self.browser.get(path, query_string=query)
        assert answer.status_code == 200, f"{path} {query}: {answer.status} {answer.text[:500]}"
        assert answer.content_type == "text/html; charset=utf-8"
        assert PLANTED not in answer.text, f"{path} {query} shows a secret"
        page = _BalancedPage(answer.text)
        assert not page.tag_counts["img"]
        assert page.tag_counts["script"] <= 6

    def check(self, *, per_page: int = 7) -> None:
        """Run all checks on the current documents."""
        self.check_details()
        self.check_lists(per_page)
        self.check_exports()
        self.check_stats()
        self.check_pages()

    def send(self, request: Request) -> int:
        """Send a request and check its answer; returns the status."""
        environ = request.build_environ(self.tokens)
        parts, status_line, headers = run_wsgi_app(self.app, environ, buffered=True)
        body, status = b"".join(parts), int(status_line.partition(" ")[0])
        self._check_answer(request, status, headers, body)
        return status

    def _check_answer(self, request: Request, status: int, headers: Headers, body: bytes) -> None:
        summary = f"{request}: {status} {body[:300]!r}"
        path = request.path.decode(errors="replace")
        routed_path = f"/{path.lstrip('/')}"  # `//` is the page of `/`
        is_page = routed_path in ("/", "/docs") or routed_path.startswith("/dashboard")
        assert status in STATUSES, summary
        for name, value in headers:
            assert not set("\r\n\0") & set(name + value), f"{name}: {summary}"
        for hidden in (PLANTED, SECRET, "Traceback", self._address, "pymongo"):
            assert hidden.encode() not in body, f"{hidden} in {summary}"
            assert hidden not in str(headers), f"{hidden} in the headers of {summary}"
        if status == 304 or request.method == "HEAD":
            assert not body, summary
        elif body and "Content-Encoding" not in headers:
            mimetype, _ = parse_options_header(headers["Content-Type"])
            assert re.fullmatch("[a-z]+/[a-z0-9.+-]+", mimetype), summary
            if mimetype == "application/json":
                parse_strictly(body.decode())
            elif mimetype == "text/html" and status not in (302, 303, 308):
                _BalancedPage(body.decode())  # the pages of redirects are werkzeug's
        if request.has_large_body:
            assert status == 413, summary  # the service checks the size first
        elif request.has_cut_body:
            assert status == 400, summary
        elif not request.has_valid_token and path.startswith(PATHS_WITH_TOKEN):
            assert status in (401, 404, 405, 308), summary
        if status < 400 or is_page or request.method == "HEAD":
            return
        assert headers["Content-Type"] == "application/json", summary
        if "Content-Encoding" not in headers:
            error = json.loads(body)
            assert list(error) == ["error"], summary
            assert {"code", "message"} <= set(error["error"]) <= {"code", "message", "details"}, (
                summary
            )
            code = error["error"]["code"]
            assert status != 503 or code == "collector_unavailable", summary
            assert (status == 413) == (code == "request_entity_too_large"), summary
        assert (status == 401) == ("WWW-Authenticate" in headers), summary
        assert status not in (429, 503) or int(headers["Retry-After"]) > 0, summary

    def check_details(self) -> None:
        """Check each job with a unique id: an admin and its owner get it, other owners do not."""
        for job in self._jobs_with_unique_id():
            path = f"/jobs/{quote(job['jobId'], safe='')}"
            detail = parse_strictly(self.get(path).text)
            assert len(detail) == 22, list(detail)  # fields
            explanation = detail.pop("explanation")
            assert len(explanation) == 8, explanation  # fields
            assert isinstance(detail["attemptCount"], float), detail["attemptCount"]
            created_by = job.get("createdBy")
            for owner in documents.OWNERS:
                # An array with the owner's name does not count.
                is_owner = isinstance(created_by, str | ObjectId) and str(created_by) == owner
                answer = self.get(path, owner, 200 if is_owner else 403)
                if is_owner:
                    owners_detail = parse_strictly(answer.text)
                    assert owners_detail.pop("explanation")["code"] == explanation["code"]
                    assert owners_detail == detail

    def _jobs_with_unique_id(self) -> Iterator[dict[str, Any]]:
        """The jobs whose id is valid UTF-8, not empty, and the id of no other job."""
        query = {"jobId": {"$type": "string"}}
        jobs = list(self.connection.jobs.collection.find(query, {"jobId": 1, "createdBy": 1}))
        counts = Counter(str(job["jobId"]) for job in jobs)
        for job in jobs:
            # The query also finds an array with a string in it.
            job_id = job["jobId"]
            if type(job_id) is str and job_id and "\ufffd" not in job_id and counts[job_id] == 1:
                yield job

    def check_lists(self, per_page: int) -> None:
        """Check that filtered lists have the jobs that MongoDB finds, in both orders.

        The pages are also read backwards, by the cursors of previous pages.
        """
        no_array = {"$not": {"$type": "array"}}
        first_owner = {"$in": ["ada"]} | no_array
        second_owner = {"$in": [documents.OWNERS[1], documents.OID]} | no_array
        id_range = {"$gte": "job-1", "$lt": "job-1\U0010ffff"}
        # The parameters of a list, and MongoDB's query for the same jobs.
        cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {}),
            ({"status": "dlq"}, {"status": {"$in": ["dlq"]}}),
            (
                {"status": ["dlq", "queued", "odd"], "type": ["email.send", "x"]},
                {
                    "status": {"$in": ["dlq", "queued", "odd"]},
                    "type": {"$in": ["email.send", "x"]},
                },
            ),
            ({"type": "email.send"}, {"type": {"$in": ["email.send"]}}),
            ({"owner": "ada"}, {"createdBy": first_owner}),
            (
                {"owner": documents.OWNERS[1], "status": "failed"},
                {"createdBy": second_owner, "status": "failed"},
            ),
            ({"error_code": "E1"}, {"lastError.code": "E1"}),
            ({"job_id": "job-1"}, {"jobId": id_range}),
            (
                {"created_from": NOW.isoformat(), "created_to": (NOW + HOUR).isoformat()},
                {"createdAt": {"$gte": NOW, "$lt": NOW + HOUR}},
            ),
        ]
        for parameters, query in cases:
            self._check_list("/admin/jobs/queue", "admin", parameters, query, per_page)
        for name, owner_query in zip(documents.OWNERS, (first_owner, second_owner), strict=True):
            self._check_list("/jobs", name, {}, {"createdBy": owner_query}, per_page)

    def _check_list(
        self, path: str, user: str, parameters: dict[str, Any], query: dict[str, Any], per_page: int
    ) -> None:
        for sort, order in (("-createdAt", NEWEST_FIRST), ("createdAt", OLDEST_FIRST)):
            jobs = self.connection.jobs.collection.find(query, {"priority": 1, "_id": 0})
            expected = [job["priority"] for job in jobs.sort(order)]
            answer = self._read_list(path, user, {**parameters, "sort": sort, "per_page": per_page})
            assert answer == expected, (
                f"{path} {parameters} {sort}: {self._compare([answer], [expected])}"
            )

    def _compare(self, listed: list[list[int]], expected: list[list[int]]) -> Any:
        """The jobs at wrong positions, the jobs of only one list, and the documents of some.

        The lists have pages of the jobs' priorities.
        """
        listed_jobs, expected_jobs = list(chain(*listed)), list(chain(*expected))
        pairs = zip(listed_jobs, expected_jobs, strict=False)
        misplaced = [priority for pair in pairs if pair[0] != pair[1] for priority in pair]
        in_one_list = set(expected_jobs) ^ set(listed_jobs)
        jobs = self.connection.jobs.collection.find(
            {"priority": {"$in": [*misplaced[:4], *in_one_list]}}, {"priority": 1, "createdAt": 1}
        )
        return misplaced, in_one_list, list(jobs)

    def _read_list(self, path: str, user: str, query: dict[str, Any]) -> list[int]:
        """Read a list page by page to its end and back; returns the jobs' priorities in order."""
        pages = [parse_strictly(self.get(path, user, **query).text)]
        while cursor := pages[-1]["meta"]["next_cursor"]:
            assert len(pages) < 60, "the list does not end"
            pages.append(parse_strictly(self.get(path, user, **query, cursor=cursor).text))
        pages_back = [pages[-1]]
        while cursor := pages_back[-1]["meta"]["prev_cursor"]:
            assert len(pages_back) <= len(pages), f"{query}: the list does not end backwards"
            pages_back.append(parse_strictly(self.get(path, user, **query, cursor=cursor).text))
        forwards = [[job["priority"] for job in page["data"]] for page in pages]
        backwards = [[job["priority"] for job in page["data"]] for page in pages_back[::-1]]
        assert backwards == forwards, (
            f"{path} {query}: the list differs backwards: {self._compare(backwards, forwards)}"
        )
        priorities = [priority for page in forwards for priority in page]
        assert pages[0]["meta"]["total"] == len(priorities), f"{query}: {pages[0]['meta']}"
        return priorities

    def check_exports(self) -> None:
        """Check that both exports can be parsed, and have the same jobs, each job once."""
        count = self.database.jobs.count_documents({})
        text = self.get("/admin/jobs/queue", format="csv").text
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        assert [*rows.pop().values()][:2] == ["#end", str(count)]
        assert len(rows) == count
        for row in rows:
            assert None not in row, row
            assert None not in row.values(), row
            assert not any(cell[:1] in ("=", "+", "@", "\t", "\r") for cell in row.values()), row
        lines = self.get("/admin/jobs/queue", format="ndjson").text.split("\n")
        assert lines.pop() == ""
        *jobs, end = (parse_strictly(line) for line in lines)
        assert end == {"end": True, "rows": count}
        assert [int(row["priority"]) for row in rows] == [job["priority"] for job in jobs]
        assert len(jobs) == count

    def check_stats(self) -> None:
        """Check that live counts, series and counts of segments (even after changes) agree."""
        count = self.database.jobs.count_documents({})
        stats = parse_strictly(self.get("/admin/jobs/stats").text)
        assert stats["totalJobs"] == count
        assert sum(stats["statusCounts"].values()) == count
        assert sum(sum(counts.values()) for counts in stats["typeCounts"].values()) == count
        with patch.multiple(segments_module, SEGMENT_JOBS=3, SPLIT_ABOVE=6, MERGE_BELOW=1):
            self._check_segments(stats)
        if self._indexed:  # activity is counted only with indexes
            # The service must not use its cached counts of the previous documents.
            with patch.object(series_module, "LIVE_TTL_S", 1e-6):
                self._check_series()
        metrics = self.get("/metrics").text
        families = {family.name: family for family in text_string_to_metric_families(metrics)}
        assert families["jobmon_database_up"].samples[0].value == 1

    def _check_series(self) -> None:
        window = {"from": (NOW - HOUR).isoformat(), "to": (NOW + HOUR).isoformat()}
        series = parse_strictly(self.get("/admin/jobs/timeseries", **window).text)
        types = parse_strictly(self.get("/admin/jobs/types", **window).text)
        for name in ("enqueued", "succeeded", "failed", "dlq"):
            total = sum(step[name] or 0 for step in series["data"])
            assert total == sum(row[name] for row in types["data"]), name
        created = {"createdAt": {"$gte": NOW - HOUR, "$lt": NOW + HOUR, "$not": {"$type": "array"}}}
        enqueued = sum(step["enqueued"] or 0 for step in series["data"])
        assert enqueued == self.database.jobs.count_documents(created), enqueued
        activity = count_activity(self.connection, NOW - 2 * DAY, NOW + 2 * DAY, HOUR)
        for tallies in activity.values():
            stored = self.database.client[f"{self.database.name}_rollups"].stored
            stored.insert_one({"_id": 1, "types": dump_tallies(tallies)})
            assert load_tallies(stored.find_one({"_id": 1})["types"]) == tallies  # type: ignore[index]
            stored.drop()

    def _check_segments(self, stats: dict[str, Any]) -> None:
        def flatten(totals: Any) -> Counts:
            counts = load_counts(dump_counts(totals))
            return {(status, job_type, count) for (status, job_type), count in counts.items()}

        segments = SegmentMap(self.connection.jobs)
        segments.build(lambda _: None)
        difference = flatten(segments.totals) ^ _flatten_stats(stats)
        assert not difference, f"the collector counts differently: {difference}"
        ids = [job["_id"] for job in self.connection.jobs.collection.find({}, {"_id": 1})]
        changed = self.database.jobs.update_many(
            {"priority": {"$mod": [2, 0]}}, {"$set": {"status": "changed"}}
        )
        deleted = self.database.jobs.delete_many({"priority": {"$mod": [5, 0]}})
        assert changed.matched_count + deleted.deleted_count or len(ids) < 3
        for job_id in ids:
            segments.mark_job(job_id)
        segments.recount()
        loaded = SegmentMap(self.connection.jobs)
        loaded.load(iter(segments.dump()), lambda: None)
        difference = flatten(segments.totals) ^ _flatten_stats(
            parse_strictly(self.get("/admin/jobs/stats").text)
        )
        assert not difference, f"the collector missed a change: {difference}"
        assert loaded.totals == segments.totals

    def check_pages(self) -> None:
        """Check that the overview, lists and jobs' pages are well-formed and show no secret."""
        self.get_page("/dashboard")
        self.get_page("/dashboard", range="24h", by="-done", text="e")
        for query in ({}, {"sort": "createdAt"}, {"status": "dlq"}):
            self.get_page("/dashboard/jobs", **query)
        for job in self._jobs_with_unique_id():
            self.get_page(f"/dashboard/jobs/{quote(job['jobId'], safe='')}")
