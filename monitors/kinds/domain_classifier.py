"""Domain classifier: whether a model can tell the window's rows from the baseline's, and by which columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from monitors.contract import Comparison, Kind, Parameters, Result, Subject, Type
from monitors.multivariate import (
    NUMBERS,
    Floats,
    Places,
    Quiet,
    RowParameters,
    features,
    matrix,
    quiet_blocks,
    rest_of,
    thinned_rows,
)
from monitors.null import student_tail

METRIC = "domain_classifier_auc"
IMPORTANCE = "domain_importance"
FOLDS = 5
MOST_ROWS = 5_000
"""Rows of each side that are learnt from and tested on: more find nothing that matters and cost time."""
BLOCK_ROWS = 1_000
TREES = 50
DEPTH = 4
LEAF = 10
NAMED = 3
Work = TypeVar("Work", bound=Callable[..., Any])


def alone(work: Work) -> Work:
    """Let a function fit on one thread: on so few rows threads that wait for each other cost more than they save."""
    return cast(Work, threadpool_limits.wrap(limits=1, user_api="openmp")(work))


class DomainParameters(RowParameters):
    """Which columns are taken together, and what counts."""

    min_effect: float = Field(0.05, ge=0, le=0.5, description="Least AUC above one half that is reported.")


class DomainClassifier(Kind):
    """The cross-validated AUC of gradient boosting between baseline and window: 0.5 where nothing tells them apart.

    Missing values and categories that the baseline does not have are told apart too. Its importances (the AUC that is
    lost when a column is shuffled among the tested rows) are shown by column.
    """

    name: ClassVar[str] = "domain_classifier"
    title: ClassVar[str] = "Domain classifier"
    source: ClassVar[str] = "Lopez-Paz and Oquab (2017), classifier two-sample tests; Dawid (1984), prequential"
    told: ClassVar[tuple[str, str]] = ("comparisons", "moved")
    parameters: ClassVar[type[Parameters]] = DomainParameters

    def measure(self, comparison: Comparison, parameters: Parameters) -> list[Result]:
        """Return the AUC, judged, and the importance of each column, shown."""
        chosen = DomainParameters.model_validate(parameters.model_dump(by_alias=True))
        baseline, window = comparison.baseline_rows(), comparison.rows()
        columns = features(comparison, chosen, (*NUMBERS, Type.CATEGORICAL))
        if baseline is None or window is None:
            return [_unmeasured("no rows are kept of the baseline" if baseline is None else "no row came", 0, 0)]
        sizes = (window.num_rows, baseline.num_rows)
        if not columns:
            return [_unmeasured("there is no column to tell rows apart by", *sizes)]
        if min(sizes) < chosen.min_rows:
            return [_unmeasured(f"insufficient rows: {min(sizes)} of {chosen.min_rows}", *sizes)]
        generator = comparison.generator(METRIC, Subject())
        before, now = matrix(columns, baseline, (baseline, window))
        old = before[thinned_rows(np.arange(len(before)), MOST_ROWS, generator)]
        new = now[thinned_rows(np.arange(len(now)), MOST_ROWS, generator)]
        quiet = quiet_blocks(comparison, baseline)
        auc, lost = cross_validated(old, new, generator)
        p_value = prequential(old, new, generator)
        if quiet.enough:
            p_value = max(p_value, _by_blocks(before, now, quiet, generator))
        order = np.argsort(-lost, kind="stable")
        told = ", ".join(f"{columns[at].label} {lost[at]:.2g}" for at in order[:NAMED] if lost[at] > 0)
        notes = [quiet.note, f"AUC lost without: {told}" if told else ""]
        return [
            Result(
                metric=METRIC,
                value=auc,
                baseline_value=0.5,
                effect=max(auc - 0.5, 0.0),
                min_effect=chosen.min_effect,
                p_value=p_value,
                n_window=window.num_rows,
                n_baseline=baseline.num_rows,
                note="; ".join(note for note in notes if note),
            ),
            *(
                Result(
                    metric=IMPORTANCE,
                    subject=Subject(feature=columns[at].label),
                    value=float(lost[at]),
                    verdict=None,
                    decides=False,
                    n_window=window.num_rows,
                    n_baseline=baseline.num_rows,
                    unit="AUC",
                )
                for at in order
            ),
        ]


def auc_of(scores: Floats, new: NDArray[np.bool_]) -> float:
    """Return the chance that a new row scores above an old one, ties counting half."""
    n_new = int(new.sum())
    n_old = new.size - n_new
    return float((rankdata(scores)[new].sum() - n_new * (n_new + 1) / 2) / (n_new * n_old))


@alone
def cross_validated(old: Floats, new: Floats, generator: np.random.Generator) -> tuple[float, Floats]:
    """Return the mean AUC of five stratified folds, and what it loses when each column is shuffled in the tested rows.

    NannyML's definition; its LightGBM has other defaults, so figures differ by about a hundredth.
    """
    rows, label = _both(old, new)
    folds = _folds(label, generator)
    aucs, lost = [], np.zeros(rows.shape[1])
    for fold in range(FOLDS):
        tested = folds == fold
        model = _fitted(rows[~tested], label[~tested], generator)
        inside, truth = rows[tested], label[tested]
        auc = auc_of(_scores(model, inside), truth)
        aucs.append(auc)
        for column in range(rows.shape[1]):
            shuffled = inside.copy()
            shuffled[:, column] = generator.permutation(inside[:, column])
            lost[column] += (auc - auc_of(_scores(model, shuffled), truth)) / FOLDS
    return float(np.mean(aucs)), lost


@alone
def prequential(old: Floats, new: Floats, generator: np.random.Generator) -> float:
    """Return the p-value of being told apart, without fitting a model a thousand times.

    Fold k is scored by a model of the folds before it. Given those, the labels of fold k are exchangeable if nothing
    changed, so its Mann-Whitney statistic has its permutation distribution whatever the model, and the statistics of
    the folds add up: their sum is compared with the sum of means and variances (ties taken off).
    """
    rows, label = _both(old, new)
    folds = _folds(label, generator)
    above = variance = 0.0
    for fold in range(1, FOLDS):
        tested, known = folds == fold, folds < fold
        scores = _scores(_fitted(rows[known], label[known], generator), rows[tested])
        n_new, n = int(label[tested].sum()), int(tested.sum())
        n_old = n - n_new
        _, ties = np.unique(scores, return_counts=True)
        above += (auc_of(scores, label[tested]) - 0.5) * n_new * n_old
        variance += n_new * n_old / 12 * (n + 1 - float((ties**3 - ties).sum()) / (n * (n - 1)))
    return float(ndtr(-above / np.sqrt(variance))) if variance > 0 else 1.0


@alone
def _by_blocks(before: Floats, now: Floats, quiet: Quiet, generator: np.random.Generator) -> float:
    """Return the chance of the window's AUC by the Student-t distribution of the blocks' AUC against the rest.

    All are compared at one size, the smaller of the window and the median block.
    """
    size = int(min(len(now), np.median([places.size for places in quiet.blocks]), BLOCK_ROWS))

    def halved(one: Places, rest: Places, rows: Floats) -> float:
        return _halves(
            before[thinned_rows(rest, 2 * size, generator)], rows[thinned_rows(one, size, generator)], generator
        )

    own = halved(np.arange(len(now)), np.arange(len(before)), now)
    others = [halved(places, rest_of(len(before), places), before) for places in quiet.blocks]
    return student_tail(own, np.array(others))


def _halves(old: Floats, new: Floats, generator: np.random.Generator) -> float:
    """Return the mean AUC of two halves, each scored by a model of the other."""
    rows, label = _both(old, new)
    first = _folds(label, generator, 2) == 0
    return float(
        np.mean(
            [
                auc_of(_scores(_fitted(rows[part], label[part], generator), rows[~part]), label[~part])
                for part in (first, ~first)
            ]
        )
    )


def _both(old: Floats, new: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    return np.concatenate([old, new]), np.arange(len(old) + len(new)) >= len(old)


def _folds(label: NDArray[np.bool_], generator: np.random.Generator, number: int = FOLDS) -> Places:
    """Return the fold of each row, old and new rows spread evenly."""
    folds = np.empty(label.size, np.int64)
    for side in (label, ~label):
        places = np.flatnonzero(side)
        folds[generator.permutation(places)] = np.arange(places.size) % number
    return folds


class _Constant:
    """What is fitted where all rows are of one side."""

    def predict_proba(self, rows: Floats) -> Floats:
        return np.full((len(rows), 2), 0.5)


def _fitted(rows: Floats, label: NDArray[np.bool_], generator: np.random.Generator) -> object:
    from sklearn.ensemble import HistGradientBoostingClassifier

    seed = int(generator.integers(2**31))
    if label.all() or not label.any():
        return _Constant()
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_depth=DEPTH, min_samples_leaf=LEAF, early_stopping=False, random_state=seed
    )
    return model.fit(rows, label)


def _scores(model: object, rows: Floats) -> Floats:
    return np.asarray(model.predict_proba(rows)[:, 1])  # type: ignore[attr-defined]


def _unmeasured(reason: str, n_window: int, n_baseline: int) -> Result:
    return Result(metric=METRIC, reason=reason, n_window=n_window, n_baseline=n_baseline)
