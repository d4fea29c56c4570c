"""A sample may be as large as it likes: `everloop init` keeps its memory."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROWS = 3_000_000
_CHILD = """
import resource, sys
from everloop.cli import main
sys.argv = ["everloop", "init", "--from", sys.argv[1], "--output", sys.argv[2]]
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_MOST_MEGABYTES = 700


def test_three_million_rows_in_bounded_memory(tmp_path: Path) -> None:
    """A year of somebody's data must not need a larger machine: the whole file would take more than 1 GB."""
    path = tmp_path / "large.csv"
    first = datetime(2024, 1, 1, tzinfo=UTC)
    with path.open("w") as file:
        file.write("at,site,pressure,failed\n")
        for block in range(ROWS // 10_000):
            at = (first + timedelta(hours=block)).isoformat()
            file.write("".join(f"{at},site-{n % 7},{n / 100},{n % 2}\n" for n in range(10_000)))
    output = tmp_path / "large.yaml"
    child = [sys.executable, "-c", _CHILD, str(path), str(output)]
    done = subprocess.run(child, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    peak_megabytes = int(done.stdout.rsplit("peak ", 1)[1]) / 1024
    assert peak_megabytes < _MOST_MEGABYTES
    text = output.read_text()
    assert "of 3,000,000 rows)" in text
    assert "2024-01-01 00:00 to 2024-01-13 11:00" in text
