"""Predictions beside ground truth as a metric sees them: counts with any leading axes, of profiles or of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitors.columns import codes_of, numbers_of
from monitors.contract import Counts, Task
from monitors.layout import GROUND_TRUTH, MOMENTS, MOST_LABELS_COUNTED, Layout, NumericLayout, OutcomeLayout
from monitors.outcomes import outcome_cells
from monitors.profile import NumericProfile, Profile

NEGATIVE, POSITIVE, UNKNOWN = 0, 1, 2
"""The places of a binary table's labels and predictions."""
COARSE = 64
"""Cells of the score that a resampled table has at most."""


@dataclass(frozen=True, eq=False)
class BinaryTable:
    """A yes-or-no question: ``cells`` of shape (..., label, prediction, score cell).

    Label and prediction are negative, positive, unknown; the last score cell is "no score". ``scores`` of shape
    (score cells - 1,) is the mean score in each cell, increasing; ``probabilities`` says whether it lies in [0, 1].
    """

    cells: Counts
    scores: Counts
    names: tuple[str, str] = ("0", "1")
    """What the negative and the positive class are called."""

    @property
    def has_scores(self) -> bool:
        """Whether rows have scores."""
        return bool(self.scores.size and self.cells[..., :-1].any())

    @property
    def probabilities(self) -> bool:
        """Whether every score is a probability."""
        used = self.scores[self.cells.reshape(-1, self.cells.shape[-1]).sum(axis=0)[:-1] > 0]
        return bool(used.size and used.min() >= 0.0 and used.max() <= 1.0)

    @cached_property
    def confusion(self) -> Counts:
        """Rows whose label and prediction are known, shape (..., label, prediction)."""
        return np.asarray(self.cells[..., :2, :2, :].sum(axis=-1))

    @property
    def tn(self) -> Counts:
        """True negatives, shape (...,)."""
        return np.asarray(self.confusion[..., 0, 0])

    @property
    def fp(self) -> Counts:
        """False positives."""
        return np.asarray(self.confusion[..., 0, 1])

    @property
    def fn(self) -> Counts:
        """False negatives."""
        return np.asarray(self.confusion[..., 1, 0])

    @property
    def tp(self) -> Counts:
        """True positives."""
        return np.asarray(self.confusion[..., 1, 1])

    @property
    def positives(self) -> Counts:
        """Rows whose label is the positive class."""
        return np.asarray(self.tp + self.fn)

    @property
    def named(self) -> Counts:
        """Rows whose label or prediction is the positive class."""
        return np.asarray(self.tp + self.fn + self.fp)

    @property
    def answered(self) -> Counts:
        """Rows whose label and prediction are known."""
        return np.asarray(self.confusion.sum(axis=(-2, -1)))

    @staticmethod
    def together(questions: Sequence[BinaryTable]) -> BinaryTable:
        """Return the labels and predictions of several questions as one, without their scores."""
        cells = sum(question.cells.sum(axis=-1, keepdims=True) for question in questions)
        return BinaryTable(np.asarray(cells), np.empty(0))

    @cached_property
    def scored(self) -> Counts:
        """Rows with label and score, whatever was predicted, shape (..., label, score cell)."""
        return np.asarray(self.cells[..., :2, :, :-1].sum(axis=-2))

    @property
    def rows(self) -> Counts:
        """All rows, shape (...,)."""
        return np.asarray(self.cells.sum(axis=(-3, -2, -1)))

    @property
    def labelled(self) -> Counts:
        """Rows with a label, shape (...,)."""
        return np.asarray(self.cells[..., :2, :, :].sum(axis=(-3, -2, -1)))

    def parts(self) -> tuple[Counts, ...]:
        """Return the arrays whose cells are drawn together."""
        return (self.cells,)

    def with_parts(self, parts: Sequence[Counts]) -> BinaryTable:
        """Return the same question with other counts."""
        return replace(self, cells=parts[0])

    def coarse(self, most: int = COARSE) -> BinaryTable:
        """Return the table with neighbouring score cells put together, in at most so many of equal shares."""
        ends = _equal_shares(self.cells, most)
        weights = self.cells.reshape(-1, self.cells.shape[-1]).sum(axis=0)[:-1]
        starts = np.concatenate(([0], ends[:-1]))
        total = np.add.reduceat(weights, starts) if weights.size else weights
        sums = np.add.reduceat(weights * self.scores, starts) if weights.size else weights
        middle = self.scores[starts] if weights.size else self.scores
        means = np.divide(sums, total, out=middle.copy(), where=total > 0)
        return replace(self, cells=_gathered(self.cells, ends), scores=means)

    def compact(self) -> BinaryTable:
        """Return the table as it is resampled by whole buckets."""
        return self.coarse()

    def constants(self) -> tuple[BinaryTable, ...]:
        """Return the tables of the two constant predictors: everybody negative, everybody positive, one score.

        The score is the label's share, the best constant probability.
        """
        found = []
        labels = self.cells[..., :2, :, :].sum(axis=(-2, -1))
        share = float(np.divide(labels[..., 1].sum(), max(labels.sum(), 1.0)))
        for prediction in (NEGATIVE, POSITIVE):
            cells = np.zeros((*self.cells.shape[:-1], 2))
            cells[..., :2, prediction, 0] = labels
            found.append(replace(self, cells=cells, scores=np.array([share])))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class MulticlassTable:
    """One of several classes: ``cells`` of shape (..., label, prediction), codes the classes, "other", "unknown".

    ``asked`` has per class with a score a binary table "is it this class", whose unknown predictions count as no.
    """

    classes: tuple[str, ...]
    cells: Counts
    asked: Mapping[str, BinaryTable]
    expected: bool = False
    """Whether labels are expected and not known: then only the questions and the answers that are right are counted."""

    @cached_property
    def confusion(self) -> Counts:
        """Rows whose label and prediction are known, "other" last, shape (..., label, prediction)."""
        return np.asarray(self.cells[..., :-1, :-1])

    @property
    def has_scores(self) -> bool:
        """Whether some class has scores."""
        return any(table.has_scores for table in self.asked.values())

    @property
    def rows(self) -> Counts:
        """All rows, shape (...,)."""
        return np.asarray(self.cells.sum(axis=(-2, -1)))

    @property
    def labelled(self) -> Counts:
        """Rows with a label, shape (...,)."""
        return np.asarray(self.cells[..., :-1, :].sum(axis=(-2, -1)))

    @property
    def probabilities(self) -> bool:
        """Whether every class's scores are probabilities."""
        scored = [table for table in self.asked.values() if table.has_scores]
        return bool(scored) and all(table.probabilities for table in scored)

    def one(self, class_: str, *, scores: bool = False) -> BinaryTable | None:
        """Return the table of "is it this class": of labels and predictions, or of the scores where it has any."""
        if scores or self.expected:
            return self.asked.get(class_)
        place, whole = self.classes.index(class_), self.confusion
        tp = whole[..., place, place]
        fn, fp = whole[..., place, :].sum(axis=-1) - tp, whole[..., :, place].sum(axis=-1) - tp
        tn = whole.sum(axis=(-2, -1)) - tp - fn - fp
        cells = np.zeros((*tp.shape, 3, 3, 1))
        cells[..., 0, 0, 0], cells[..., 0, 1, 0], cells[..., 1, 0, 0], cells[..., 1, 1, 0] = tn, fp, fn, tp
        return BinaryTable(cells, np.empty(0))

    def parts(self) -> tuple[Counts, ...]:
        """Return the arrays whose cells are drawn together; those of the classes follow the first."""
        return (self.cells, *(table.cells for table in self.asked.values()))

    def with_parts(self, parts: Sequence[Counts]) -> MulticlassTable:
        """Return the same question with other counts."""
        asked = {
            name: replace(table, cells=cells)
            for (name, table), cells in zip(self.asked.items(), parts[1:], strict=True)
        }
        return replace(self, cells=parts[0], asked=asked)

    def coarse(self, most: int = COARSE) -> MulticlassTable:
        """Return the table with neighbouring score cells put together, in fewer where there are many classes."""
        most = most if len(self.classes) <= 10 else most // 4
        return replace(self, asked={name: table.coarse(most) for name, table in self.asked.items()})

    def compact(self) -> MulticlassTable:
        """Return the table as it is resampled by whole buckets."""
        return self.coarse()

    def constants(self) -> tuple[MulticlassTable, ...]:
        """Return the tables of the predictors that always say the same class, with the classes' shares as scores."""
        labels = self.cells[..., :-1, :].sum(axis=-1)
        asked = {name: table.constants()[0] for name, table in self.asked.items()}
        found = []
        for place, name in enumerate(self.classes):
            cells = np.zeros_like(self.cells)
            cells[..., :-1, place] = labels
            same = {
                other: table.constants()[1] if other == name else asked[other] for other, table in self.asked.items()
            }
            found.append(MulticlassTable(self.classes, cells, same))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class MultilabelTable:
    """Any of several classes: a binary table per class, and rows by number of true, predicted and common classes."""

    classes: tuple[str, ...]
    asked: Mapping[str, BinaryTable]
    sizes: Counts

    @property
    def has_scores(self) -> bool:
        """Whether some class has scores."""
        return any(table.has_scores for table in self.asked.values())

    @property
    def rows(self) -> Counts:
        """All rows, shape (...,)."""
        return next(iter(self.asked.values())).rows

    @property
    def labelled(self) -> Counts:
        """Rows with a label, shape (...,)."""
        return next(iter(self.asked.values())).labelled

    def one(self, class_: str, *, scores: bool = False) -> BinaryTable | None:
        """Return the table of one class; None where scores are asked for and it has none."""
        table = self.asked[class_]
        return table if table.scores.size or not scores else None

    def parts(self) -> tuple[Counts, ...]:
        """Return the arrays whose cells are drawn together; those of the classes follow the first."""
        return (self.sizes, *(table.cells for table in self.asked.values()))

    def with_parts(self, parts: Sequence[Counts]) -> MultilabelTable:
        """Return the same question with other counts."""
        asked = {
            name: replace(table, cells=cells)
            for (name, table), cells in zip(self.asked.items(), parts[1:], strict=True)
        }
        return replace(self, sizes=parts[0], asked=asked)

    def coarse(self, most: int = COARSE) -> MultilabelTable:
        """Return the table with neighbouring score cells put together, in fewer where there are many classes."""
        most = most if len(self.classes) <= 10 else most // 4
        return replace(self, asked={name: table.coarse(most) for name, table in self.asked.items()})

    def compact(self) -> MultilabelTable:
        """Return the table as it is resampled by whole buckets."""
        return self.coarse()

    def constants(self) -> tuple[MultilabelTable, ...]:
        """Return the tables of the predictors that always give no class, all of them, or those of most rows.

        How often the last is right of all classes at once is not known, and of all only up to `MOST_LABELS_COUNTED`.
        """
        each = {name: table.constants() for name, table in self.asked.items()}
        often = {name: bool(table.positives.sum() > table.answered.sum() / 2) for name, table in self.asked.items()}
        by_true = self.sizes.sum(axis=(-2, -1))
        true = np.arange(MOST_LABELS_COUNTED + 1)
        none, every, unknown = (np.zeros_like(self.sizes) for _ in range(3))
        none[..., true, 0, 0] = by_true
        if len(self.classes) <= MOST_LABELS_COUNTED:
            every[..., true, len(self.classes), true] = by_true
        return (
            replace(self, asked={name: one for name, (one, _) in each.items()}, sizes=none),
            replace(self, asked={name: one for name, (_, one) in each.items()}, sizes=every),
            replace(self, asked={name: pair[often[name]] for name, pair in each.items()}, sizes=unknown),
        )


