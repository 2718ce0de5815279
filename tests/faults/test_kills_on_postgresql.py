"""The same kills on PostgreSQL, in a file of their own: another worker may run them meanwhile."""

from pathlib import Path

import pytest

from tests.faults.test_kills import kill_at_random

pytestmark = [pytest.mark.long, pytest.mark.postgres]


def test_a_hundred_kills_lose_double_and_miss_nothing_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    kill_at_random(tmp_path, postgres_url, 100, 4)
