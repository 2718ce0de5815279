"""Evidently's own methods on the row samples: the figures that others published, by the task that runs ask for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from monitors import discovery
from monitors.budget import BudgetPolicy, PolicyInvalidError, parse_policy
from monitors.contract import Column, Comparison, Result, Role, Subject, Type, Verdict, WorkNotDoneError
from monitors.drift import DriftParameters
from monitors.exact import exact_comparison
from monitors.kinds.mmd import kernel, squared
from service.confinement import Request
from service.tasks import evidently
from tests.monitors.test_statistics import anderson_sigma

SIX_OLD = np.repeat(np.arange(1.0, 7.0), [16, 18, 16, 14, 12, 12])
SIX_NEW = np.repeat(np.arange(1.0, 7.0), [16, 16, 16, 16, 16, 8])
EIGHT_OLD = np.array([38.7, 41.5, 43.8, 44.5, 45.5, 46.0, 47.7, 58.0])
EIGHT_NEW = np.array([39.2, 39.3, 39.7, 41.4, 41.8, 42.9, 43.3, 45.8])


def done_here(task: str, document: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Mapping[str, Any]:
    """Do the worker's task in this process."""
    tasks = {"evidently.stat_tests": evidently.stat_tests, "evidently.embedding_drift": evidently.embedding_drift}
    return tasks[task](Request(document, tables, {}, lambda *_: ({}, {})))[0]


def compared(
    columns: list[Column], baseline: Mapping[str, Any], window: Mapping[str, Any], work: Any = done_here
) -> Comparison:
    """Return rows compared exactly, with Evidently at hand."""
    types = {Type.NUMERIC: pa.float64(), Type.BOOLEAN: pa.bool_(), Type.EMBEDDING: pa.list_(pa.float64())}
    old, new = (
        pa.table(
            {
                column.name: pa.array(rows[column.label], types.get(column.type, pa.string()), from_pandas=True)
                for column in columns
            }
        )
        for rows in (baseline, window)
    )

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        return np.random.default_rng([*f"{metric} {subject}".encode()])

    return replace(exact_comparison(columns, old, new, generator=generator), work=work)


def column(name: str, type_: Type) -> Column:
    return Column(name=f"features.{name}", role=Role.FEATURE, type=type_)


def shown(type_: Type, baseline: Any, window: Any, *names: str) -> dict[str, Result]:
    """Return what is shown of one column, by metric."""
    asked = DriftParameters(also=list(names), min_rows=1)
    comparison = compared([column("x", type_)], {"x": baseline}, {"x": window})
    return {result.metric: result for result in discovery.kinds()["data_drift"].measure(comparison, asked)}


def values(type_: Type, baseline: Any, window: Any, *names: str) -> dict[str, float]:
    """Return the values that are shown of one column."""
    found = shown(type_, baseline, window, *names)
    return {name: result.value for name, result in found.items() if result.value is not None}


def test_expected_6_1_the_six_sided_example() -> None:
    numbers = values(
        Type.NUMERIC,
        SIX_OLD,
        SIX_NEW,
        "mannw",
        "es",
        "evidently_psi",
        "evidently_jensenshannon",
        "evidently_kl_div",
        "evidently_wasserstein",
        "evidently_ks",
        "ed",
    )
    assert numbers["mannw"] == pytest.approx(0.481, abs=1e-2)
    assert numbers["es"] == pytest.approx(0.81, abs=1e-2)
    assert numbers["evidently_psi"] == pytest.approx(0.0372183816, abs=1e-9)
    assert numbers["evidently_jensenshannon"] == pytest.approx(0.0680481962, abs=1e-9)
    assert numbers["evidently_kl_div"] == pytest.approx(0.0189096770, abs=1e-9)
    assert numbers["evidently_wasserstein"] == pytest.approx(0.0544331054, abs=1e-9)
    assert numbers["wasserstein"] == pytest.approx(0.0544331054, abs=1e-9)
    assert numbers["evidently_ks"] == pytest.approx(0.9999926, abs=1e-6)
    old, new = ([f"{value:g}" for value in part] for part in (SIX_OLD, SIX_NEW))
    texts = values(
        Type.CATEGORICAL,
        old,
        new,
        "evidently_chisquare",
        "evidently_hellinger",
        "hellinger",
        "evidently_TVD",
        "psi",
        "kl_div",
        "TVD",
    )
    assert texts["evidently_chisquare"] == pytest.approx(0.67309, abs=1e-5)
    assert texts["evidently_hellinger"] == pytest.approx(0.06812, abs=1e-5)
    assert texts["hellinger"] == pytest.approx(0.06812, abs=1e-5)
    assert texts["evidently_TVD"] == pytest.approx(0.928, abs=0.02)  # a permutation test of 1,000 draws
    assert texts["psi"] == pytest.approx(0.0372183816, abs=1e-9)
    assert texts["kl_div"] == pytest.approx(0.0189096770, abs=1e-9)