@dataclass(frozen=True, eq=False)
class RegressionTable:
    """Numbers: ``moments`` of shape (..., MOMENTS) and the histogram of the residual, prediction - ground truth.

    ``residuals`` (counts) and ``residual_sums`` have shape (..., edges + 1); cell i begins at ``edges[i - 1]`` and ends
    before ``edges[i]``.
    """

    moments: Counts
    residuals: Counts
    residual_sums: Counts
    edges: Counts
    means: Counts | None = None
    """The cells' mean residuals where the sums are those of the histogram: only its counts are drawn."""

    @property
    def has_scores(self) -> bool:
        """Whether rows have scores: numbers have none."""
        return False

    def sum_of(self, name: str) -> Counts:
        """Return one of the sums, shape (...,)."""
        return np.asarray(self.moments[..., MOMENTS.index(name)])

    @property
    def rows(self) -> Counts:
        """All rows, shape (...,)."""
        return self.sum_of("n") + self.sum_of("unknown")

    @property
    def labelled(self) -> Counts:
        """Rows with a prediction and a label, shape (...,)."""
        return self.sum_of("n")

    def parts(self) -> tuple[Counts, ...]:
        """Return the arrays that add up; of a histogram its counts."""
        return (self.moments, self.residuals, self.residual_sums) if self.means is None else (self.residuals,)

    def with_parts(self, parts: Sequence[Counts]) -> RegressionTable:
        """Return the same question with other sums."""
        if self.means is None:
            return replace(self, moments=parts[0], residuals=parts[1], residual_sums=parts[2])
        residuals, rows = parts[0], parts[0].sum(axis=-1)
        own = np.maximum(self.sum_of("n"), 1.0)
        moments = np.full((*rows.shape, len(MOMENTS)), np.nan)
        known = {"e": self.means, "abs_e": np.abs(self.means), "e2": self.means**2, "e4": self.means**4}
        for name, of_cell in known.items():
            moments[..., MOMENTS.index(name)] = residuals @ of_cell
        for name in ("y", "y2"):
            moments[..., MOMENTS.index(name)] = rows * (self.sum_of(name) / own)
        moments[..., MOMENTS.index("n")] = rows
        return replace(self, moments=moments, residuals=residuals, residual_sums=residuals * self.means)

    def coarse(self, most: int = COARSE) -> RegressionTable:  # noqa: ARG002 - residuals have few cells as it is
        """Return the histogram alone: what needs more than residuals is unknown, labels vary as they do here.

        The leading axes must be gone: its counts are to be drawn.
        """
        means = np.divide(
            self.residual_sums, self.residuals, out=np.zeros_like(self.residuals), where=self.residuals > 0
        )
        return replace(self, means=means).with_parts([self.residuals])

    def compact(self) -> RegressionTable:
        """Return the table as it is resampled by whole buckets: all of its sums."""
        return self

    def constants(self) -> tuple[RegressionTable, ...]:
        """Return the table of the predictor that always says the mean of the labels; only its squares are known."""
        n = np.maximum(self.sum_of("n"), 1.0)
        inside = np.maximum(self.sum_of("y2") - self.sum_of("y") ** 2 / n, 0.0)
        moments = np.full_like(self.moments, np.nan)
        for name in ("n", "y", "y2", "y4", "unknown"):
            moments[..., MOMENTS.index(name)] = self.sum_of(name)
        moments[..., MOMENTS.index("e")] = 0.0
        moments[..., MOMENTS.index("e2")] = inside
        return (replace(self, moments=moments, residuals=np.full_like(self.residuals, np.nan), means=None),)


