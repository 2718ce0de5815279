"""What tests of statistics, metrics and monitors need: comparisons made of plain rows, and what every one owes.

A test derives a battery and says what is tested; pytest runs what the battery has (none of it is needed to serve):

    class TestOverlap(StatisticBattery):
        @pytest.fixture
        def statistic(self):
            return Overlap()
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from monitors.blocks import Blocks
from monitors.budget import BudgetPolicy
from monitors.contract import (
    Arrivals,
    BinnedStatistic,
    Column,
    Comparison,
    Counts,
    Kind,
    Metric,
    Result,
    Role,
    Subject,
    Task,
    Type,
    Verdict,
)
from monitors.kernel import profile_batches
from monitors.layout import Layout, plan_layout
from monitors.null import severity
from monitors.profile import Profile
from monitors.tables import Table, table_of_rows

START = datetime(2026, 1, 5, tzinfo=UTC)
Rows = Mapping[str, Any]
KINDS: Mapping[Type, pa.DataType] = {
    Type.NUMERIC: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.DATETIME: pa.timestamp("us", "UTC"),
    Type.EMBEDDING: pa.list_(pa.float64()),
}


def feature(name: str, type_: Type = Type.NUMERIC, **more: Any) -> Column:
    """Return a feature column."""
    return Column(name=f"features.{name}", role=Role.FEATURE, type=type_, **more)


def batch(columns: Sequence[Column], rows: Rows) -> pa.RecordBatch:
    """Return rows given by label as the lake holds them; a column without rows is left out."""
    held = [column for column in columns if column.label in rows]
    arrays = {
        column.name: pa.array(
            rows[column.label],
            KINDS.get(column.type, pa.string()),
            from_pandas=True,
        )
        for column in held
    }
    if "faults" in rows:
        arrays["faults"] = pa.array(rows["faults"], pa.string())
    return pa.record_batch(arrays)


def profile(columns: Sequence[Column], rows: Rows, layout: Layout) -> Profile:
    """Return the profile of rows."""
    return profile_batches([batch(columns, rows)], layout)


def comparison(
    columns: Sequence[Column],
    baseline: Rows,
    window: Rows,
    *,
    layout: Layout | None = None,
    longer: Mapping[int, Rows] | None = None,
    blocks: Mapping[int, Sequence[Rows]] | None = None,
    arrivals: Arrivals | None = None,
    seed: int = 0,
    blocks_reason: str = "",
    task: Task | None = None,
) -> Comparison:
    """Return a window compared with a baseline, both given as columns of values by label; all rows are the samples."""
    held = [column for column in columns if column.label in baseline]
    layout = layout or plan_layout([batch(held, baseline)], held)
    now = profile(held, window, layout) if any(column.label in window for column in held) else Profile.empty(layout)
    scales = {1: now} | {scale: profile(held, rows, layout) for scale, rows in (longer or {}).items()}

    def generator(metric: str, subject: Subject) -> np.random.Generator:
        return np.random.default_rng([seed, *f"{metric} {subject}".encode()])

    return Comparison(
        columns=columns,
        baseline=profile(held, baseline, layout),
        scales=scales,
        blocks={
            scale: Blocks.from_profiles([profile(held, rows, layout) for rows in parts])
            for scale, parts in (blocks or {}).items()
        },
        blocks_reason=blocks_reason,
        arrivals=arrivals or Arrivals(rows=now.rows),
        starts_at=START,
        ends_at=START + timedelta(days=1),
        generator=generator,
        task=task or Task(),
        rows=lambda: sample(held, window),
        baseline_rows=lambda: sample(held, baseline),
    )


def sample(columns: Sequence[Column], rows: Rows) -> pa.Table | None:
    """Return rows given by label as a row sample, None of none."""
    if not any(column.label in rows for column in columns):
        return None
    table = pa.Table.from_batches([batch(columns, rows)])
    return table if table.num_rows else None


# --- what every statistic owes ----------------------------------------------------------------------------------------

POSITIONS = np.array([-1.0, 0.0, 2.0])
OLD, NEW = np.array([5.0, 20.0, 75.0]), np.array([30.0, 30.0, 40.0])


def _value(statistic: BinnedStatistic, old: Counts, new: Counts) -> Counts:
    return np.asarray(statistic.value(old, new, POSITIONS))


class StatisticBattery:
    """What every statistic of a column owes; the test gives ``statistic`` as a fixture."""

    def test_is_unchanged_when_nothing_changed(self, statistic: BinnedStatistic) -> None:
        """Thrice the rows in the same shares are no change."""
        assert abs(_value(statistic, OLD, np.multiply(OLD, 3.0)) - statistic.unchanged) < 1e-12

    def test_says_more_when_more_has_moved(self, statistic: BinnedStatistic) -> None:
        """Half of a change is less than all of it."""
        half = OLD / 2 + NEW / 2
        some, all_ = (float(severity(statistic, _value(statistic, OLD, to))) for to in (half, NEW))
        assert 0 < some < all_ or (not statistic.null and 0 <= some <= all_ and all_ > 0)

    def test_gives_one_value_per_leading_index(self, statistic: BinnedStatistic) -> None:
        """Counts of shape (..., bins) give values of shape (...,), so that a thousand draws are one call."""
        generator = np.random.default_rng(1)
        old, new = (generator.integers(1, 90, (2, 4, 3)).astype(np.float64) for _ in range(2))
        together = _value(statistic, old, new)
        assert together.shape == (2, 4)
        assert np.isclose(together[1, 2], float(_value(statistic, old[1, 2], new[1, 2])))
        assert _value(statistic, old[0, 0], new).shape == (2, 4)

    def test_is_finite_where_bins_are_empty_on_either_side(self, statistic: BinnedStatistic) -> None:
        """An empty bin is an observation, not an error."""
        assert np.isfinite(_value(statistic, np.array([0.0, 10.0, 5.0]), np.array([7.0, 0.0, 8.0])))

    def test_does_not_depend_on_the_order_of_bins_unless_it_says_so(self, statistic: BinnedStatistic) -> None:
        """Categories have no order."""
        turned = np.array([2, 0, 1])
        same = np.isclose(float(_value(statistic, OLD[turned], NEW[turned])), float(_value(statistic, OLD, NEW)))
        assert same or statistic.ordered

    def test_tells_what_it_is(self, statistic: BinnedStatistic) -> None:
        """The catalogue is read off the class."""
        assert statistic.name.isidentifier()
        assert statistic.source
        assert type(statistic).__doc__
        assert statistic.types


# --- what every metric owes -------------------------------------------------------------------------------------------


def labelled_rows(task: str, number: int = 2000, seed: int = 1) -> pa.Table:
    """Return labelled rows of a model of a task, its predictions and scores good but not perfect."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        y = np.exp(rng.normal(3.0, 0.5, number))
        return pa.table({"prediction": y * (1 + 0.1 * rng.normal(size=number)) + 0.3, "ground_truth": y})
    if task == "binary":
        score = 1 / (1 + np.exp(-1.5 * rng.normal(size=number)))
        label = rng.random(number) < score
        return pa.table(
            {
                "score": score,
                "prediction": np.where(score >= 0.5, "1", "0"),
                "ground_truth": np.where(label, "1", "0"),
            }
        )
    raw = np.exp(1.5 * rng.normal(size=(number, 3)) + np.array([0.5, 0.0, -0.5]))
    scores = raw / raw.sum(axis=1, keepdims=True)
    names = np.array(["a", "b", "c"])
    held: dict[str, Any] = {f"scores.{name}": scores[:, place] for place, name in enumerate(names)}
    if task == "multiclass":
        label = (rng.random(number)[:, None] > np.cumsum(scores, axis=1)).sum(axis=1).clip(0, 2)
        return pa.table(held | {"prediction": names[scores.argmax(axis=1)], "ground_truth": names[label]})
    true = rng.random((number, 3)) < scores
    return pa.table(
        held
        | {
            "prediction": [names[row].tolist() for row in scores > 0.4],
            "ground_truth": [names[row].tolist() for row in true],
        }
    )


