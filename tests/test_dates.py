"""`.ci/dates.py` finds fixed dates in tests.

Catches a fixed date that the script overlooks: a test with such a date fails some day, without a
change of the code.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from .support.waiting import PATIENCE_S

CHECK = Path(__file__).parents[1] / ".ci/dates.py"
YEAR = 2026


@pytest.mark.parametrize(
    ("source", "has_fixed_date"),
    [
        (f"NOW = datetime({YEAR}, 11, 23, tzinfo=UTC)", True),
        (f"NOW = datetime.date({YEAR}, 1, 2)", True),
        (f'JOB = {{"createdAt": "{YEAR}-11-23T03:00:00Z"}}', True),
        (f'path = f"/jobs?created_from={YEAR}-11-23&owner={{owner}}"', True),
        (f'"""Docs."""\nWEEK = "{YEAR}-W48-1"', True),
        ("issued_at = 1_7" + "00_000_000", True),
        ("finished_at = DatetimeMS(17" + "00000000000)", True),
        (f'def test() -> None:\n    """As of {YEAR}-11-23."""', False),
        ("NOW = datetime.now(UTC) - timedelta(days=1)", False),
        ('EXTREMES = ["0001-01-01", "9999-12-31T23:59:59Z", "1970-01-01"]', False),
        ("sizes = [2_147_483_648, 2**31, 1_000_000, 0.5]", False),
    ],
)
def test_check_fails_for_fixed_dates_only(
    tmp_path: Path, source: str, has_fixed_date: bool
) -> None:
    (tmp_path / "tests/deep").mkdir(parents=True)
    (tmp_path / "tests/deep/test_x.py").write_text(source)
    command = [sys.executable, str(CHECK), str(tmp_path)]
    check = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert check.returncode == has_fixed_date, check.stdout + check.stderr
    assert ("tests/deep/test_x.py:" in check.stdout) == has_fixed_date
