"""Performance without labels: what calibrated scores expect of them, and what a model of the loss expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from monitors import discovery
from monitors.columns import codes_of, numbers_of
from monitors.contract import (
    Chance,
    ClassMetric,
    Column,
    Comparison,
    Counts,
    Direction,
    Figure,
    Metric,
    Result,
    Role,
    Subject,
    Type,
    Verdict,
)
from monitors.null import CALIBRATING
from monitors.performance import Labelled, PerformanceParameters, calibrating, least_effect
from monitors.resampling import (
    Spread,
    deterioration,
    drawn_cells,
    figures,
    outcome_null,
    spread_of,
)
from monitors.tables import BinaryTable, MulticlassTable, MultilabelTable, RegressionTable, Table, task_of

DRAWS = 200
ROUNDS = 2
"""Parts of the baseline's rows, each estimated by the model of the others."""
LOSSES = ("mae", "mse", "rmse")
MOST_CATEGORIES = 200


@dataclass(frozen=True)
class Calibration:
    """The chance of each class given its score cell, by class ("" of a binary model)."""

    chances: Mapping[str, Counts]

    @staticmethod
    def of(baseline: Table) -> Calibration | None:
        """Fit the label's rate by isotonic regression on a baseline's score cells.

        None where a class has no scores, or no row with a score has a label.
        """
        if unscored(baseline):
            return None
        chances = {name: _isotonic(table) for name, table in asked_of(baseline).items()}
        known = {name: chance for name, chance in chances.items() if chance is not None}
        return Calibration(known) if known and len(known) == len(chances) else None

    def expected(self, table: Table) -> Table:
        """Return a table with the labels that the scores of its rows make one expect; rows without score count not."""
        if isinstance(table, BinaryTable):
            return _expected(table, self.chances[""])
        if not isinstance(table, MulticlassTable | MultilabelTable):
            raise ValueError("only scores of classes are calibrated")
        return by_questions(table, {name: _expected(table.asked[name], one) for name, one in self.chances.items()})


def by_questions(table: MulticlassTable | MultilabelTable, asked: Mapping[str, BinaryTable]) -> Table:
    """Return a table of many classes that is known by the question of each class only."""
    leading = next(iter(asked.values())).tp.shape
    if isinstance(table, MultilabelTable):  # how many classes of a row are right at once is not known
        return replace(table, asked=asked, sizes=np.zeros((*leading, *table.sizes.shape[-3:])))
    side = len(table.classes) + 2
    cells = np.zeros((*leading, side, side))
    for place, name in enumerate(table.classes):
        cells[..., place, place], cells[..., -2, place] = asked[name].tp, asked[name].fp
    return MulticlassTable(table.classes, cells, asked, expected=True)


def asked_of(table: Table) -> dict[str, BinaryTable]:
    """Return the question of a binary table under "", those with scores of many classes by class, else nothing."""
    if isinstance(table, BinaryTable):
        return {"": table}
    return dict(table.asked) if isinstance(table, MulticlassTable | MultilabelTable) else {}


def unscored(table: Table) -> list[str]:
    """Return the classes that have no scores, "" of a binary model."""
    asked = asked_of(table)
    return [name for name in _questions_of(table) if name not in asked or not asked[name].has_scores]


def _questions_of(table: Table) -> tuple[str, ...]:
    return table.classes if isinstance(table, MulticlassTable | MultilabelTable) else ("",)


def _isotonic(table: BinaryTable) -> Counts | None:
    """Return the label's rate in each score cell, rising with the score; None where no row has both."""
    rows = table.scored.sum(axis=-2)
    used = np.flatnonzero(rows > 0)
    if not used.size:
        return None
    rates = table.scored[1, used] / rows[used]
    fitted = isotonic_regression(rates, weights=rows[used]).x
    return np.asarray(np.clip(np.interp(table.scores, table.scores[used], fitted), 0.0, 1.0))


def _expected(table: BinaryTable, chance: Counts) -> BinaryTable:
    cells = np.zeros_like(table.cells)
    rows = table.cells[..., :-1].sum(axis=-3)
    cells[..., 0, :, :-1], cells[..., 1, :, :-1] = rows * (1 - chance), rows * chance
    return replace(table, cells=cells)