def labelled_table(task: str) -> Table:
    """Return the exact table of such rows."""
    classes = {"binary": ("0", "1"), "regression": ()}.get(task, ("a", "b", "c"))
    return table_of_rows(labelled_rows(task), Task(name=task, classes=classes, positive_class="1"))


class MetricBattery:
    """What every metric of predictions against ground truth owes; the test gives ``metric`` as a fixture."""

    def tables(self, metric: Metric) -> list[Table]:
        """Return a table of each task that the metric is for."""
        return [table for table in map(labelled_table, sorted(metric.tasks)) if metric.applies(table)]

    def test_tells_what_it_is(self, metric: Metric) -> None:
        """The catalogue is read off the class."""
        assert metric.name.isidentifier()
        assert metric.title
        assert metric.source
        assert metric.undefined
        assert metric.tasks
        assert metric.decides <= metric.tasks
        assert metric.range[0] < metric.range[1]

    def test_is_finite_and_within_its_range_where_labels_are_known(self, metric: Metric) -> None:
        """A figure outside of its range is an error of the formula."""
        for table in self.tables(metric):
            for figure, found in metric.values(table).items():
                assert np.isfinite(found), figure
                assert metric.range[0] <= found <= metric.range[1], figure

    def test_gives_one_value_per_leading_index(self, metric: Metric) -> None:
        """Counts with leading axes (...,) give values of shape (...,), so that a thousand draws are one call."""
        for table in self.tables(metric):
            both = table.with_parts([np.stack([part, part / 2]) for part in table.parts()])
            alone = metric.values(table)
            for figure, found in metric.values(both).items():
                assert found.shape == (2,), figure
                assert np.allclose(found, alone[figure], rtol=1e-9), figure

    def test_is_undefined_without_labels(self, metric: Metric) -> None:
        """Nothing to divide by gives NaN, which becomes a reason, and not 0."""
        for table in self.tables(metric):
            empty = table.with_parts([np.zeros_like(part) for part in table.parts()])
            assert all(np.isnan(found) for found in metric.values(empty).values())


