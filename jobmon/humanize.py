"""Numbers, durations and rates as text for people."""

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_EXACT_BELOW_MS = 10_000


def grouped(number: float | None) -> str:
    """12345 as `12,345`; a dash where there is no number."""
    return "–" if number is None else f"{number:,}"


def duration(ms: float | None) -> str:
    """Milliseconds as a person says them, in at most two units: `850 ms`, `3 min 20 s`, `2 d`."""
    if ms is None:
        return "–"
    ms = round(ms)
    if ms < 1_000:
        return f"{ms} ms"
    if ms < _EXACT_BELOW_MS:
        return f"{ms / 1_000:.1f} s"
    number, (unit, size) = next(pair for pair in enumerate(_UNITS) if ms >= pair[1][1])
    whole, rest = divmod(ms, size)
    smaller, smaller_size = _UNITS[min(number + 1, len(_UNITS) - 1)]
    part = rest // smaller_size
    return f"{whole:,} {unit} {part} {smaller}" if part else f"{whole:,} {unit}"


def percent(fraction: float | None) -> str:
    """0.0123 as `1.2%`; a dash where there is no number."""
    if fraction is None:
        return "–"
    return f"{fraction:.0%}" if fraction >= 0.1 or fraction == 0 else f"{fraction * 100:.1f}%"


def per_minute(rate: float | None) -> str:
    """A rate as `42/min`, with a decimal below 10; a dash where there is no number."""
    if rate is None:
        return "–"
    rounded = round(rate, 1 if rate < 10 else None)
    return f"{rounded:,.{0 if rounded == int(rounded) else 1}f}/min"
