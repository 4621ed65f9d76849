"""Reads TOML files, checks them against their JSON Schemas, and reports a mistake with its line.

The schemas are published in docs/, so that editors can show their descriptions. Only the keywords
of JSON Schema that these schemas use are checked.
"""

import json
import re
import tomllib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from jobmon.profiles.toml_lines import KeyPath, find_line

T = TypeVar("T")

# The end of each message of tomllib.
_POSITION = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)$")
# What people write for null, which TOML does not have.
_NULL = re.compile(r"(?:null|nil|none)\b", re.IGNORECASE)

# The types of JSON Schema, each with its name in messages and its Python classes.
_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "object": ("a table", (dict,)),
    "array": ("an array", (list,)),
    "string": ("a text", (str,)),
    "number": ("a number", (int, float)),
    "integer": ("a whole number", (int,)),
    "boolean": ("true or false", (bool,)),
}


class TomlMistakeError(ValueError):
    """The value at `path` in a TOML file is wrong. The message states what is allowed."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


class UnlistedKeyError(TomlMistakeError):
    """A key that is not in the schema's `properties`: it is not allowed, or its value is wrong."""


class FileError(ValueError):
    """A file cannot be read, or has a mistake. The message has the file, and the line and cause."""


def read_file(path: str) -> str:
    """The text of a file; raises FileError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileError(f"{path} cannot be read: {reason}") from None


def load_toml(
    file: str, text: str, schema: dict[str, Any], build: Callable[[dict[str, Any]], T]
) -> T:
    """Check the content of a TOML text against the schema; return the result of `build` for it.

    Raises FileError for the first mistake; `build` may raise TomlMistakeError for a mistake.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{file}, {_explain_syntax(str(error), text)}") from None
    try:
        _check_value(content, schema, (), schema.get("$defs", {}))
        return build(content)
    except TomlMistakeError as error:
        key = ".".join(map(str, error.path))
        message = f"{key}: {error}" if key else str(error)
        if isinstance(error, UnlistedKeyError) and error.path[-1] in schema.get("properties", ()):
            message += (
                f". Write {error.path[-1]} before the first [table]: it is not a key of a table"
            )
        raise FileError(f"{file}, line {find_line(text, error.path)}: {message}") from None


def _explain_syntax(error: str, text: str) -> str:
    """tomllib's error with its line; for a usual mistake, a message with what to write instead."""
    message, position = _POSITION.sub("", error), _POSITION.search(error)
    if position is None or position[1] is None:
        return f"the last line: {message}"
    line_number, column = int(position[1]), int(position[2])
    line = text.replace("\r\n", "\n").split("\n")[line_number - 1]
    before, after = line[: column - 1], line[column - 1 :]
    if _NULL.match(after):
        message = 'TOML has no null: write "$null" in a profile'
    elif not after.partition("#")[0] and (
        message == "Unclosed inline table" or before.rstrip().endswith(("{", ","))
    ):
        message = "an inline table { } has to be on one line. Write a long one as a [table]"
    elif after.startswith("}") and before.rstrip().endswith(","):
        message = "no comma is allowed before the } of an inline table"
    return f"line {line_number}: {message}"


@cache
def load_schema(package: str, file: str) -> dict[str, Any]:
    """The JSON Schema in a package's file; docs/ has a copy of it."""
    schema: dict[str, Any] = json.loads(files(package).joinpath(file).read_text(encoding="utf-8"))
    return schema


def profile_schema() -> dict[str, Any]:
    """The JSON Schema of a profile."""
    return load_schema("jobmon.profiles", "profile.schema.json")


def _check_value(
    value: Any, schema: dict[str, Any], path: KeyPath, definitions: dict[str, Any]
) -> None:
    schema = _resolve_reference(schema, definitions)
    if "anyOf" in schema:
        schema = _choose_schema(value, schema["anyOf"], path, definitions)
    if "type" in schema and not _has_type(value, schema["type"]):
        raise TomlMistakeError(path, f"must be {_TYPES[schema['type']][0]}")
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(schema["enum"])
        raise TomlMistakeError(path, f"{value!r} is not one of {allowed}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise TomlMistakeError(path, f"{value!r} is not {schema['title']}")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        allowed = f"from {schema['minimum']} to {schema['maximum']}"
        raise TomlMistakeError(path, f"{value} is not {allowed}")
    if isinstance(value, dict):
        _check_table(value, schema, path, definitions)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            raise TomlMistakeError(path, f"needs at least {schema['minItems']} elements")
        for index, element in enumerate(value):
            _check_value(element, schema.get("items", {}), (*path, index), definitions)


def _check_table(
    value: dict[str, Any], schema: dict[str, Any], path: KeyPath, definitions: dict[str, Any]
) -> None:
    properties, additional = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, inner in value.items():
        if name in properties:
            _check_value(inner, properties[name], (*path, name), definitions)
        elif additional is False:
            allowed = ", ".join(properties)
            raise UnlistedKeyError((*path, name), f"unknown; allowed are {allowed}")
        elif additional is not True:
            try:
                _check_value(inner, additional, (*path, name), definitions)
            except TomlMistakeError as error:
                if len(error.path) > len(path) + 1:
                    raise
                raise UnlistedKeyError(error.path, str(error)) from None
    for name in schema.get("required", ()):
        if name not in value:
            raise TomlMistakeError(path, f"needs {name}")


def _resolve_reference(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, or the definition that its `$ref` names."""
    if "$ref" not in schema:
        return schema
    definition: dict[str, Any] = definitions[schema["$ref"].rpartition("/")[2]]
    return definition


def _choose_schema(
    value: Any, schemas: list[dict[str, Any]], path: KeyPath, definitions: dict[str, Any]
) -> dict[str, Any]:
    """The first of these schemas that allows the type of the value."""
    resolved = [_resolve_reference(schema, definitions) for schema in schemas]
    for schema in resolved:
        if _has_type(value, schema["type"]):
            return schema
    allowed = " or ".join(_TYPES[schema["type"]][0] for schema in resolved)
    raise TomlMistakeError(path, f"must be {allowed}")


def _has_type(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name][1]) and (isinstance(value, bool) == (name == "boolean"))
