"""What a monitor compares with: the same hours of the week, and the windows before, each with a null of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select, update

from monitors.slices import Slice
from service import baselines
from service.runs import decode_results
from service.tables import BaselineRow, MonitorRow
from tests.service import watched
from tests.service.watched import Watched, day

WEEKEND = 2.0


def weekly(first: int, last: int, **how: Any) -> pa.Table:
    """Return rows whose ages are two standard deviations higher on the sixth and seventh day of each week."""
    table = watched_stream(first, last, **how)
    ages = np.asarray(table["features.age"])
    weekday = (np.arange(first * watched.PER_HOUR, last * watched.PER_HOUR) // watched.PER_HOUR) // 24 % 7
    place = table.column_names.index("features.age")
    return table.set_column(place, "features.age", pa.array(ages + 10 * WEEKEND * (weekday >= 5)))


watched_stream = watched.stream


def shop_with(tmp_path: Path, baseline: str, days: int, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return the shop with so many days of weekly baseline, its monitor comparing with what is asked."""
    monkeypatch.setattr(watched, "BASELINE_DAYS", days)
    monkeypatch.setattr(watched, "stream", weekly)
    shop = Watched(tmp_path)
    with shop.database.writing() as session:
        session.execute(update(MonitorRow).values(baseline=baseline))
    return shop


def age(shop: Watched) -> list[dict[str, Any]]:
    """Return the result about age of each run."""
    documents = [decode_results(run.document) for run in shop.runs()]
    return [
        found
        for document in documents
        for found in document
        if found.get("feature") == "age" and found["decides"] and found["scale"] == 1
    ]


def test_a_seasonal_monitor_compares_a_day_with_the_same_days_of_the_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_with(tmp_path, "seasonal", 7 * 24, monkeypatch)
    shop.stream(0, 24 * 7)
    shop.stream(24 * 7, 24 * 8, shift=WEEKEND)  # the eighth day is a weekday with a weekend's ages
    shop.at_hour(24 * 8 + 1)
    shop.run()
    found = age(shop)
    assert [result["verdict"] for result in found] == ["ok"] * 7 + ["violated"]
    assert {result["n_baseline"] for result in found} == {24 * 24 * watched.PER_HOUR}  # 24 weeks of one day
    assert all("note" not in result for result in found)
    shop.database.close()


def test_the_same_shift_hides_in_a_baseline_that_knows_no_season(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_with(tmp_path, "active", 7 * 24, monkeypatch)
    shop.stream(0, 24, shift=WEEKEND)
    shop.at_hour(25)
    shop.run()
    (result,) = age(shop)
    assert result["verdict"] == "ok"  # two days in seven look like that
    shop.database.close()


def test_a_season_that_is_not_known_yet_is_said_and_the_whole_baseline_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = shop_with(tmp_path, "seasonal", 7 * 6, monkeypatch)
    shop.stream(0, 24)
    shop.at_hour(25)
    shop.run()
    (result,) = age(shop)
    assert result["n_baseline"] == 7 * 6 * 24 * watched.PER_HOUR
    assert "holds these hours of 6 weeks, of 20, and production holds them of 0" in result["note"]
    shop.database.close()


def test_a_rolling_baseline_has_the_null_of_its_own_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Watched(tmp_path)
    with shop.database.writing() as session:
        session.execute(update(MonitorRow).values(baseline="rolling"))
    shop.stream(0, 24 * 22)
    shop.stream(24 * 22, 24 * 23, shift=1.0)
    shop.at_hour(24 * 23 + 1)
    shop.run()
    first, *_ = shop.runs()
    assert (first.status, first.reason) == ("insufficient_data", "no earlier window is left to compare with")
    found = age(shop)
    assert found[4]["note"] == (
        "calibrating, 0 of 20: assumes independent rows; the rolling baseline has 5 of 20 windows"
    )
    assert [result["n_baseline"] for result in found[:3]] == [72, 144, 216]
    assert "note" not in found[-1]
    assert found[-1]["verdict"] == "violated"
    assert all(result["verdict"] == "ok" for result in found[:-1])
    shop.database.close()


def test_a_season_of_a_slice_holds_the_slice_s_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = shop_with(tmp_path, "seasonal", 7 * 20, monkeypatch)
    with shop.database.reading() as session:
        row = session.scalars(select(BaselineRow)).one()
        layout = baselines.layout(session, row.version_id, row.layout or 1)
    clerks = Slice("clerks", {"features.job": ["clerk"]})
    found = baselines.season(shop.lake, row, layout, day(0), clerks)
    assert not isinstance(found, str)
    profile, blocks = found
    rows = baselines.rows_of(shop.lake, row)
    first_days = (np.arange(rows.num_rows) // (24 * watched.PER_HOUR)) % 7 == 0
    expected = int((np.asarray(rows["features.job"]) == "clerk")[first_days].sum())
    assert profile.rows == int(blocks.rows.sum()) == expected
    assert len(blocks) == 20
    shop.database.close()
