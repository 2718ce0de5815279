"""Ways to explain, formats and protocols of plug-ins: found, or left out with a reason while the service goes on."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pytest

from explainers import discovery
from service.confinement import Answer
from service.worker import Worker
from tests.service.opened import opened

HALVES = '''
"""The same for each input."""

import numpy as np

from explainers.contract import Attributions, Method


class Halves(Method):
    """It is additive and knows nothing."""

    name = "halves"
    title = "halves"
    source = "here"
    contract = 1

    def refusal(self, question):
        """Return "" always."""
        return ""

    def attribute(self, question):
        """Return the same share for every input."""
        told = question.bound.predict(question.rows, question.scale)
        players = len(question.bound.players)
        values = np.repeat(told[:, None, :], players, axis=1) / players
        return Attributions(values=values, base=np.zeros(told.shape[1]), predictions=told)
'''
BROKEN = {
    "raises at import": ("raise RuntimeError('out of order')", "cannot be imported: RuntimeError: out of order"),
    "says no contract": (
        HALVES.replace("    contract = 1\n", ""),
        "Halves does not say which contract it was made for",
    ),
    "of another contract": (HALVES.replace("contract = 1", "contract = 9"), "was made for contract 9"),
    "takes a name": (HALVES.replace('"halves"', '"native"'), "the name native is taken by Plumbline itself"),
    "cannot be made": (HALVES + "\n    def __init__(self, at):\n        pass\n", "cannot be made without arguments"),
}
Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return what installs a source as the plug-in of a distribution."""

    def installed(source: str) -> None:
        (tmp_path / "acme_halves.py").write_text(source)
        about = tmp_path / "acme_explainers-1.2.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-explainers\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text("[plumbline.explainers]\nhalves = acme_halves\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        discovery.forget()

    yield installed
    monkeypatch.undo()
    sys.modules.pop("acme_halves", None)
    importlib.invalidate_caches()
    discovery.forget()


def explained(method: str) -> str:
    """Return how a fresh worker process explains one row of a model behind an endpoint."""
    row = pa.table({"a": [1.0], "b": [2.0]})
    document = {"manifest": {"columns": ["a", "b"]}, "protocol": "plain", "method": method}

    def reply(_document: object, tables: Mapping[str, pa.Table]) -> Answer:
        asked = json.loads(tables["body"]["body"][0].as_py())["records"]
        return {}, {"body": pa.table({"body": [json.dumps({"predictions": [0.5] * len(asked)}).encode()]})}

    worker = Worker()
    try:
        told, _ = worker.call("explanations.attribute", document, tables={"rows": row, "background": row}, reply=reply)
        return str(told["method"])
    finally:
        worker.close()


def test_a_way_to_explain_is_found_by_its_entry_point_and_works_in_the_worker_process(install: Install) -> None:
    install(HALVES)
    assert discovery.by(discovery.methods()["halves"]) == "acme-explainers 1.2"
    assert discovery.by(discovery.methods()["native"]) == ""
    assert not discovery.refused()
    assert explained("halves") == "halves"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plug_in_that_cannot_be_used_is_left_out_with_the_reason(install: Install, fault: str) -> None:
    source, reason = BROKEN[fault]
    install(source)
    assert {"native", "permutation"} <= set(discovery.methods())
    assert "halves" not in discovery.methods()
    (refused,) = discovery.refused()
    assert (refused.group, refused.entry_point, refused.by) == (discovery.GROUP, "halves", "acme-explainers 1.2")
    assert reason in refused.reason


def test_the_service_starts_and_explains_beside_a_plug_in_that_raises_when_it_is_imported(
    install: Install, tmp_path: Path
) -> None:
    source, reason = BROKEN["raises at import"]
    install(source)
    (tmp_path / "data").mkdir()
    with opened(tmp_path / "data") as client:
        told = client.get("/v1/catalog/explainers").json()
        assert {"native", "xgboost", "v2"} <= {item["name"] for item in told["items"]}
        assert [(one["entry_point"], reason in one["reason"]) for one in told["refused"]] == [("halves", True)]
    assert explained("auto") == "enumeration"