Table = BinaryTable | MulticlassTable | MultilabelTable | RegressionTable


def questions(table: MulticlassTable | MultilabelTable, *, scores: bool) -> dict[str, BinaryTable]:
    """Return the yes-or-no question of each class, or of those that have scores."""
    asked = {name: table.one(name, scores=scores) for name in table.classes}
    return {name: question for name, question in asked.items() if question is not None}


def total(table: Table) -> Table:
    """Return a table with its leading axes summed."""
    pairs = zip(table.parts(), _axes(table), strict=True)
    return table.with_parts([part.reshape(-1, *part.shape[part.ndim - axes :]).sum(axis=0) for part, axes in pairs])


def _axes(table: Table) -> list[int]:
    """Return how many axes of each part are its own."""
    if isinstance(table, BinaryTable):
        return [3]
    if isinstance(table, RegressionTable):
        return [1] * len(table.parts())
    return [2 if isinstance(table, MulticlassTable) else 3, *[3] * len(table.asked)]


def task_of(table: Table) -> str:
    """Return the task that a table is of."""
    names = {
        BinaryTable: "binary",
        MulticlassTable: "multiclass",
        MultilabelTable: "multilabel",
        RegressionTable: "regression",
    }
    return names[type(table)]


# --- tables of profiles -----------------------------------------------------------------------------------------------


