"""The distribution: built, installed into an empty environment outside the checkout, and started from there."""

import os
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.running import PATIENCE, free_port

ROOT = Path(__file__).parent.parent
KEY = "plk_packaged_0123456789abcdefghijklmnopqrstuvwxyzABC"
RECORD = {"prediction_id": "p-1", "prediction": 1, "score": 0.9, "features": {"age": 41, "job": "clerk"}}


def test_the_wheel_holds_pages_scripts_and_migrations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "dashboards/static/vega-bundle.js" in names
    assert any(name.startswith("dashboards/templates/") and name.endswith(".html") for name in names)
    assert any(name.startswith("migrations/versions/0001") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    packages = {name.split("/")[0] for name in names}
    assert {name for name in packages if not name.endswith(".dist-info")} == {
        "service", "monitors", "explainers", "dashboards", "catalogue", "migrations"
    }  # fmt: skip
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.long
def test_the_service_starts_from_an_empty_environment_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--quiet", "--no-input", "--retries=10", "--timeout=60", "install"]
    locked = [*pip, "--no-deps", "--require-hashes", "-r", ROOT / "requirements" / "serve.txt"]
    if subprocess.run(locked, check=False).returncode:  # it comes over a network, which may fail once
        subprocess.run(locked, check=True)
    subprocess.run([*pip, "--no-deps", wheel], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    starts_and_works(tmp_path / "venv" / "bin" / "plumbline", tmp_path)


@pytest.mark.long
def test_the_service_starts_from_the_unpacked_wheel_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    # The short form: the wheel's files alone, over the libraries of this environment.
    folder = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(folder)
    start = tmp_path / "plumbline"
    start.write_text(
        f"#!{sys.executable} -P\nimport sys\nsys.path.insert(0, {str(folder)!r})\n"
        "from service.cli.main import main\nimport service\n"
        f"assert service.__file__.startswith({str(folder)!r}), service.__file__\nmain()\n"
    )
    start.chmod(0o755)
    starts_and_works(start, tmp_path)


def starts_and_works(command: Path, folder: Path) -> None:
    """Start `serve` away from the checkout, look at its pages, and store a record."""
    port = free_port()
    away = folder / "away"
    away.mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [command, "serve", "--port", str(port), "--data", str(folder / "data")],
            cwd=away,
            env={**environment, "PLUMBLINE_ADMIN_KEY": KEY},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and process.poll() is None:
                with suppress(httpx2.TransportError):
                    if client.get("/healthz").status_code == 200:
                        break
                time.sleep(0.1)
            else:
                raise AssertionError((folder / "log").read_text()[-4000:])
            page = client.get("/sign-in")
            assert page.status_code == 200
            assert page.headers["content-type"].startswith("text/html")
            bundle = [part for part in page.text.split('"') if part.startswith("/static/")]
            assert bundle
            for path in bundle:
                assert client.get(path).status_code == 200, path
            headers = {"Authorization": f"Bearer {KEY}"}
            made = client.post("/v1/models", json={"name": "m", "task": "binary"}, headers=headers)
            assert made.status_code == 201, made.text
            stored = client.post("/v1/models/m/predictions", json=RECORD, headers=headers)
            assert stored.status_code == 200, stored.text
            assert stored.json()["accepted"] == 1
            assert client.get("/v1/models/m/predictions/p-1", headers=headers).status_code == 200
            assert client.get("/", headers=headers).status_code == 200
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()[-4000:]
