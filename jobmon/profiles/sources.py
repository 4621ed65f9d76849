"""Parses the `fields` of a profile: each becomes a `Source`, which reads a value from a document.

The value may be at a path, in an array or in JSON text, for example. If MongoDB can compute it, the
source also has an aggregation expression for it.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from jobmon.profiles.conditions import (
    Query,
    list_elements,
    parse_expression,
    parse_query,
    resolve_constant,
    to_expression,
)
from jobmon.profiles.schema import TomlMistakeError
from jobmon.profiles.stored_values import (
    get_value,
    parse_date,
    parse_duration,
    set_value,
    shift_date,
    to_date_expression,
)
from jobmon.profiles.toml_lines import KeyPath

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """How the value of a field is read, computed and queried."""

    # Returns the value: from the result of `computed` or, without it, from a document that has at
    # least the paths `inputs`.
    read: Callable[[Document], Any]
    inputs: tuple[str, ...] = ()
    computed: Any = None  # an expression that the database evaluates for `read`
    # The value as an aggregation expression; None if MongoDB cannot compute it.
    expression: Any = None
    # The path, if the value is stored at one: then queries can use an index on it. A date may be
    # stored in another form (`reading`). The value is `offset` later than the stored date.
    path: str | None = None
    reading: str | None = None
    offset: timedelta | None = None
    alternatives: tuple[str, ...] = ()  # the paths of `first_of`
    is_constant: bool = False  # then `expression` is a literal
    members: Mapping[str, "Source"] = field(default_factory=dict)  # of `object`, by name
    # The statuses with which the field is shown; all if empty.
    only_in: tuple[str, ...] = ()

    def find_path(self, inner: str) -> str | None:
        """The path in documents of the part `inner` of this value; None if it is at no path."""
        if self.path is not None:
            return f"{self.path}.{inner}"
        name, _, inner_of_member = inner.partition(".")
        member = self.members.get(name)
        if member is None:
            return None
        return member.find_path(inner_of_member) if inner_of_member else member.path


@dataclass(frozen=True, kw_only=True)
class SourceContext:
    """What the fields of a profile may refer to.

    `constants`: name with its dollar sign -> value. `readings`: path of a date -> its stored form.
    `base`: the path of the array whose elements have the fields; empty for fields of a document.
    """

    constants: Mapping[str, Any]
    readings: Mapping[str, str]
    base: str = ""

    def find_reading(self, *parts: str) -> str | None:
        """The stored form of the date at a path; None for a BSON date and for other values."""
        return self.readings.get(".".join(filter(None, (self.base, *parts))))

    def parse_query(self, query: Query, key_path: KeyPath) -> Query:
        """The query with values in place of `$null`, `$now` and constants.

        `key_path`: where the query is in the profile. Raises TomlMistakeError.
        """
        return parse_query(query, self.constants, self.readings, key_path)


def parse_source(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    """The source for a field's value in a profile; raises TomlMistakeError.

    `key_path`: where the value is in the profile.
    """
    if isinstance(spec, str):
        return _make_path_source(spec, context)
    # `first`, `last` and `json` may have a path, too.
    kinds = [kind for kind in _PARSERS if kind in spec and kind != "path"] or ["path"]
    if len(kinds) != 1 or kinds[0] not in spec:
        raise TomlMistakeError(key_path, f"needs exactly one of {', '.join(_PARSERS)}")
    (kind,) = kinds
    if "path" in spec and kind not in ("path", "first", "last", "json"):
        raise TomlMistakeError((*key_path, "path"), f"not used with {kind}")
    if "match" in spec and kind not in ("first", "last"):
        raise TomlMistakeError(
            (*key_path, "match"), f"not used with {kind}: for a part of an array, use an expression"
        )
    source = _PARSERS[kind](spec, context, key_path)
    if "join" in spec:
        source = _join_elements(source, spec["join"])
    if "plus" in spec:
        source = _add_amount(source, spec["plus"], context, (*key_path, "plus"))
    if "when" in spec:
        source = _add_condition(source, spec["when"], context, (*key_path, "when"))
    return replace(source, only_in=tuple(spec.get("only_in", ())))


def _make_path_source(path: str, context: SourceContext) -> Source:
    reading = context.find_reading(path)

    def read(document: Document) -> Any:
        value = get_value(document, path) if "." in path else document.get(path)
        return value if reading is None else parse_date(value, reading)

    return Source(
        read=read,
        inputs=(path,),
        expression=to_date_expression(f"${path}", reading),
        path=path,
        reading=reading,
    )


def _parse_first_of(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    sources = [
        parse_source(inner, context, (*key_path, "first_of", index))
        for index, inner in enumerate(spec["first_of"])
    ]

    def choose(values: list[Any]) -> Any:
        return next((value for value in values if value is not None), None)

    expressions = [source.expression for source in sources]
    paths = [source.path for source in sources if source.path and source.reading is None]
    return replace(
        _combine(sources, choose),
        expression=None if None in expressions else {"$ifNull": [*expressions, None]},
        alternatives=tuple(paths) if len(paths) == len(sources) else (),
    )


def _combine(sources: list[Source], merge: Callable[[list[Any]], Any]) -> Source:
    """A source whose value is the result of `merge` for the values of these sources."""
    inputs = tuple(path for source in sources for path in source.inputs)
    if all(source.computed is None for source in sources):
        return Source(
            read=lambda document: merge([source.read(document) for source in sources]),
            inputs=inputs,
        )
    parts = {f"c{number}": _compute_inputs(source) for number, source in enumerate(sources)}

    def read(document: Document) -> Any:
        stored = ((source, document.get(name)) for name, source in parts.items())
        return merge([None if value is None else source.read(value) for source, value in stored])

    return Source(read=read, computed={name: source.computed for name, source in parts.items()})


def _compute_inputs(source: Source) -> Source:
    """The source whose `read` gets all its inputs from an expression, `computed`."""
    if source.computed is not None:
        return source
    names = {path: f"p{number}" for number, path in enumerate(dict.fromkeys(source.inputs))}

    def read(document: Document) -> Any:
        values: dict[str, Any] = {}
        for path, name in names.items():
            set_value(values, path, document.get(name))
        return source.read(values)

    return replace(source, read=read, computed={name: f"${path}" for path, name in names.items()})


def _parse_element(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    kind = "first" if "first" in spec else "last"
    array, path = spec[kind], spec.get("path")
    match = {
        name: _parse_match(value, context, (*key_path, "match", name))
        for name, value in spec.get("match", {}).items()
    }
    reading = context.find_reading(array, path or "")

    def read(document: Document) -> Any:
        elements = get_value(document, array)
        if not isinstance(elements, list):
            return None
        matching = [
            element
            for element in elements
            if all(get_value(element, name) == value for name, value in match.items())
        ]
        if not matching:
            return None
        element = matching[0 if kind == "first" else -1]
        return parse_date(element if path is None else get_value(element, path), reading)

    elements: Any = list_elements(f"${array}")
    if match:
        tests = [
            {"$eq": [f"$$this.{name}", {"$literal": expected}]} for name, expected in match.items()
        ]
        elements = {"$filter": {"input": elements, "cond": {"$and": tests}}}
    value = "$$element" if path is None else f"$$element.{path}"
    expression = {
        "$let": {
            "vars": {"element": {f"${kind}": elements}},
            "in": {"$ifNull": [to_date_expression(value, reading), None]},
        }
    }
    return Source(read=read, inputs=(array,), expression=expression)


def _parse_match(value: Any, context: SourceContext, key_path: KeyPath) -> Any:
    if isinstance(value, dict | list) or str(key_path[-1]).startswith("$"):
        raise TomlMistakeError(
            key_path,
            "must be a text, a number, true or false at a path, which needs quotes if it has dots. "
            "For operators such as $ne, use an expression",
        )
    return resolve_constant(value, context.constants, key_path)


def _parse_length(spec: Any, *_: Any) -> Source:
    path = spec["length"]

    def read(document: Document) -> int | None:
        value = get_value(document, path)
        return len(value) if isinstance(value, list) else None

    size = {"$cond": [{"$isArray": f"${path}"}, {"$size": f"${path}"}, None]}
    return Source(read=read, inputs=(path,), expression=size)


def _parse_json(spec: Any, context: SourceContext, _: KeyPath) -> Source:
    path, inner = spec["json"], spec.get("path")
    reading = context.find_reading(path, inner or "")

    def read(document: Document) -> Any:
        value = get_value(document, path)
        if isinstance(value, str):
            with suppress(ValueError, RecursionError):
                decoded = json.loads(value)
                if "\\ud" in value.lower():  # perhaps half of a surrogate pair, which is no text
                    text = json.dumps(decoded, ensure_ascii=False)
                    decoded = json.loads(text.encode(errors="replace"))
                value = decoded
        return parse_date(value if inner is None else get_value(value, inner), reading)

    return Source(read=read, inputs=(path,))


def _parse_object(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    sources = {
        name: parse_source(inner, context, (*key_path, "object", name))
        for name, inner in spec["object"].items()
    }

    def make_object(values: list[Any]) -> Any:
        members = dict(zip(sources, values, strict=True))
        return members if any(value is not None for value in values) else None

    expressions = {name: source.expression for name, source in sources.items()}
    return replace(
        _combine(list(sources.values()), make_object),
        members=sources,
        expression=None if None in expressions.values() else expressions,
    )


def _parse_constant(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    value = resolve_constant(spec["constant"], context.constants, (*key_path, "constant"))
    return Source(read=lambda _: value, expression={"$literal": value}, is_constant=True)


def _parse_expression(spec: Any, context: SourceContext, key_path: KeyPath) -> Source:
    if context.base:
        raise TomlMistakeError((*key_path, "expression"), "not possible for an element of an array")
    expression = parse_expression(spec["expression"], context.constants, (*key_path, "expression"))
    return Source(
        read=lambda document: document.get("v"), expression=expression, computed={"v": expression}
    )


_PARSERS: dict[str, Callable[[Any, SourceContext, KeyPath], Source]] = {
    "path": lambda spec, context, _: _make_path_source(spec["path"], context),
    "first_of": _parse_first_of,
    "first": _parse_element,
    "last": _parse_element,
    "length": _parse_length,
    "json": _parse_json,
    "object": _parse_object,
    "constant": _parse_constant,
    "expression": _parse_expression,
}


def _join_elements(source: Source, separator: str) -> Source:
    def read(document: Document) -> Any:
        value = source.read(document)
        if not isinstance(value, list | tuple):
            return value
        return separator.join(
            part if isinstance(part, str) else json.dumps(part, default=str) for part in value
        )

    return Source(read=read, inputs=source.inputs, computed=source.computed)


def _add_amount(source: Source, plus: Any, context: SourceContext, key_path: KeyPath) -> Source:
    plus = resolve_constant(plus, context.constants, key_path)
    amount: Any = parse_duration(plus, key_path) if isinstance(plus, str) else plus
    is_date = isinstance(amount, timedelta)

    def read(document: Document) -> Any:
        value = source.read(document)
        if is_date:
            return shift_date(value, amount)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value + amount if is_number else value

    expression = None
    if source.expression is not None:
        value = source.expression
        has_type = {"$eq": [{"$type": value}, "date"]} if is_date else {"$isNumber": value}
        added = amount / timedelta(milliseconds=1) if is_date else amount
        expression = {"$cond": [has_type, {"$add": [value, added]}, None]}
    changed = replace(source, read=read, expression=expression, alternatives=(), is_constant=False)
    # A sum of numbers is only shown: it has no path, so no query uses it.
    return replace(changed, offset=amount) if is_date else replace(changed, path=None)


def _add_condition(source: Source, when: Any, context: SourceContext, key_path: KeyPath) -> Source:
    """A source with the value of `source` if the document matches the condition, else None.

    The database evaluates the condition.
    """
    if context.base:
        raise TomlMistakeError(key_path, "not possible for an element of an array")
    condition = to_expression(context.parse_query(when, key_path))
    inner = _compute_inputs(source)

    def read(document: Document) -> Any:
        return inner.read(document.get("v") or {}) if document.get("is") else None

    expression = None
    if source.expression is not None:
        expression = {"$cond": [condition, source.expression, None]}
    return Source(
        read=read,
        expression=expression,
        computed={"$cond": [condition, {"is": {"$literal": True}, "v": inner.computed}, None]},
    )