def estimable(metrics: Sequence[Metric], table: Table) -> list[Metric]:
    """Return the metrics that can be told from expected labels."""
    if isinstance(table, MulticlassTable):
        return [one for one in metrics if isinstance(one, ClassMetric) or one.name in ("accuracy", "brier", "log_loss")]
    if isinstance(table, MultilabelTable):
        return [one for one in metrics if isinstance(one, ClassMetric) or one.name == "hamming_loss"]
    return list(metrics)


def labelless(table: Table) -> Table:
    """Return a table whose rows all count alike, whatever their label: what an estimate may look at."""
    return _with_asked(table, [_all_negative(one.cells) for one in asked_of(table).values()])


def labelled_only(table: Table) -> Table:
    """Return a table without the rows that have no label."""
    return _with_asked(table, [_without_unknown(one.cells) for one in asked_of(table).values()])


def _with_asked(table: Table, cells: Sequence[Counts]) -> Table:
    if isinstance(table, BinaryTable):
        return replace(table, cells=cells[0])
    parts = list(table.parts())
    return table.with_parts([parts[0], *cells])


def _all_negative(cells: Counts) -> Counts:
    found = np.zeros_like(cells)
    found[..., 0, :, :] = cells.sum(axis=-3)
    return found


def _without_unknown(cells: Counts) -> Counts:
    found = cells.copy()
    found[..., 2, :, :] = 0
    return found


@dataclass(frozen=True)
class Aligned:
    """A window, a baseline and blocks with their score cells put together alike."""

    window: Table
    baseline: Table
    blocks: Table | None

    @staticmethod
    def of(window: Table, baseline: Table, blocks: Table | None) -> Aligned:
        """Put neighbouring score cells together, in shares that are equal over all of them."""
        tables = [window, baseline]
        stacked = []
        for place, part in enumerate(window.parts()):
            layers = [part[None], baseline.parts()[place][None]]
            if blocks is not None:
                layers.append(blocks.parts()[place])
            stacked.append(np.concatenate(layers))
        whole = tables[0].with_parts(stacked).coarse()
        rest = None if blocks is None else whole.with_parts([part[2:] for part in whole.parts()])
        return Aligned(
            whole.with_parts([part[0] for part in whole.parts()]),
            whole.with_parts([part[1] for part in whole.parts()]),
            rest,
        )


def drawn_calibrations(baseline: Table, generator: np.random.Generator, draws: int = DRAWS) -> list[Calibration]:
    """Return the calibrations of so many draws of a coarse baseline's rows."""
    drawn = drawn_cells(baseline, generator, draws)
    found = []
    for place in range(draws):
        one = Calibration.of(drawn.with_parts([part[place] for part in drawn.parts()]))
        if one is not None:
            found.append(one)
    return found


def drawn_labels(
    window: Table, calibrations: Sequence[Calibration], generator: np.random.Generator, *, rows: bool
) -> Table:
    """Return tables with labels drawn by each calibration, the leading axis the draws; with ``rows`` rows are too."""
    asked = {}
    for name, table in asked_of(window).items():
        counts = table.cells.sum(axis=-3)
        many = np.repeat(counts[None], len(calibrations), axis=0)
        if rows:
            own = drawn_cells(BinaryTable(_all_negative(table.cells), table.scores), generator, len(calibrations))
            many = own.parts()[0][:, 0]
        chance = np.stack([one.chances[name] for one in calibrations])[:, None, :]
        cells = np.zeros((len(calibrations), *table.cells.shape))
        cells[:, 1, :, :-1] = generator.binomial(np.rint(many[..., :-1]).astype(np.int64), chance)
        cells[:, 0, :, :-1] = many[..., :-1] - cells[:, 1, :, :-1]
        asked[name] = replace(table, cells=cells)
    if isinstance(window, BinaryTable):
        return asked[""]
    assert isinstance(window, MulticlassTable | MultilabelTable)  # noqa: S101 - nothing else has questions with scores
    return by_questions(window, asked)


def uncalibrated(baseline: Table) -> str:
    """Return why the scores of a baseline cannot be calibrated."""
    without = unscored(baseline)
    if not without:
        return "no row of the baseline has both a score and a label"
    if len(without) == len(_questions_of(baseline)):
        return f"{task_of(baseline)} models are estimated by the scores of each class, and there are none"
    named = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
    return f"{task_of(baseline)} models are estimated by the scores of each class, and {named} has none"


# --- by calibrated scores ---------------------------------------------------------------------------------------------


