"""The README: every block in it can be copied and runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tests.running import Service

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def churn(folder: Path) -> None:
    """Write the files that the README speaks of: a reference and four days of predictions with what became true."""
    random = np.random.default_rng(5)
    for name, rows, start in (("reference", 2400, "2026-01-01"), ("predictions", 400, "2026-02-01")):
        score = random.random(rows).round(3)
        pd.DataFrame(
            {
                "id": [f"{name}-{row}" for row in range(rows)],
                "at": pd.date_range(start, periods=rows, freq="15min"),
                "age": random.integers(18, 90, rows),
                "plan": random.choice(["basic", "plus"], rows),
                "calls": random.poisson(2, rows),
                "said": (score > 0.5).astype(int),
                "probability": score,
                "left": (random.random(rows) < score).astype(int),
            }
        ).to_csv(folder / f"{name}.csv", index=False)


def test_the_readme_fits_one_screen_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 90
    assert "make demo" in text
    assert "make test" in text
    assert len(BLOCKS) == 6
    things = re.findall(r"^\*\*(\d)\. (.+?)\*\*", text, re.M)
    assert [name for _, name in things] == [
        "Post predictions",
        "Post labels",
        "Add a monitor",
        "Receive a webhook",
        "Read an alert",
    ]


def test_every_block_of_the_readme_runs(tmp_path: Path, shared_service: Service) -> None:
    churn(tmp_path)
    for block in BLOCKS:
        script = block.replace("http://127.0.0.1:8000", shared_service.url).replace(
            ".venv/bin/plumbline", f"{sys.executable} -m service.cli.main"
        )
        # An address that the outbound guard can resolve without a network.
        script = script.replace("https://example.com/plumbline", "http://127.0.0.1:9/plumbline")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PLUMBLINE_KEY": shared_service.admin_key,
                "PLUMBLINE_URL": shared_service.url,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