def table_of(profile: Profile, attribute: str = "all", *, like: Profile | None = None) -> Table | None:
    """Return a profile's outcomes, all rows or with the attribute's groups as the leading axis; None without labels.

    ``like`` is the profile whose mean scores stand for the cells, by default this one.
    """
    cells = profile.outcome_cells
    if cells is None or profile.layout.outcomes is None:
        return None
    dense = cells.dense(profile.layout).values
    return table_of_cells(profile.layout, dense, mean_scores(like or profile), attribute)


def mean_scores(profile: Profile) -> dict[str, Counts]:
    """Return the mean score of each cell of the score columns, by column."""
    found = {}
    for name, column in profile.layout.columns.items():
        if isinstance(column, NumericLayout) and (name == "score" or name.startswith("scores.")):
            counted = profile.columns.get(name)
            found[name] = (
                counted.positions(column)
                if isinstance(counted, NumericProfile)
                else NumericProfile(np.zeros(column.cells, np.int64), np.zeros(column.cells)).positions(column)
            )
    return found


def table_of_cells(
    layout: Layout, cells: Counts | csr_array, scores: Mapping[str, Counts], attribute: str = "all"
) -> Table | None:
    """Return the table of outcome cells of shape (..., ``layout.outcome_cells``), groups after the leading axes."""
    outcomes = layout.outcomes
    if outcomes is None or (attribute not in layout.tables and outcomes.task != "multilabel"):
        return None

    def part(name: str) -> Counts:
        table = layout.tables[name]
        span = slice(table.offset, table.offset + table.size)
        found = cells[:, span].toarray() if isinstance(cells, csr_array) else cells[..., span]
        shape = table.shape if attribute != "all" or name == "all/sizes" else table.shape[1:]
        return np.asarray(found, np.float64).reshape(*cells.shape[:-1], *shape)

    if outcomes.task == "binary":
        negative = next(name for name in outcomes.classes if name != outcomes.positive)
        return BinaryTable(part(attribute), scores.get("score", np.empty(0)), (negative, outcomes.positive))
    if outcomes.task == "multiclass":
        asked = {
            name: BinaryTable(_yes_or_no(part(f"{attribute}/{name}")), scores[f"scores.{name}"])
            for name in outcomes.classes
            if f"{attribute}/{name}" in layout.tables
        }
        return MulticlassTable(outcomes.classes, part(attribute), asked)
    if outcomes.task == "multilabel":
        labels = {
            name: BinaryTable(part(f"all/{name}"), scores.get(f"scores.{name}", np.empty(0)))
            for name in outcomes.classes
        }
        return MultilabelTable(outcomes.classes, labels, part("all/sizes"))
    return RegressionTable(
        part(attribute), part(f"{attribute}/residual"), part(f"{attribute}/residual_sums"),
        np.array(outcomes.residual_edges),
    )  # fmt: skip