def measure_estimated(comparison: Comparison, parameters: PerformanceParameters) -> list[Result]:
    """Return the figures that a window's scores (or a model of its loss) make one expect, and those realised so far."""
    labelled = Labelled.of(comparison)
    if labelled is None or labelled.baseline is None or not float(labelled.baseline.labelled):
        return [_none("the baseline has no labels to learn from")]
    if isinstance(labelled.window, RegressionTable):
        return measure_loss(comparison, parameters, labelled)
    calibration = Calibration.of(labelled.baseline)
    if calibration is None:
        return [_none(uncalibrated(labelled.baseline))]
    if labelled.rows < parameters.min_rows:
        return [_none(f"insufficient rows: {labelled.rows} of {parameters.min_rows}")]
    generator = comparison.generator("estimated_performance", Subject())
    chosen = parameters.chosen(labelled.baseline)
    metrics = estimable(chosen, labelled.window)
    expected = figures(metrics, calibration.expected(labelled.window))
    before = figures(metrics, calibration.expected(labelled.baseline))
    coarse = Aligned.of(labelled.window, labelled.baseline, labelled.blocks)
    own = Calibration.of(coarse.baseline) or calibration
    drawn = drawn_labels(coarse.window, drawn_calibrations(coarse.baseline, generator), generator, rows=True)
    spread = Spread(figures(metrics, own.expected(coarse.window)), figures(metrics, drawn))
    null = outcome_null(
        labelless(coarse.window),
        labelless(coarse.baseline),
        None if coarse.blocks is None else labelless(coarse.blocks),
        metrics,
        generator,
        parameters.min_rows,
        own.expected,
    )
    around = spread_of(labelled.baseline, labelled.blocks, metrics, generator)
    enough = labelled.labelled >= parameters.min_rows
    realised = figures(metrics, labelled.window) if enough else {}
    seen = spread_of(labelled.window, labelled.buckets, metrics, generator) if enough else None
    results: list[Result] = []
    for metric in metrics:
        for figure in metric.values(labelled.baseline):
            if figure not in expected:
                continue
            value, old = float(expected[figure]), float(before[figure])
            if not (isfinite(value) and isfinite(old)):
                continue
            p_value, by_blocks = null.p_value(figure, metric.direction, value, old)
            interval = spread.interval(figure, value, metric)
            notes = [] if by_blocks else [calibrating(null.blocks, comparison, labelled.window)]
            beside = _realised(metric, figure, realised, seen, labelled)
            if beside is not None and interval is not None and apart(interval, beside.interval):
                notes.append(
                    f"the labels say {beside.value:.4g}, beyond both intervals: what scores mean has changed, so the "
                    "estimate is wrong"
                )
            results.append(
                Result(
                    metric=figure.metric,
                    subject=Subject(class_=figure.class_),
                    value=value,
                    interval=interval,
                    direction=metric.direction,
                    baseline_value=old,
                    effect=float(deterioration(metric.direction, value, old)),
                    min_effect=least_effect(parameters, metric, figure, around, old),
                    p_value=p_value,
                    chance=null.chance(figure),
                    estimated=True,
                    decides=parameters.decides(metric, figure, task_of(labelled.window)),
                    n_window=labelled.rows,
                    n_baseline=int(labelled.baseline.labelled),
                    label_coverage=labelled.coverage,
                    unit=metric.unit,
                    note="; ".join(notes),
                    by=discovery.by(metric.name),
                )
            )
            if beside is not None:
                results.append(beside)
    together = "it needs the label and the prediction of all classes at once, and scores tell of one at a time"
    results += _beyond(chosen, metrics, parameters, task_of(labelled.window), together)
    results = [one if one.decides else replace(one, verdict=None) for one in results]
    return sorted(results, key=lambda result: not result.decides) or [_none("no figure can be estimated")]


def _beyond(
    chosen: Sequence[Metric], told: Sequence[Metric], parameters: PerformanceParameters, task: str, reason: str
) -> list[Result]:
    """Return why metrics that would be judged are not estimated; those that were asked for by name count."""
    named = parameters.metrics is not None
    return [
        Result(
            metric=metric.name,
            reason=f"cannot be estimated without labels: {reason}",
            direction=metric.direction,
            estimated=True,
            decides=named,
            verdict=Verdict.NOT_MEASURED if named else None,
            unit=metric.unit,
            by=discovery.by(metric.name),
        )
        for metric in chosen
        if metric not in told and parameters.decides(metric, Figure(metric.name), task)
    ]


def apart(one: tuple[float, float], other: tuple[float, float] | None) -> bool:
    """Whether two intervals do not meet."""
    return other is not None and (one[1] < other[0] or other[1] < one[0])


