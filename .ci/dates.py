"""Find fixed dates in tests and benches. One day such a date is older than the retained history.

Write times relative to now or to `NOW` of tests/conftest.py instead. `make lint` runs this in the
checkout; an argument names another folder.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

# These tests print a date or quote a standard; they do not read the clock.
ALLOWED = {
    "tests/notify/test_webhook.py": {"1614265330"},
    "tests/store/test_bson_json.py": {
        "datetime(2026, 1, 2)",
        "datetime(2026, 1, 2, 3, 4, 5, 678_999, UTC)",
        "datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1)))",
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T00:00:00.000Z",
    },
}

YEARS = range(2000, 2100)
DATE = re.compile(r"\b20\d\d-(?:0[1-9]|1[0-2]|W[0-5]\d)\b")
SECONDS = range(1_500_000_000, 2_000_000_000)  # since 1970: from 2017 to 2033
HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def find_dates(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each fixed date in a Python file, except in docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, HAVE_DOCSTRINGS) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date"),
                args=[ast.Constant(value=int(year)), *_],
            ) if year in YEARS:
                yield node.lineno, ast.get_source_segment(source, node) or ""
            case ast.Constant(value=str(text)) if id(node) not in docstrings and DATE.search(text):
                yield node.lineno, text
            case ast.Constant(value=int(number) | float(number)) if (
                int(number) in SECONDS or int(number) // 1_000 in SECONDS
            ):
                yield node.lineno, str(number)


def main(root: Path) -> int:
    """Print the dates in tests and benches that are not in `ALLOWED`; return 1 if there are any."""
    lines = [
        f"{path.relative_to(root)}:{line}: fixed date in a test: {date}"
        for folder in ("tests", "bench")
        for path in sorted((root / folder).rglob("*.py"))
        if "node_modules" not in path.parts
        for line, date in find_dates(path.read_text())
        if date not in ALLOWED.get(str(path.relative_to(root)), ())
    ]
    print("\n".join([*lines, "Make them relative to now."]) if lines else "No dates in tests.")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