def _yes_or_no(cells: Counts) -> Counts:
    """Return (..., is / is not / unknown, is / is not, score) with the labels and predictions of a binary table."""
    found = np.zeros((*cells.shape[:-3], 3, 3, cells.shape[-1]))
    found[..., 0, 0, :], found[..., 0, 1, :] = cells[..., 1, 1, :], cells[..., 1, 0, :]
    found[..., 1, 0, :], found[..., 1, 1, :] = cells[..., 0, 1, :], cells[..., 0, 0, :]
    found[..., 2, 0, :], found[..., 2, 1, :] = cells[..., 2, 1, :], cells[..., 2, 0, :]
    return found


def _equal_shares(cells: Counts, most: int) -> NDArray[np.int64]:
    """Return where groups of neighbouring score cells end, "no score" left out."""
    weights = cells.reshape(-1, cells.shape[-1]).sum(axis=0)[:-1]
    if weights.size <= most:
        return np.arange(1, weights.size + 1)
    running = np.cumsum(weights)
    targets = running[-1] * np.arange(1, most) / most
    return np.unique(np.append(np.searchsorted(running, targets) + 1, weights.size))


def _gathered(cells: Counts, ends: NDArray[np.int64]) -> Counts:
    if not ends.size:
        return cells
    starts = np.concatenate(([0], ends[:-1], [cells.shape[-1] - 1]))
    return np.asarray(np.add.reduceat(cells, starts, axis=-1))


# --- tables of rows ---------------------------------------------------------------------------------------------------