def _realised(
    metric: Metric, figure: Figure, realised: Mapping[Figure, Counts], seen: Spread | None, labelled: Labelled
) -> Result | None:
    value = float(realised.get(figure, np.nan))
    if not isfinite(value) or seen is None:
        return None
    return Result(
        metric=figure.metric,
        subject=Subject(class_=figure.class_),
        value=value,
        interval=seen.interval(figure, value, metric),
        direction=metric.direction,
        decides=False,
        verdict=None,
        n_window=labelled.labelled,
        label_coverage=labelled.coverage,
        unit=metric.unit,
        note="realised, beside the estimate",
        by=discovery.by(metric.name),
    )


def _none(reason: str) -> Result:
    return Result(metric="estimated_performance", reason=reason, estimated=True)


# --- by a model of the loss -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LossModel:
    """What a regression's absolute and squared error are expected to be, learnt from a baseline's labelled rows.

    ``left`` are the losses of the baseline's rows less what models that had not seen them expected, by loss.
    """

    encode: Encoding
    models: Mapping[str, Sequence[Any]]
    losses: Mapping[str, NDArray[np.float64]]
    left: Mapping[str, NDArray[np.float64]]

    @staticmethod
    def of(rows: pa.Table, columns: Sequence[Column]) -> LossModel | None:
        """Fit gradient boosting of each loss on features and prediction; None of under 100 labelled rows."""
        from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import, needed here only
        from threadpoolctl import threadpool_limits

        error = errors_of(rows)
        known = np.isfinite(error)
        if known.sum() < 100:
            return None
        encode = Encoding.of(rows, columns)
        inputs = encode(rows)[known]
        losses = {"mae": np.abs(error[known]), "mse": error[known] ** 2}
        part = np.arange(inputs.shape[0]) % ROUNDS
        models: dict[str, list[Any]] = {}
        left = {}
        for name, loss in losses.items():
            rest = np.empty(loss.size)
            for round_ in range(ROUNDS):
                model = HistGradientBoostingRegressor(
                    max_iter=60, learning_rate=0.1, min_samples_leaf=50, categorical_features=encode.categorical,
                    early_stopping=False, random_state=0,
                )  # fmt: skip
                with threadpool_limits(1):  # threads of several runs would wait for each other
                    model.fit(inputs[part != round_], loss[part != round_])
                    rest[part == round_] = loss[part == round_] - model.predict(inputs[part == round_])
                models.setdefault(name, []).append(model)
            left[name] = rest
        return LossModel(encode, models, losses, left)

    def expected(self, rows: pa.Table) -> dict[str, NDArray[np.float64]]:
        """Return the expected losses of rows, by loss."""
        from threadpoolctl import threadpool_limits

        inputs = self.encode(rows)
        with threadpool_limits(1):
            return {name: np.mean([one.predict(inputs) for one in each], axis=0) for name, each in self.models.items()}


@dataclass(frozen=True)
class Encoding:
    """Rows as numbers: numeric columns as they are, of categories the place among the baseline's most frequent."""

    names: tuple[str, ...]
    categories: Mapping[str, pa.Array]

    @property
    def categorical(self) -> list[bool]:
        """Which of the numbers are places of categories."""
        return [name in self.categories for name in self.names]

    @staticmethod
    def of(rows: pa.Table, columns: Sequence[Column]) -> Encoding:
        """Return how the features and the prediction of a baseline are written."""
        names, categories = [], {}
        for column in columns:
            if column.name not in rows.schema.names or column.role not in (Role.FEATURE, Role.PREDICTION):
                continue
            if column.type in (Type.CATEGORICAL, Type.BOOLEAN):
                coded = codes_of(rows[column.name], pa.array([], pa.string()))
                if coded is None:
                    continue
                used = np.bincount(coded.codes[coded.codes >= 0], minlength=len(coded.dictionary))
                order = np.argsort(-used, kind="stable")[:MOST_CATEGORIES]
                categories[column.name] = coded.dictionary.take(pa.array(order)).cast(pa.string())
            elif column.type is not Type.NUMERIC:
                continue
            names.append(column.name)
        return Encoding(tuple(names), categories)

    def __call__(self, rows: pa.Table) -> NDArray[np.float64]:
        """Return rows as numbers, shape (rows, names), NaN where a value is missing or new."""
        parts = []
        for name in self.names:
            if name not in rows.schema.names:
                parts.append(np.full(rows.num_rows, np.nan))
            elif name in self.categories:
                coded = codes_of(rows[name], self.categories[name])
                places = np.full(rows.num_rows, np.nan)
                if coded is not None:
                    cells = np.append(coded.cells, -1)[coded.codes].astype(np.float64)
                    places = np.where((cells >= 0) & (cells < len(self.categories[name])), cells, np.nan)
                parts.append(places)
            else:
                held = numbers_of(rows[name])
                values = np.full(rows.num_rows, np.nan) if held is None else held
                parts.append(np.where(np.isinf(values), np.nan, values))
        return np.stack(parts, axis=1) if parts else np.zeros((rows.num_rows, 0))


