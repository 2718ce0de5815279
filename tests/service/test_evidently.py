"""Evidently in the service: its stat tests through the worker process, and its report."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sqlalchemy import select

from service import baselines
from service.runs import decode_results
from service.tables import BaselineRow
from tests.service.watched import Watched, stream


def test_a_run_has_evidently_s_tests_done_in_the_worker_process(tmp_path: Path) -> None:
    shop = Watched(tmp_path, parameters={"also": ["es", "evidently_ks", "evidently_chisquare", "ks"]})
    shop.stream(0, 24, shift=0.5)
    shop.at_hour(25)
    shop.run()
    shop.worker.close()
    (run,) = shop.runs()
    found = {(result.get("feature"), result["metric"]): result for result in decode_results(run.document)}
    with shop.database.reading() as session:
        baseline = baselines.sample(shop.lake, session.scalars(select(BaselineRow)).one())
    assert baseline is not None
    ages = [np.asarray(table["features.age"]) for table in (baseline, stream(0, 24, shift=0.5))]
    assert found["age", "evidently_ks"]["value"] == pytest.approx(stats.ks_2samp(*ages).pvalue)
    assert found["age", "es"]["value"] == pytest.approx(stats.epps_singleton_2samp(*ages).pvalue)
    assert found["age", "evidently_ks"]["unit"] == "p-value"
    assert found["age", "evidently_ks"]["direction"] == "lower_is_worse"
    assert found["age", "evidently_ks"]["note"] == f"of 72 rows against {baseline.num_rows}"
    assert "p_value" not in found["age", "evidently_ks"]
    jobs = [
        pd.Series(np.asarray(table["features.job"])).value_counts() for table in (baseline, stream(0, 24, shift=0.5))
    ]
    expected = stats.chisquare(jobs[1].sort_index(), jobs[0].sort_index() * 72 / baseline.num_rows).pvalue
    assert found["job", "evidently_chisquare"]["value"] == pytest.approx(expected)
