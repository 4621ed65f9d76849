"""Reads the texts of environment variables; the environment collects the mistakes."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from environs import Env
from marshmallow import ValidationError, validate


def read_text(env: Env, name: str, default: Any, *, parse: Callable[[str], Any] = str) -> Any:
    """The result of `parse` for a text; the default if the text is empty or not set.

    `parse` may raise ValidationError, so a validator of marshmallow can be used, too.
    """
    text = env.str(name, "", validate=lambda text: text and parse(text))
    return parse(text) if text else default


def read_names(
    env: Env,
    name: str,
    default: tuple[str, ...] = (),
    *,
    known: tuple[str, ...] | None = None,
    check: Callable[[str], object] = str,
) -> tuple[str, ...]:
    """Different names, separated by commas, each out of `known`; an empty text means none."""
    if known is not None:
        error = f"Unknown: {{input}}. Known: {', '.join(known)}."
        check = validate.OneOf(known, error=error)

    def parse(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stripped for text in names if (stripped := text.strip())))

    names = env.list(name, list(default), validate=lambda names: [*map(check, parse(names))])
    return parse(names or ())


def read_pairs(env: Env, name: str, check: Callable[[dict[str, str]], None]) -> dict[str, str]:
    """A text of the form `a=b,c=d` as a dictionary; `check` may raise ValidationError for it."""

    def parse(text: str) -> dict[str, str]:
        pairs = parse_pairs(text.split(","))
        check(pairs)
        return pairs

    pairs: dict[str, str] = read_text(env, name, {}, parse=parse)
    return pairs


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    """Texts of the form `a=b` as a dictionary, without empty texts. Raises ValidationError."""
    parts = [text.partition("=") for text in texts if text.strip()]
    if not all(equals_sign for _, equals_sign, _ in parts):
        raise ValidationError("Not of the form NAME=VALUE,NAME=VALUE.")
    refuse_duplicates(name.strip() for name, _, _ in parts)
    return {name.strip(): value.strip() for name, _, value in parts}


def refuse_duplicates(names: Iterable[str]) -> None:
    """Raise ValidationError with the names that occur more than once."""
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise ValidationError(f"Given more than once: {', '.join(duplicates)}.")