def errors_of(rows: pa.Table) -> NDArray[np.float64]:
    """Return prediction - ground truth of rows, NaN where one is missing."""
    parts = []
    for name in ("prediction", "ground_truth"):
        values = numbers_of(rows[name]) if name in rows.schema.names else None
        parts.append(np.full(rows.num_rows, np.nan) if values is None else values)
    return np.asarray(parts[0] - parts[1], np.float64)


def measure_loss(comparison: Comparison, parameters: PerformanceParameters, labelled: Labelled) -> list[Result]:
    """Return the expected errors of a regression's window, with those realised so far."""
    learnt, rows = comparison.baseline_rows(), comparison.rows()
    model = None if learnt is None else LossModel.of(learnt, comparison.columns)
    if model is None:
        return [_none("the baseline's rows have too few labels to learn the loss from")]
    if rows is None or rows.num_rows < parameters.min_rows:
        return [_none(f"insufficient rows: {0 if rows is None else rows.num_rows} of {parameters.min_rows}")]
    expected = model.expected(rows)
    means: dict[str, tuple[float, float, float, float]] = {}
    for name, values in expected.items():
        value, before = float(values.mean()), float(model.losses[name].mean())
        sampling = float(values.var()) / values.size
        noise = float(model.left[name].var()) / max(labelled.rows, 1)
        learning = float(model.left[name].var()) / model.left[name].size
        variance = sampling + noise + learning
        null = float(model.losses[name].var()) / model.left[name].size + learning
        means[name] = value, before, sqrt(variance), sqrt(variance + null)
    mse = means["mse"]
    root = sqrt(max(mse[0], 0.0))
    means["rmse"] = root, sqrt(mse[1]), mse[2] / max(2 * root, 1e-12), mse[3] / max(2 * root, 1e-12)
    enough = labelled.labelled >= parameters.min_rows
    chosen = parameters.chosen(labelled.window)
    metrics = [metric for metric in chosen if metric.name in LOSSES]
    generator = comparison.generator("estimated_performance", Subject())
    seen = spread_of(labelled.window, labelled.buckets, metrics, generator) if enough else None
    results: list[Result] = []
    for metric in metrics:
        figure = Figure(metric.name)
        value, before, error, step = means[metric.name]
        interval = (max(value - 1.96 * error, 0.0), value + 1.96 * error)
        beside = _realised(metric, figure, figures([metric], labelled.window), seen, labelled) if enough else None
        note = f"{CALIBRATING}: assumes independent rows"
        if beside is not None and apart(interval, beside.interval):
            note += f"; the labels say {beside.value:.4g}, beyond both intervals: the estimate is wrong"
        decides = parameters.decides(metric, figure, "regression")
        results.append(
            Result(
                metric=metric.name,
                value=value,
                interval=interval,
                direction=Direction.HIGHER_IS_WORSE,
                baseline_value=before,
                effect=value - before,
                min_effect=parameters.min_effect.get(metric.name, 1.96 * float(step)),
                p_value=normal_tail((value - before) / max(step, 1e-300)),
                chance=Chance(float(step), inf),
                estimated=True,
                decides=decides,
                verdict=Verdict.NOT_MEASURED if decides else None,
                n_window=labelled.rows,
                n_baseline=int(next(iter(model.left.values())).size),
                label_coverage=labelled.coverage,
                unit=metric.unit,
                note=note,
                by=discovery.by(metric.name),
            )
        )
        if beside is not None:
            results.append(beside)
    only = f"the loss is learnt for {', '.join(LOSSES)} only"
    results += _beyond(chosen, metrics, parameters, "regression", only)
    return sorted(results, key=lambda result: not result.decides)


def normal_tail(score: float) -> float:
    """Return the chance of a standard normal above a score."""
    from scipy.special import ndtr

    return float(ndtr(-score))