def test_expected_6_2_the_eight_values_example() -> None:
    found = values(
        Type.NUMERIC, EIGHT_OLD, EIGHT_NEW, "evidently_anderson", "t_test", "evidently_ks", "evidently_wasserstein",
        "evidently_psi", "evidently_jensenshannon", "anderson", "ks",
    )  # fmt: skip
    assert found["evidently_anderson"] == pytest.approx(0.0635, abs=1e-3)
    assert found["t_test"] == pytest.approx(0.084, abs=1e-3)
    assert found["evidently_ks"] == pytest.approx(0.0870240870, abs=1e-9)
    assert found["evidently_wasserstein"] == pytest.approx(0.7812361058, abs=1e-9)
    assert found["wasserstein"] == pytest.approx(0.7812361058, abs=1e-9)
    assert found["evidently_psi"] == pytest.approx(14.2503882, abs=1e-6)
    assert found["evidently_jensenshannon"] == pytest.approx(0.8325546, abs=1e-6)
    assert found["ks"] == pytest.approx(0.625)
    theirs = stats.anderson_ksamp([EIGHT_OLD, EIGHT_NEW], variant="midrank").statistic
    assert (found["anderson"] - 1) / anderson_sigma(8, 8) == pytest.approx(theirs)


def test_expected_6_2_the_energy_distance_of_values_moved_by_five() -> None:
    found = values(Type.NUMERIC, EIGHT_OLD, EIGHT_OLD + 5, "ed", "evidently_ed")
    assert found["evidently_ed"] == pytest.approx(1.93326, abs=1e-5)
    assert found["ed"] * np.sqrt(EIGHT_OLD.std()) == pytest.approx(1.93326, abs=1e-5)


def test_expected_6_3_g_cramer_von_mises_and_fisher() -> None:
    old, new = np.repeat(list("abc"), [5, 5, 8]), np.repeat(list("abc"), [4, 6, 8])
    assert values(Type.CATEGORICAL, old, new, "evidently_g_test")["evidently_g_test"] == pytest.approx(0.8176, abs=1e-3)
    normal = [stats.norm.rvs(size=100, random_state=seed) for seed in (0, 1)]
    found = values(Type.NUMERIC, *normal, "evidently_cramer_von_mises", "cramer_von_mises")
    assert found["evidently_cramer_von_mises"] == pytest.approx(0.8076839, abs=1e-3)
    assert found["cramer_von_mises"] == pytest.approx(stats.cramervonmises_2samp(*normal).statistic)
    for one, other, expected in (("abbaab" * 15, "bbabba" * 15, 0.033), ("aaabb" * 30, "bbbaa" * 30, 0.00078)):
        fisher = values(Type.CATEGORICAL, list(one), list(other), "fisher_exact")["fisher_exact"]
        assert fisher == pytest.approx(expected, abs=1e-3)


def kept(shared_data: Path, file: str) -> pd.DataFrame:
    """Return Evidently's scores that were kept; "" where it raised."""
    return pd.read_csv(shared_data / "reference_outputs" / "evidently" / file)