def table_of_rows(rows: pa.Table, task: Task) -> Table:
    """Return the exact table of rows in the lake's columns: every distinct score and residual has a cell of its own.

    Columns are ``prediction``, ``ground_truth``, ``score`` or ``scores.<class>``; classes default to those that occur.
    """
    batch = rows.combine_chunks().to_batches()[0] if rows.num_rows else pa.RecordBatch.from_pylist([], rows.schema)
    if task.name == "regression":
        return _regression_of(batch)
    classes = task.classes or _occurring(batch)
    if task.name == "binary":
        positive = task.positive_class or classes[-1]
        names = (next(name for name in classes if name != positive), positive)
        label, prediction = _codes(batch, GROUND_TRUTH, names), _codes(batch, "prediction", names)
        cells, scores = _cells(np.minimum(label, 2), np.minimum(prediction, 2), _numbers(batch, "score"))
        return BinaryTable(cells, scores, names)
    if task.name == "multiclass":
        label, prediction = _codes(batch, GROUND_TRUTH, classes), _codes(batch, "prediction", classes)
        side = len(classes) + 2
        whole = np.bincount(label * side + prediction, minlength=side * side).reshape(side, side).astype(np.float64)
        asked = {}
        for place, name in enumerate(classes):
            if f"scores.{name}" in batch.schema.names:
                is_label = np.where(label == len(classes) + 1, UNKNOWN, label == place)
                cells, scores = _cells(is_label, (prediction == place) + 0, _numbers(batch, f"scores.{name}"))
                asked[name] = BinaryTable(cells, scores)
        return MulticlassTable(tuple(classes), whole, asked)
    layout = Layout({}, OutcomeLayout("multilabel", tuple(classes)))
    counted = _added(batch, layout)
    found = table_of_cells(layout, counted, {})
    assert isinstance(found, MultilabelTable)  # noqa: S101 - the layout is multi-label
    asked = {}
    true, predicted = _members(batch, GROUND_TRUTH, classes), _members(batch, "prediction", classes)
    for place, name in enumerate(classes):
        cells, scores = _cells(true[:, place], predicted[:, place], _numbers(batch, f"scores.{name}"))
        asked[name] = BinaryTable(cells, scores)
    return replace(found, asked=asked)


def _regression_of(batch: pa.RecordBatch) -> RegressionTable:
    layout = Layout({}, OutcomeLayout("regression"))
    moments = _added(batch, layout)[: len(MOMENTS)]
    error = _numbers(batch, "prediction") - _numbers(batch, GROUND_TRUTH)
    values, counts = np.unique(error[np.isfinite(error)], return_counts=True)
    # A cell between neighbouring edges holds one value: edges lie on the values, the first cell is empty.
    residuals = np.concatenate(([0.0], counts.astype(np.float64)))
    return RegressionTable(moments, residuals, np.concatenate(([0.0], values * counts)), values)


def _added(batch: pa.RecordBatch, layout: Layout) -> Counts:
    total = np.zeros(layout.outcome_cells)
    for places, weights in outcome_cells(batch, layout):
        kept = places >= 0
        total += np.bincount(places[kept], weights[kept] if weights.size else None, layout.outcome_cells)
    return total


def _cells(
    label: NDArray[np.int64], prediction: NDArray[np.int64], score: NDArray[np.float64]
) -> tuple[Counts, Counts]:
    known = np.isfinite(score)
    scores, place = np.unique(score[known], return_inverse=True)
    cell = np.full(score.size, scores.size, np.int64)
    cell[known] = place
    width = scores.size + 1
    flat = np.bincount((label.astype(np.int64) * 3 + prediction) * width + cell, minlength=9 * width)
    return flat.reshape(3, 3, width).astype(np.float64), scores


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    values = numbers_of(batch.column(name)) if name in batch.schema.names else None
    return np.full(batch.num_rows, np.nan) if values is None else values


def _codes(batch: pa.RecordBatch, name: str, classes: Sequence[str]) -> NDArray[np.int64]:
    none = len(classes) + 1
    coded = codes_of(batch.column(name), pa.array(classes, pa.string())) if name in batch.schema.names else None
    if coded is None:
        return np.full(batch.num_rows, none, np.int64)
    places = np.append(np.where(coded.cells < 0, none, coded.cells), none)
    return np.asarray(places[coded.codes], np.int64)


def _members(batch: pa.RecordBatch, name: str, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return whether each row's array of classes names each class, or UNKNOWN without an array; (rows, classes)."""
    found = np.full((batch.num_rows, len(classes)), UNKNOWN, np.int64)
    for row, value in enumerate(batch.column(name).to_pylist() if name in batch.schema.names else ()):
        labels = json.loads(value) if isinstance(value, str) else value
        if isinstance(labels, list):
            found[row] = [name in {str(label) for label in labels} for name in classes]
    return found


def _occurring(batch: pa.RecordBatch) -> tuple[str, ...]:
    names: set[str] = set()
    for column in (GROUND_TRUTH, "prediction"):
        if column in batch.schema.names:
            coded = codes_of(batch.column(column), pa.array([], pa.string()))
            names |= (
                set() if coded is None else {str(name) for name in coded.dictionary.to_pylist() if name is not None}
            )
    return tuple(sorted(names))
