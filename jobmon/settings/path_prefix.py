"""The path below which a proxy serves jobmon: `/jobmon` in `https://tools.example/jobmon/jobs`."""

import re

from marshmallow import ValidationError

# The first parts of jobmon's own paths. With the prefix `/jobs`, `/jobs/42` would be ambiguous.
OWN_PATHS = frozenset(
    ("admin", "dashboard", "docs", "healthz", "job", "jobs", "metrics", "openapi.json", "queues")
) | {"readyz"}
_MAX_LENGTH = 200
# No character has to be escaped in a page. No part is `.` or `..`: browsers would resolve it.
_FORM = re.compile(r"(/(?!\.\.?(/|\Z))[A-Za-z0-9._~-]+)*/?")


def is_path_prefix(value: str) -> bool:
    """Whether a text is a path of plain segments: `/tools/jobmon`, `/` or the empty text."""
    return len(value) <= _MAX_LENGTH and _FORM.fullmatch(value) is not None


def parse_path_prefix(value: str) -> str:
    """The path without a final slash, empty for the root.

    Raises ValidationError if jobmon cannot be served below this path.
    """
    if not is_path_prefix(value):
        raise ValidationError(
            "Not a path such as /jobmon: it begins with /, has letters, digits and . _ ~ - "
            f"between single slashes, no part . or .., and at most {_MAX_LENGTH} characters."
        )
    first_part = value.strip("/").partition("/")[0]
    if first_part in OWN_PATHS:
        raise ValidationError(f"jobmon has a path /{first_part} of its own: choose another prefix.")
    return value.rstrip("/")
