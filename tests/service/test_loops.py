"""Loops over numbers are compiled once, by what installs the service, and found again by every process after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.long
def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    said = [
        subprocess.run(
            [sys.executable, "-m", "service.cli.loops"],
            cwd=ROOT, env=environment, check=True, capture_output=True, text=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert said[0].count("data saved to") > 20
    assert "data saved to" not in said[1]
    assert said[1].count("data loaded from") > 20
