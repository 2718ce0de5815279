"""Discovery: what is in the packages and in installed plug-ins is found, and nothing else has to be told."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalogue.discovery import NameTakenError
from monitors import discovery
from monitors import statistics as package
from monitors.contract import Kind
from monitors.drift import DriftParameters, measure_columns
from monitors.testing import comparison, feature

OVERLAP = '''
"""One minus the shares in common."""

from typing import ClassVar

import numpy as np

from monitors.contract import BinnedStatistic


class Overlap(BinnedStatistic):
    """Total variation distance."""

    name: ClassVar[str] = "overlap"
    source: ClassVar[str] = "Weitzman (1970)"

    def value(self, baseline, window, positions=None):
        """Return it."""
        return np.abs(self.shares(baseline) - self.shares(window)).sum(axis=-1) / 2
'''


@pytest.fixture(autouse=True)
def _looked_at_again() -> Iterator[None]:
    before = set(sys.modules)
    discovery.forget()
    yield
    for name in set(sys.modules) - before:
        if name.endswith("overlap"):
            del sys.modules[name]
    importlib.invalidate_caches()
    discovery.forget()


def test_a_statistic_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "overlap.py").write_text(OVERLAP)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    found = discovery.statistics()
    assert found["overlap"].value(np.array([1.0, 1.0]), np.array([1.0, 3.0])) == pytest.approx(0.25)
    assert discovery.by("overlap") == ""


def test_a_new_statistic_can_decide_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "overlap.py").write_text(OVERLAP)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    columns = [feature("age")]
    values = np.random.default_rng(1).normal(size=1000)
    compared = comparison(columns, {"age": values[:800]}, {"age": values[800:] + 3})
    (result,) = measure_columns(compared, columns, DriftParameters(methods={"numeric": "overlap"}))
    assert result.metric == "overlap"
    assert result.p_value is not None
    assert result.p_value < 1e-6


def test_a_plug_in_is_found_by_its_entry_point_and_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_overlap.py").write_text(OVERLAP.replace("    name:", "    contract = 1\n    name:"))
    about = tmp_path / "acme_monitors-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-monitors\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[plumbline.metrics]\noverlap = acme_overlap:Overlap\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "overlap" in discovery.statistics()
    assert discovery.by("overlap") == "acme-monitors 1.2"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (OVERLAP, "Overlap does not say which contract it was made for: contract = 1"),
        (OVERLAP.replace("    name:", "    contract = 2\n    name:"), "was made for contract 2, this is contract 1"),
        (OVERLAP.replace("    name:", "    contract = 1\n    name:").replace('"overlap"', '"psi"'), "psi is taken by"),
        ("import nowhere_to_be_found", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_plug_in_that_cannot_be_used_is_refused_with_a_reason_and_the_rest_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    (tmp_path / "broken_overlap.py").write_text(source)
    about = tmp_path / "acme_monitors-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-monitors\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[plumbline.metrics]\noverlap = broken_overlap\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "psi" in discovery.statistics()
    assert "overlap" not in discovery.statistics()
    (refused,) = discovery.refused()
    assert (refused.group, refused.entry_point, refused.by) == ("plumbline.metrics", "overlap", "acme-monitors 1.2")
    assert reason in refused.reason


def test_two_statistics_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second_overlap.py").write_text(OVERLAP.replace('"overlap"', '"psi"'))
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(NameTakenError, match="psi"):
        discovery.statistics()


def test_every_module_of_the_package_holds_one_statistic() -> None:
    files = {path.stem for path in Path(str(package.__file__)).parent.glob("[a-z]*.py")}
    assert files == {name.lower() for name in discovery.statistics()}


def test_kinds_are_found_with_their_parameters() -> None:
    found = discovery.kinds()
    assert {"data_quality", "data_drift", "prediction_drift"} <= set(found)
    for name, kind in found.items():
        assert isinstance(kind, Kind)
        assert kind.name == name
        assert kind.title
        schema = kind.parameters.model_json_schema()
        assert schema["additionalProperties"] is False
