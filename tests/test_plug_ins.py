"""A company's own statistic, metric and monitor, as one file in the tree and as an installed wheel: seen everywhere."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from monitors import discovery
from tests.service.opened import opened

ROOT = Path(__file__).parent.parent
ACME = ROOT / "tests" / "acme"
PIP = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the company's wheel and install it into a folder of its own."""
    pytest.importorskip("hatchling", reason="building needs requirements/build.txt, which `make install` installs")
    folder = tmp_path_factory.mktemp("acme")
    source, target = shutil.copytree(ACME, folder / "source"), folder / "target"
    subprocess.run([*PIP, "install", "--no-deps", "--no-build-isolation", "--target", target, source], check=True)
    return target


@pytest.fixture(scope="module")
def client(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Open a service that has the company's packages on its path."""
    sys.path.insert(0, str(installed))
    importlib.invalidate_caches()
    discovery.forget()
    with opened(tmp_path_factory.mktemp("service")) as found:
        yield found
    sys.path.remove(str(installed))
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_monitors"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    discovery.forget()


def rows(start: datetime, days: int, seed: int, shift: float = 0.0) -> str:
    """Return 600 rows a day as CSV, every fifth label another than the prediction."""
    ages = np.random.default_rng(seed).normal(shift, 1, 600 * days)
    step = timedelta(days=1) / 600
    lines = [
        f"{seed}-{i},{(start + step * i).isoformat()},{age},{int(age > 0)},{int((age > 0) ^ (i % 5 == 0))}"
        for i, age in enumerate(ages)
    ]
    return "\n".join(["prediction_id,timestamp,age,prediction,ground_truth", *lines])


@pytest.fixture(scope="module")
def run(client: TestClient) -> dict[str, Any]:
    """Make a model with monitors of the company's kind, by its statistic and by its metric; run a shifted day."""
    declared = {"name": "m", "task": "binary", "classes": ["0", "1"], "positive_class": "1"}
    assert client.post("/v1/models", json=declared).status_code == 201
    csv = {"Content-Type": "text/csv", "Prefer": "wait=60"}
    made = client.post("/v1/models/m/baselines?name=b", content=rows(START - 4 * DAY, 4, 1), headers=csv)
    assert made.status_code == 201, made.text
    for name, body in (
        ("caps", {"kind": "ceilings", "parameters": {"least": 0.02}}),
        ("inputs", {"kind": "data_drift", "parameters": {"methods": {"numeric": "overlap"}}}),
        ("worth", {"kind": "performance", "parameters": {"metrics": ["informedness"]}}),
    ):
        answer = client.post("/v1/models/m/monitors", json={"name": name, "start": START.isoformat(), **body})
        assert answer.status_code == 201, answer.text
    span = {"from": START.isoformat(), "to": (START + DAY).isoformat()}
    replay = client.post("/v1/models/m/replays", json=span)
    assert replay.status_code == 201, replay.text
    sent = client.post("/v1/models/m/predictions", content=rows(START, 1, 2, shift=3.0), headers=csv)
    assert sent.json()["accepted"] == 600, sent.text
    closed = client.delete(replay.headers["location"], headers={"Prefer": "wait=60"})
    assert closed.status_code == 200, closed.text
    found = {}
    for name in ("caps", "inputs", "worth"):
        (listed,) = client.get(f"/v1/models/m/monitors/{name}/runs").json()["items"]
        found[name] = client.get(f"/v1/models/m/runs/{listed['id']}").json()
    return found


def test_the_catalogue_shows_what_is_installed_and_where_it_comes_from(client: TestClient) -> None:
    kinds = {item["name"]: item for item in client.get("/v1/catalog/monitors").json()["items"]}
    metrics = {item["name"]: item for item in client.get("/v1/catalog/metrics").json()["items"]}
    origins = {kinds["ceilings"]["by"], metrics["overlap"]["by"], metrics["informedness"]["by"]}
    assert origins == {"acme_monitors 1.2"}
    assert metrics["informedness"]["range"] == [-1.0, 1.0]
    assert kinds["ceilings"]["parameters"]["properties"]["least"]["default"] == 0.01
    assert metrics["psi"]["by"] is None


def test_a_plug_in_of_another_contract_is_refused_with_a_sentence_and_the_rest_works(client: TestClient) -> None:
    answer = client.get("/v1/catalog/metrics").json()
    assert answer["refused"] == [
        {
            "entry_point": "outdated",
            "by": "acme_monitors 1.2",
            "reason": "Outdated was made for contract 0, this is contract 1",
        }
    ]
    assert "outdated" not in {item["name"] for item in answer["items"]}


def test_a_monitor_of_an_installed_kind_is_checked_by_its_parameters(client: TestClient, run: Any) -> None:
    body = {"name": "bad", "kind": "ceilings", "parameters": {"leest": 1}}
    answer = client.post("/v1/models/m/monitors", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/parameters/leest"


def test_results_say_which_plug_in_measured_them(run: dict[str, Any]) -> None:
    (caps,) = run["caps"]["results"]
    assert (caps["metric"], caps["feature"], caps["verdict"]) == ("above_ceiling", "age", "violated")
    assert caps["by"] == "acme_monitors 1.2"
    (overlap,) = [one for one in run["inputs"]["results"] if one["metric"] == "overlap"]
    assert (overlap["verdict"], overlap["by"]) == ("violated", "acme_monitors 1.2")
    # Normal(0, 1) against Normal(3, 1): 1 - 2 Phi(-3/2) = 0.866; on bins of the pooled rows a little less.
    assert overlap["value"] == pytest.approx(0.866, abs=0.05)


def test_a_metric_of_a_plug_in_is_judged_like_any_other(run: dict[str, Any]) -> None:
    (found,) = [one for one in run["worth"]["results"] if one["metric"] == "informedness"]
    assert found["by"] == "acme_monitors 1.2"
    # Half of the baseline's predictions are 1 and a fifth of its labels are turned over: 0.8 + 0.8 - 1 = 0.6. On the
    # day nearly all are 1, so nearly all negatives are called positive: recall 1, specificity near 0.
    assert found["baseline_value"] == pytest.approx(0.6, abs=0.05)
    assert found["value"] == pytest.approx(0.0, abs=0.05)
    assert found["verdict"] == "violated"


def test_the_pages_show_what_a_plug_in_found(client: TestClient, run: dict[str, Any]) -> None:
    page = client.get("/models/m/results.json?range=all").json()
    assert page["monitors"] == ["caps"]
    (check,) = page["checks"]
    assert (check["metric"], check["standing"], check["by"]) == ("above_ceiling", "violated", "acme_monitors 1.2")
    assert "measured by acme_monitors 1.2" in client.get("/models/m/results?range=all").text
    assert "above ceiling" in client.get("/models/m/results?range=all").text


@pytest.mark.long
def test_the_common_battery_runs_from_installed_packages(installed: Path, wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    shutil.copy(ACME / "battery.py", tmp_path / "test_battery.py")
    passed(tmp_path, [tmp_path / "test_battery.py"], site, installed, at_least=15)


@pytest.mark.long
def test_a_statistic_a_metric_and_a_kind_are_one_file_each_in_the_tree(tmp_path: Path) -> None:
    for name in ("service", "monitors", "explainers", "dashboards", "catalogue", "migrations", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ACME / "acme_monitors" / "overlap.py", tmp_path / "monitors" / "statistics")
    shutil.copy(ACME / "acme_monitors" / "informedness.py", tmp_path / "monitors" / "metrics")
    shutil.copy(ACME / "acme_monitors" / "ceilings.py", tmp_path / "monitors" / "kinds")
    code = """
import json, pathlib, sys
from tests.service.opened import opened
with opened(pathlib.Path(sys.argv[1])) as client:
    kinds, metrics = (client.get(f"/v1/catalog/{name}").json()["items"] for name in ("monitors", "metrics"))
    client.post("/v1/models", json={"name": "m", "task": "binary"})
    made = client.post("/v1/models/m/monitors", json={"name": "caps", "kind": "ceilings"})
    asked = {"name": "worth", "kind": "performance", "parameters": {"metrics": ["informedness"]}}
    worth = client.post("/v1/models/m/monitors", json=asked).status_code
    names = [[i["name"] for i in found] for found in (kinds, metrics)]
    print(json.dumps([*names, made.status_code, made.json(), worth]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "data"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    kinds, metrics, status, made, worth = json.loads(done.stdout.splitlines()[-1])
    assert "ceilings" in kinds
    assert {"overlap", "informedness"} <= set(metrics)
    assert worth == 201
    assert (status, made["parameters"]) == (201, {"least": 0.01})
    batteries = [
        tmp_path / "tests" / "monitors" / name for name in ("test_statistics.py", "test_metrics.py", "test_kinds.py")
    ]
    passed(tmp_path, [*batteries, "-k", "overlap or informedness or ceilings"], tmp_path, at_least=16)


def passed(folder: Path, arguments: list[Any], *path: Path, at_least: int) -> None:
    """Run pytest away from this checkout, and hold that enough tests ran and none failed."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            folder,
            *arguments,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(done.stdout.rsplit(" passed", 1)[0].split()[-1]) >= at_least, done.stdout