def of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the tests all rows: the published scores are not of a sample."""
    for statistic in discovery.row_statistics().values():
        if statistic.most_rows == 10_000:
            monkeypatch.setattr(type(statistic), "most_rows", 10**6)


def test_expected_6_4_the_car_values_of_the_car_loan_set(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_all_rows(monkeypatch)
    folder = shared_data / "nannyml_car_loan"
    old, new = (
        pd.read_parquet(folder / f"synthetic_car_loan_{part}.parquet")["car_value"].to_numpy(np.float64)
        for part in ("reference", "analysis")
    )
    names = ("evidently_psi", "evidently_jensenshannon", "evidently_wasserstein", "evidently_kl_div")
    found = values(Type.NUMERIC, old, new, *names)
    assert found["evidently_psi"] == pytest.approx(0.2372477, abs=1e-6)
    assert found["evidently_jensenshannon"] == pytest.approx(0.1709405, abs=1e-6)
    assert found["evidently_wasserstein"] == pytest.approx(0.473049, abs=1e-6)
    assert found["wasserstein"] == pytest.approx(0.473049, abs=1e-6)
    assert found["evidently_kl_div"] == pytest.approx(0.1196186, abs=1e-6)


def against_kept(table: pd.DataFrame, baseline: pd.DataFrame, window: pd.DataFrame) -> int:
    """Compare every kept score with ours; return how many there were."""
    ours = discovery.row_statistics()
    names = {statistic.method: name for name, statistic in ours.items()}
    types = {
        name: Type.NUMERIC if kind == "num" else Type.CATEGORICAL
        for name, kind in zip(table["column"], table["type"], strict=True)
    }
    columns = [column(name, type_) for name, type_ in types.items()]
    sides = [
        {
            name: part[name].to_numpy(np.float64) if type_ is Type.NUMERIC else part[name].astype(str).tolist()
            for name, type_ in types.items()
        }
        for part in (baseline, window)
    ]
    asked = DriftParameters(also=[names[method] for method in table["stattest"].unique() if method != "g_test"])
    found = {
        (result.subject.feature, result.metric): result
        for result in discovery.kinds()["data_drift"].measure(compared(columns, *sides), asked)
    }
    compared_scores = 0
    for _, row in table.iterrows():
        if pd.isna(row["score"]):
            continue
        result = found[row["column"], names[row["stattest"]]]
        assert result.value == pytest.approx(row["score"], rel=1e-6, abs=1e-9), (row["column"], row["stattest"])
        compared_scores += 1
    return compared_scores


def test_expected_6_4_every_kept_score_of_bike_sharing(shared_data: Path) -> None:
    table = kept(shared_data, "bike_2011-01_vs_2011-02wk1.csv")
    hours = pd.read_parquet(shared_data / "bike_sharing" / "hour.parquet")
    days = pd.to_datetime(hours["dteday"])
    baseline = hours[days.between("2011-01-01", "2011-01-28")]
    window = hours[days.between("2011-01-29", "2011-02-07")]
    assert against_kept(table, baseline, window) == table["score"].notna().sum() > 75


def test_expected_6_4_every_kept_score_of_adult(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = kept(shared_data, "adult_train_vs_test.csv")
    parts = [pd.read_parquet(shared_data / "adult" / f"adult_{part}.parquet") for part in ("train", "test")]
    of_all_rows(monkeypatch)
    assert against_kept(table, *parts) == table["score"].notna().sum() > 100


def test_each_row_statistic_tells_what_it_is_under_a_name_of_its_own() -> None:
    found = discovery.row_statistics()
    assert not set(found) & set(discovery.statistics())
    assert {"es", "t_test", "mannw", "empirical_mmd", "fisher_exact", "abs_text_content_drift"} <= set(found)
    for name, statistic in found.items():
        assert name.isidentifier()
        assert type(statistic).__doc__
        assert statistic.source
        assert statistic.types
        assert 0 < statistic.threshold < 1
        assert not statistic.null


def test_texts_are_told_apart_by_what_they_say() -> None:
    generator = np.random.default_rng(3)
    words = np.array(["late", "parcel", "refund", "angry", "thanks", "great", "quick", "friendly"])
    old = [" ".join(generator.choice(words[:4], 12)) for _ in range(120)]
    new = [" ".join(generator.choice(words[4:], 12)) for _ in range(120)]
    found = shown(Type.TEXT, old, new, "abs_text_content_drift")["abs_text_content_drift"]
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.note == "of 120 rows against 120"


def embedded(old: Any, new: Any, *names: str, **options: dict[str, Any]) -> dict[str, Result]:
    """Return what Evidently's methods say of vectors, by our names."""
    asked = DriftParameters(also=list(names), options=options, min_rows=1)
    comparison = compared([column("x", Type.EMBEDDING)], {"x": list(old)}, {"x": list(new)})
    found = discovery.kinds()["data_drift"].measure(comparison, asked)
    return {result.metric: result for result in found if result.metric in names}


@pytest.mark.long
def test_embeddings_are_compared_as_evidently_s_own_report_compares_them() -> None:
    evidently.prepare()
    from evidently.legacy.metrics import EmbeddingsDriftMetric
    from evidently.legacy.metrics.data_drift import embedding_drift_methods as theirs
    from evidently.legacy.pipeline.column_mapping import ColumnMapping
    from evidently.legacy.report import Report

    generator = np.random.default_rng(5)
    old, new = generator.normal(0, 1, (400, 6)), generator.normal([0.5, 0.2, 0, 0, 0, 0], 1, (300, 6))
    methods: dict[str, tuple[Any, dict[str, Any]]] = {
        "embedding_model": (theirs.model(), {}),
        "embedding_distance": (
            theirs.distance(dist="cosine", pca_components=3),
            {"dist": "cosine", "pca_components": 3},
        ),
        "embedding_ratio": (theirs.ratio(component_stattest="ks"), {"component_stattest": "ks"}),
        "embedding_mmd": (theirs.mmd(), {}),
    }
    found = embedded(old, new, *methods, **{name: options for name, (_, options) in methods.items() if options})
    assert set(found) == set(methods)
    names = [f"c{place}" for place in range(6)]
    for name, (method, _) in methods.items():
        report = Report([EmbeddingsDriftMetric("x", drift_method=method)])
        report.run(
            reference_data=pd.DataFrame(old, columns=names),
            current_data=pd.DataFrame(new, columns=names),
            column_mapping=ColumnMapping(embeddings={"x": names}),
        )
        (told,) = report.as_dict()["metrics"]
        assert found[name].value == pytest.approx(told["result"]["drift_score"], rel=1e-12), name
        if name != "embedding_distance":  # whose threshold is for euclidean distances
            beyond = (found[name].value or 0.0) > discovery.row_statistics()[name].threshold
            assert told["result"]["drift_detected"] is beyond
        assert found[name].note == "of 300 rows against 400"


