"""A sample of a collection's documents: their fields, with types and values.

It keeps no document, no long text, and no texts of a field that has many different texts.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson import Code, DatetimeMS, ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import OperationFailure

from jobmon.profiles.schema import profile_schema
from jobmon.profiles.stored_values import PER_SECOND
from jobmon.store.decoding import decode
from jobmon.store.labels import label
from jobmon.store.mapping import Document

HALF_SAMPLE = 100  # a sample has this many of the newest documents, and this many random ones
_MAX_TIME_MS = 1_500
_MAX_BYTES = 8 * 1_024 * 1_024
_MAX_PATHS = 300  # documents that use ids as keys would have many more
_MAX_DEPTH = 3
_MAX_DISTINCT = 40  # values of a field, and keys of an embedded document
_MAX_VALUE_LENGTH = 40
_PATH_PATTERN = profile_schema()["$defs"]["path"]["pattern"]
# jobmon can search by a date that is a text only if it has this form.
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|\+00:00)?")
_UNSET = "value in place of no date"
_JSON, _EMPTY, _OTHER_DATE = "JSON text", "empty text", "date in another form"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
WITHOUT_ZONE = "iso without a time zone"  # counted in addition to `iso`
# In seconds since 1970: a number between these may be a date from 2001 to 2100.
_FIRST_DATE_S, _LAST_DATE_S = 978_307_200, 4_102_444_800


@dataclass
class SampledField:
    """The values that the documents of a sample have at a path.

    `present`: how many documents have the path. `documents`: how many have a value that is not null
    there. `types`: the number of values by `type_name`. `forms`: the number of dates by their form
    (`date`, `iso`, `seconds`, …), and of JSON texts. `value_counts`: how often each value occurs,
    by its label; None with more than 40 different values, or with a value that is long, or no text,
    number or boolean.
    `distinct`: hashes of the texts, numbers and booleans. `keys`: the keys of embedded documents,
    even of documents in arrays.
    """

    path: str
    present: int = 0
    documents: int = 0
    types: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    value_counts: Counter[str] | None = field(default_factory=Counter)
    distinct: set[int] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    @property
    def date_form(self) -> str | None:
        """The form of a date that all values have, except those that stand for no date; or None."""
        dated = self.documents - self.forms[_UNSET]
        forms = [
            form
            for form, count in self.forms.items()
            if count == dated and form not in (_UNSET, _JSON, _EMPTY, _OTHER_DATE)
        ]
        return forms[0] if forms and dated else None

    @property
    def unset_dates(self) -> int:
        """How many values stand for no date, such as 0 or Go's year 1."""
        return self.forms[_UNSET]

    @property
    def has_dates(self) -> bool:
        """Whether some values are dates, even texts in a form that jobmon cannot read."""
        return bool({"date", "iso", _OTHER_DATE} & self.forms.keys())

    @property
    def empty_texts(self) -> int:
        return self.forms[_EMPTY]

    @property
    def is_json(self) -> bool:
        """Whether all values are texts that look like JSON documents."""
        return bool(self.documents) and self.forms[_JSON] == self.documents

    def has_only(self, *types: str) -> bool:
        """Whether there are values, all with one of these types."""
        return bool(self.documents) and set(self.types) <= set(types)

    def add(self, value: Any) -> None:
        """Count a value that is not null."""
        self.documents += 1
        self.types[type_name(value)] += 1
        for form in _list_forms(value):
            self.forms[form] += 1
        for element in value if isinstance(value, list) else [value]:
            if isinstance(element, Mapping):
                self.keys |= set(list(element)[:_MAX_DISTINCT])
        if type_name(value) in ("string", "bool", "number"):
            self.distinct.add(hash(value))
            self._count_value(value)
        else:
            self.value_counts = None

    def _count_value(self, value: Any) -> None:
        if self.value_counts is None:
            return
        text = label(value)
        self.value_counts[text] += 1
        if len(text) > _MAX_VALUE_LENGTH or len(self.value_counts) > _MAX_DISTINCT:
            self.value_counts = None


