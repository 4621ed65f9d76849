"""Formats numbers, durations and rates as text for people; an unknown value (None) as a dash."""

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_DECIMAL_BELOW_MS = 10_000  # durations from one second to this have a decimal


def grouped(number: float | None) -> str:
    """12345 as `12,345`."""
    return "–" if number is None else f"{number:,}"


def escape_unprintable(text: str) -> str:
    """The text in one line: `\\x1b` in place of an ESC, which could change a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `3 members`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def duration(ms: float | None) -> str:
    """Milliseconds in at most two units: `850 ms`, `2.5 s`, `3 min 20 s`, `2 d`."""
    if ms is None:
        return "–"
    ms = round(ms)
    if ms < 1_000:
        return f"{ms} ms"
    if ms < _DECIMAL_BELOW_MS:
        return f"{_format_decimal(ms / 1_000)} s"
    index = next(index for index, (_, unit_ms) in enumerate(_UNITS_MS) if ms >= unit_ms)
    unit, unit_ms = _UNITS_MS[index]
    whole, remainder_ms = divmod(ms, unit_ms)
    smaller_unit, smaller_unit_ms = _UNITS_MS[min(index + 1, len(_UNITS_MS) - 1)]
    smaller = remainder_ms // smaller_unit_ms
    return f"{whole:,} {unit} {smaller} {smaller_unit}" if smaller else f"{whole:,} {unit}"


def percent(fraction: float | None) -> str:
    """0.0123 as `1.2%`, with a decimal below 10%; a tiny fraction above 0 as `<0.1%`."""
    if fraction is None:
        return "–"
    if 0 < fraction < 0.0005:
        return "<0.1%"
    return f"{fraction:.0%}" if fraction >= 0.1 else f"{_format_decimal(fraction * 100)}%"


def per_minute(rate: float | None) -> str:
    """A rate as `42/min`, with a decimal below 10."""
    if rate is None:
        return "–"
    return f"{rate:,.0f}/min" if rate >= 10 else f"{_format_decimal(rate)}/min"


def _format_decimal(number: float) -> str:
    """A number with one decimal, unless the decimal is zero: `1.5`, `2`."""
    return f"{number:.1f}".removesuffix(".0")