def test_the_figures_of_embeddings_are_those_of_the_textbook() -> None:
    generator = np.random.default_rng(6)
    old, new = generator.normal(0, 1, (200, 4)), generator.normal(0.4, 1, (150, 4))
    found = embedded(old, new, "embedding_distance", "embedding_ratio", "embedding_mmd")
    moved = new.mean(axis=0) - old.mean(axis=0)
    assert found["embedding_distance"].value == pytest.approx(np.sqrt((moved**2).sum()), rel=1e-12)
    each = [stats.wasserstein_distance(old[:, at], new[:, at]) / old[:, at].std(ddof=1) for at in range(4)]
    assert found["embedding_ratio"].value == np.mean([one >= 0.1 for one in each])
    # Gretton and others (2012), equation 3, the kernel as wide as the median distance between the two samples.
    width = np.median(np.sqrt(((old[:, None] - new[None]) ** 2).sum(axis=-1))) / np.sqrt(2)
    rows = np.concatenate([old, new])
    expected = squared(kernel(rows, float(width)), (np.arange(350) >= 200).astype(np.float64))
    assert found["embedding_mmd"].value == pytest.approx(float(expected), rel=1e-9)


def test_embeddings_that_cannot_be_compared_say_why() -> None:
    vectors = np.random.default_rng(7).normal(size=(50, 4))
    other = embedded(vectors, vectors[:, :3], "embedding_model")["embedding_model"]
    assert other.reason == "vectors of 3 numbers, in the baseline of 4"
    nothing = embedded(vectors, [None] * 50, "embedding_model")["embedding_model"]
    assert nothing.reason == "no row has a vector"
    wrong = embedded(vectors, vectors, "embedding_ratio", embedding_ratio={"component_stattest": "tarot"})
    assert "tarot" in wrong["embedding_ratio"].reason
    for options, told in (({"dist": "as the crow flies"}, "euclidean"), ({"pca_components": -1}, "whole number")):
        with pytest.raises(ValueError, match=told):
            DriftParameters(options={"embedding_distance": options})
    numbers = values(Type.NUMERIC, np.arange(50.0), np.arange(50.0), "embedding_distance")
    assert "embedding_distance" not in numbers


def test_a_row_statistic_can_decide_by_a_threshold_and_never_by_a_budget() -> None:
    asked = DriftParameters(methods={"numeric": "mannw"})
    with pytest.raises(PolicyInvalidError, match="mannw has no p-value"):
        BudgetPolicy().prepared(asked)
    policy = parse_policy({"threshold": {"mannw": 0.05}})
    comparison = compared([column("x", Type.NUMERIC)], {"x": np.arange(100.0)}, {"x": np.arange(100.0) + 30})
    found = policy.judge(discovery.kinds()["data_drift"].measure(comparison, policy.prepared(asked)), 0.05)
    (result,) = [result for result in found if result.decides]
    assert result.metric == "mannw"
    assert result.verdict is Verdict.VIOLATED


def test_what_a_test_says_of_its_rows_becomes_the_reason() -> None:
    found = shown(Type.CATEGORICAL, list("abc") * 20, list("abc") * 20, "fisher_exact")["fisher_exact"]
    assert found.value is None
    assert "binary data" in found.reason


def test_work_that_was_not_done_becomes_the_reason() -> None:
    def broken(_task: str, _document: Mapping[str, Any], _tables: Mapping[str, pa.Table]) -> Mapping[str, Any]:
        raise WorkNotDoneError("it took longer than it may")

    comparison = compared([column("x", Type.NUMERIC)], {"x": np.arange(100.0)}, {"x": np.arange(100.0)}, broken)
    found = discovery.kinds()["data_drift"].measure(comparison, DriftParameters(also=["es"]))
    assert [result.reason for result in found if result.metric == "es"] == ["it took longer than it may"]