@dataclass
class CollectionSample:
    """The fields of a sample of a collection, by path."""

    database: str
    collection: str
    documents: int = 0
    fields: dict[str, SampledField] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The full name, `database.collection`."""
        return f"{self.database}.{self.collection}"

    @property
    def top_level(self) -> set[str]:
        """The fields that at least one document has at the top level."""
        return {path for path in self.fields if "." not in path}

    def share(self, path: str) -> float:
        """The share of the documents that have a value other than null at a path."""
        sampled = self.fields.get(path)
        return sampled.documents / self.documents if sampled and self.documents else 0.0

    def add(self, document: Mapping[str, Any]) -> None:
        """Count the fields of a document."""
        self.documents += 1
        for path, value in _walk(document, "", 1):
            sampled = self.fields.get(path)
            if sampled is None:
                if len(self.fields) >= _MAX_PATHS:
                    continue
                sampled = self.fields[path] = SampledField(path)
            sampled.present += 1
            if value is not None:
                sampled.add(value)


def read_sample(
    database: Database[Document],
    collection: str,
    query: Document | None = None,
    *,
    add_to: CollectionSample | None = None,
) -> CollectionSample:
    """A sample of the newest and of random documents that match; raises OperationFailure.

    `add_to`: a sample that has none of these documents; they are added to it.
    """
    sample = add_to or CollectionSample(database.name, collection)
    options = CodecOptions(document_class=RawBSONDocument)
    raw_collection = database[collection].with_options(codec_options=options)
    sampled_ids: set[str] = set()
    for document in _read_documents(raw_collection, query or {}):
        document_id = repr(document.get("_id"))
        if document_id not in sampled_ids:
            sampled_ids.add(document_id)
            sample.add(document)
    return sample


def type_name(value: Any) -> str:
    """`number` for an int or a float, else the name of the BSON type or of the Python class."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case Code():  # is a str, but cannot be hashed
            return "javascript"
        case str():
            return "string"
        case datetime() | DatetimeMS():
            return "date"
        case ObjectId():
            return "objectId"
        case list():
            return "array"
        case Mapping():
            return "object"
        case _:
            return type(value).__name__


def is_usable_path(path: str) -> bool:
    """Whether a profile can name this path."""
    return path.isprintable() and re.search(_PATH_PATTERN, path) is not None


def _read_documents(collection: Collection[RawBSONDocument], query: Document) -> Iterator[Document]:
    limits: dict[str, Any] = {"maxTimeMS": _MAX_TIME_MS, "batchSize": 20}
    newest = collection.find(
        query, sort=[("_id", -1)], limit=HALF_SAMPLE, max_time_ms=_MAX_TIME_MS, batch_size=20
    )
    with newest:
        yield from _limit_bytes(newest)
    # $sample is fast only as the first stage.
    stages = [*([{"$match": query}] if query else ()), {"$sample": {"size": HALF_SAMPLE}}]
    # If this fails, at a time limit or at a deleted document, the newest documents must be enough.
    with suppress(OperationFailure), collection.aggregate(stages, **limits) as random:
        yield from _limit_bytes(random)


def _limit_bytes(documents: Iterable[RawBSONDocument]) -> Iterator[Document]:
    """The documents, until they exceed 8 MiB in total."""
    size = 0
    for document in documents:
        yield decode(bytes(document.raw))
        size += len(document.raw)
        if size > _MAX_BYTES:
            return


def _walk(document: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        path = f"{prefix}{name}"
        if "." in name or not is_usable_path(path):
            continue
        yield path, value
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            yield from _walk(value, f"{path}.", depth + 1)


def _list_forms(value: Any) -> Iterator[str]:
    match value:
        case bool():
            return
        case datetime():
            yield _UNSET if value.timestamp() < _FIRST_DATE_S else "date"
        case DatetimeMS():
            yield _UNSET if int(value) < _FIRST_DATE_S * 1_000 else "date"
        case str() if match := _ISO.fullmatch(value):
            yield "iso"
            if match[1] is None:
                yield WITHOUT_ZONE
        case "":
            yield _EMPTY
        case str() if _DAY.match(value):
            yield _OTHER_DATE
        case str() if value.startswith("{") and value.endswith("}"):
            yield _JSON
        case 0 | -1:
            yield _UNSET
        case int() | float():
            for form, factor in PER_SECOND.items():
                if _FIRST_DATE_S * factor <= value <= _LAST_DATE_S * factor:
                    yield form
