"""Real streams end to end through a running service with the default monitors: elec2, bike sharing, air quality."""

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.running import Service
from tests.test_car_loan import Run, replayed, runs_of, violated

STARTS = "1996-05-07"


def replay(
    plumbline: Run, service: Service, folder: Path, model: str, baseline: pd.DataFrame, stream: pd.DataFrame, *more: str
) -> dict[str, Any]:
    """Write both as files and replay the stream against the baseline."""
    files = {"baseline": baseline, "stream": stream}
    for name, rows in files.items():
        rows.to_parquet(folder / f"{name}.parquet")
    return replayed(
        plumbline, service, str(folder / "stream.parquet"), "--model", model,
        "--baseline", str(folder / "baseline.parquet"), "--time", "at", *more,
    )  # fmt: skip


def measured(client: httpx2.Client, model: str) -> dict[str, dict[str, Any]]:
    """Return the runs of data drift that measured something, by the day their window begins on."""
    runs = runs_of(client, model, "data_drift")
    return {run["window"]["from"][:10]: run for run in runs if run["status"] not in ("no_data", "insufficient_data")}


@pytest.mark.long
def test_elec2_prices_of_victoria_and_the_transfer_are_found_to_move_from_row_17424_on(
    shared_service: Service, shared_data: Path, plumbline: Run, tmp_path: Path
) -> None:
    rows = pd.read_parquet(shared_data / "elec2_nsw" / "elec2.parquet").drop(columns=["date", "day", "period"])
    rows["at"] = pd.date_range(STARTS, periods=len(rows), freq="30min", tz="UTC")
    rows = rows.rename(columns={"class": "prediction"})
    days = 48
    done = replay(
        plumbline, shared_service, tmp_path, "elec2", rows[: 300 * days], rows[300 * days : 390 * days],
        "--window", "7d", "--prediction", "prediction",
    )  # fmt: skip
    assert done["accepted"] == 90 * days
    began = {"vicprice", "vicdemand", "transfer"}
    moved = str(rows["at"][17_424].date())  # 1997-05-05
    with shared_service.client() as client:
        runs = measured(client, "elec2")
    before = [run for day, run in runs.items() if day < moved]
    after = [run for day, run in runs.items() if day >= moved]
    assert len(before) >= 6
    assert len(after) >= 2
    assert not any(began & violated(run) for run in before)
    assert all(began <= violated(run) for run in after)


@pytest.mark.long
def test_bike_sharing_of_february_2011_against_january(
    shared_service: Service, shared_data: Path, plumbline: Run, tmp_path: Path
) -> None:
    hours = pd.read_parquet(shared_data / "bike_sharing" / "hour.parquet")
    hours["at"] = pd.to_datetime(hours["dteday"], utc=True) + pd.to_timedelta(hours["hr"], unit="h")
    kept = ["at", "temp", "atemp", "hum", "windspeed", "holiday", "workingday", "cnt"]
    january, february = (hours.loc[(hours["yr"] == 0) & (hours["mnth"] == month), kept] for month in (1, 2))
    done = replay(
        plumbline, shared_service, tmp_path, "bikes", january, february,
        "--window", "1mo", "--prediction", "cnt", "--task", "regression",
    )  # fmt: skip
    assert done["accepted"] == len(february)
    with shared_service.client() as client:
        (run,) = measured(client, "bikes").values()
    assert run["window"]["from"].startswith("2011-02-01")
    found = {result["feature"]: result for result in run["results"] if result.get("decides") and "value" in result}
    for column in ("temp", "atemp", "hum", "windspeed"):
        old, new = january[column].to_numpy(np.float64), february[column].to_numpy(np.float64)
        expected = stats.wasserstein_distance(old, new) / old.std()
        # every value of January has a cell of its own; a value that only February has counts at its cell's mean
        between = new[~np.isin(new, old)]
        bound = (np.ptp(np.append(between, 0)) * between.size / new.size + 1e-9) / old.std()
        assert abs(found[column]["value"] - expected) <= bound, column
    assert {"temp", "atemp"} <= violated(run)  # it became warmer
    assert "calibrating" in found["temp"]["note"]  # one month holds no 20 months


@pytest.mark.long
def test_air_quality_of_summer_is_not_that_of_spring(
    shared_service: Service, shared_data: Path, plumbline: Run, tmp_path: Path
) -> None:
    rows = pd.read_parquet(shared_data / "air_quality_uci" / "air_quality.parquet")
    rows["at"] = pd.to_datetime(rows["timestamp"], utc=True)
    names = {
        "PT08.S1(CO)": "co_sensor",
        "PT08.S5(O3)": "o3_sensor",
        "T": "temperature",
        "RH": "humidity",
        "AH": "water",
    }
    numbers = rows[["at", *names]].rename(columns=names)
    numbers[list(names.values())] = numbers[list(names.values())].replace(-200, np.nan)  # its mark of a missing value
    spring = numbers[numbers["at"] < "2004-05-03"]
    later = numbers[(numbers["at"] >= "2004-05-03") & (numbers["at"] < "2004-08-02")]
    done = replay(plumbline, shared_service, tmp_path, "air", spring, later, "--window", "7d", "--task", "regression")
    assert done["accepted"] == len(later)
    with shared_service.client() as client:
        runs = measured(client, "air")
        quality = runs_of(client, "air", "data_quality")
    july = [run for day, run in runs.items() if day.startswith("2004-07")]
    assert len(july) == 4  # a day has 24 rows, fewer than are judged
    assert all("temperature" in violated(run) for run in july)
    assert {run["status"] for run in quality} <= {"ok", "violations", "partial", "no_data", "insufficient_data"}
