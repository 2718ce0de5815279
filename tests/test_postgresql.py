"""The same service on PostgreSQL: replay, runs and pages, in one process and in two that share the work."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ADMIN_KEY
from tests.running import Service
from tests.test_car_loan import everything, runs_of, violated
from tests.test_replay import frame

pytestmark = pytest.mark.postgres

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.long
def test_a_replay_is_stored_judged_and_shown_on_postgresql(tmp_path: Path, postgres_url: str, plumbline: Run) -> None:
    pq.write_table(frame(288 * 24, seed=1, minutes=5), tmp_path / "reference.parquet")
    stream = frame(288 * 6, seed=2, minutes=5)
    older = pa.array(np.asarray(stream["age"]) + 40.0)
    pq.write_table(stream.set_column(2, "age", older), tmp_path / "stream.parquet")
    with Service.started(tmp_path / "data", admin_key=ADMIN_KEY, PLUMBLINE_DATABASE_URL=postgres_url) as running:
        done = plumbline(
            "replay", str(tmp_path / "stream.parquet"), "--model", "older", "--time", "at", "--id", "id",
            "--prediction", "said", "--score", "p", "--baseline", str(tmp_path / "reference.parquet"),
            "--url", running.url, "--key", running.admin_key,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "1,728 predictions accepted" in done.stdout
        with running.client() as client:
            drift = runs_of(client, "older", "data_drift")
            assert len(drift) == 6
            assert [violated(run) for run in drift] == [{"age"}] * 6
            assert everything(client, "/v1/alerts", model="older")
            assert client.get("/models/older/drift").status_code == 200
            assert client.get("/v1/models/older/predictions/r5").status_code == 200
            assert client.get("/readyz").status_code == 200