# --- what every kind of monitor owes ----------------------------------------------------------------------------------

CLASSES = ("0", "1")


def usual_columns() -> list[Column]:
    """Return the columns of a small binary model."""
    return [
        feature("age"),
        feature("pay"),
        feature("job", Type.CATEGORICAL),
        Column(name="prediction", role=Role.PREDICTION, type=Type.CATEGORICAL),
        Column(name="score", role=Role.SCORE, type=Type.NUMERIC),
        Column(name="ground_truth", role=Role.GROUND_TRUTH, type=Type.CATEGORICAL),
    ]


def usual_rows(number: int, seed: int, shift: float = 0.0) -> dict[str, Any]:
    """Return rows of that model; ``shift`` moves its inputs by so many standard deviations."""
    generator = np.random.default_rng(seed)
    age = generator.normal(shift, 1.0, number)
    pay = 0.8 * age + generator.normal(shift, 0.6, number)
    score = 1 / (1 + np.exp(-age))
    jobs = np.where(generator.random(number) < 0.3 + 0.3 * min(shift, 2.0) / 2, "clerk", "nurse")
    return {
        "age": age,
        "pay": pay,
        "job": jobs,
        "score": score,
        "prediction": (score > 0.5).astype(int).astype(str),
        "ground_truth": (generator.random(number) < score).astype(int).astype(str),
    }


def usual_comparison(window: Rows, baseline: Rows | None = None, **more: Any) -> Comparison:
    """Return a window of that model compared with 2,000 quiet rows."""
    task = Task(name="binary", classes=CLASSES, positive_class="1", favourable_outcome="0")
    return comparison(usual_columns(), baseline or usual_rows(2000, seed=1), window, task=task, **more)


class KindBattery:
    """What every kind of monitor owes; the test gives ``kind`` as a fixture."""

    def measured(self, kind: Kind, compared: Comparison) -> list[Result]:
        """Return what the kind measures with its default parameters."""
        return kind.measure(compared, kind.parameters())

    def test_tells_what_it_is(self, kind: Kind) -> None:
        """The catalogue is read off the class."""
        assert kind.name.isidentifier()
        assert kind.title
        assert type(kind).__doc__
        assert all(kind.told)

    def test_refuses_parameters_that_it_does_not_have(self, kind: Kind) -> None:
        """A misspelt parameter is an error, not a default."""
        assert kind.parameters.model_json_schema()["additionalProperties"] is False

    def test_measures_the_same_twice(self, kind: Kind) -> None:
        """Same input, same output: chance comes from the generator that was handed in."""
        compared = usual_comparison(usual_rows(400, seed=2))
        assert self.measured(kind, compared) == self.measured(kind, compared)

    def test_gives_a_value_or_a_reason_and_a_chance_between_0_and_1(self, kind: Kind) -> None:
        """Whatever happens, a result is a number or says why there is none."""
        for window in (usual_rows(400, seed=3), usual_rows(400, seed=3, shift=4.0), usual_rows(3, seed=4)):
            for result in self.measured(kind, usual_comparison(window)):
                assert result.metric
                assert (result.value is None) == bool(result.reason)
                assert result.p_value is None or 0 <= result.p_value <= 1
                assert result.n_window >= 0

    def test_does_not_fail_where_nothing_came(self, kind: Kind) -> None:
        """A window without a row, and one without any of the columns."""
        columns = usual_columns()
        none = {column.label: np.array([], dtype=float if column.type is Type.NUMERIC else str) for column in columns}
        assert isinstance(self.measured(kind, usual_comparison(none)), list)
        assert isinstance(self.measured(kind, usual_comparison({})), list)

    def test_is_quiet_where_nothing_changed(self, kind: Kind) -> None:
        """Of ten quiet windows judged at one in a hundred at most one alarms: more has a chance of 4e-3."""
        alarms = 0
        for seed in range(10, 20):
            found = self.measured(kind, usual_comparison(usual_rows(300, seed=seed)))
            alarms += any(one.verdict is Verdict.VIOLATED for one in BudgetPolicy().judge(found, 0.01))
        assert alarms <= 1
