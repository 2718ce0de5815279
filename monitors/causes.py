"""Root causes: which moved features the model heeds, what each did to performance, and how a change of it splits.

Models of the baseline's rows say what to expect of the prediction, the loss and the label. They are fitted on one half
of the baseline's sampled rows and used on the other half and on the window's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from monitors.contract import Column, Task
from monitors.losses import row_losses
from monitors.multivariate import Floats, matrix, numbers, texts

TREES = 60
DEPTH = 4
LEAF = 20
LEAST_ROWS = 100
REPLICATES = 200
LEVEL = (0.025, 0.975)
MOST_CLASSES = 20

Work = TypeVar("Work", bound=Callable[..., Any])


def alone(work: Work) -> Work:
    """Let a function fit on one thread: on so few rows threads that wait for each other cost more than they save."""
    return cast(Work, threadpool_limits.wrap(limits=1, user_api="openmp")(work))


@dataclass(frozen=True)
class Part:
    """A part of a change of the mean loss, with the interval of 95 % of bootstrap replicates of the rows."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    reason: str = ""


@alone
def heeded(rows: pa.Table, columns: Sequence[Column], generator: np.random.Generator) -> dict[str, float]:
    """Return how much a surrogate of the prediction rests on each feature, as shares that sum to 1, by label.

    The surrogate is gradient boosting of the score (the prediction where there is none) on one half of the rows; a
    feature's importance is the mean squared change of its output when the feature is shuffled among the other half.
    Empty where there is nothing to learn from.
    """
    target = _target(rows)
    if target is None or not columns:
        return {}
    (inputs,) = matrix(columns, rows, (rows,))
    kept = np.isfinite(target)
    inputs, target = inputs[kept], target[kept]
    if target.size < LEAST_ROWS or target.std() == 0:
        return {}
    half = generator.permutation(target.size) < target.size // 2
    model = _regressor(generator).fit(inputs[half], target[half])
    other = inputs[~half]
    said = np.asarray(model.predict(other))
    changes = []
    for place in range(other.shape[1]):
        shuffled = other.copy()
        shuffled[:, place] = generator.permutation(other[:, place])
        changes.append(float(((np.asarray(model.predict(shuffled)) - said) ** 2).mean()))
    total = sum(changes)
    if total <= 0:
        return {}
    return {column.label: change / total for column, change in zip(columns, changes, strict=True)}


@alone
def explained(
    baseline: pa.Table, window: pa.Table, columns: Sequence[Column], task: Task, generator: np.random.Generator
) -> dict[str, float]:
    """Return the change of the mean loss that each feature's new distribution explains by itself, by label.

    The expected loss given the inputs is learnt from one half of the labelled baseline rows. In the other half one
    feature at a time is replaced by the window's values, drawn at random; the change of the mean is that feature's.
    Empty where too few baseline rows are labelled.
    """
    losses = row_losses(baseline, task)
    if losses is None or not columns:
        return {}
    before, now = matrix(columns, baseline, (baseline, window))
    kept = np.isfinite(losses)
    before, losses = before[kept], losses[kept]
    if losses.size < LEAST_ROWS or len(now) < LEAST_ROWS:
        return {}
    half = generator.permutation(losses.size) < losses.size // 2
    model = _regressor(generator).fit(before[half], losses[half])
    other = before[~half]
    usual = float(np.mean(model.predict(other)))
    found = {}
    for place, column in enumerate(columns):
        moved = other.copy()
        moved[:, place] = generator.choice(now[:, place], len(other))
        found[column.label] = float(np.mean(model.predict(moved))) - usual
    return found


@alone
def split(
    baseline: pa.Table, window: pa.Table, columns: Sequence[Column], task: Task, generator: np.random.Generator
) -> list[Part]:
    """Return the change of the mean loss and its covariate, label and concept part, in this order.

    - *covariate*: what the new inputs would cost if labels depended on them as before;
    - *label*: what is added by the window's class shares, beyond those that its inputs make expected, if within each
      class nothing else had changed (the odds of each class are multiplied by one factor: Saerens, Latinne and
      Decaestecker 2002);
    - *concept*: the rest, what neither inputs nor class shares explain.

    They add up. For numbers there is no label part. Intervals are of the rows, models held fixed.
    """
    both = [(table, row_losses(table, task)) for table in (baseline, window)]
    if any(losses is None or int(np.isfinite(losses).sum()) < LEAST_ROWS for _, losses in both):
        return [Part("change", None, reason=f"under {LEAST_ROWS} labelled rows in the baseline or the window")]
    sides = [
        (table.filter(pa.array(np.isfinite(losses))), losses[np.isfinite(losses)])
        for table, losses in both
        if losses is not None
    ]
    (old, old_loss), (new, new_loss) = sides
    before, now = matrix(columns, baseline, (old, new))
    half = generator.permutation(old_loss.size) < old_loss.size // 2
    if task.name == "regression":
        model = _regressor(generator).fit(before[half], old_loss[half])
        usual, moved = np.asarray(model.predict(before[~half])), np.asarray(model.predict(now))
        shifted = moved
    else:
        found = _expected_errors(before, now, old, new, half, generator)
        if isinstance(found, str):
            return [Part("change", None, reason=found)]
        usual, moved, shifted = found
    # What the model of the loss is wrong by on rows that it has not seen belongs to no part.
    bias = old_loss[~half] - usual
    draws = [
        _parts(bias + usual, usual, new_loss, moved, shifted, generator if number else None)
        for number in range(REPLICATES + 1)
    ]
    values, drawn = draws[0], np.array(draws[1:])
    names = ("change", "covariate", "label", "concept")
    parts = []
    for place, name in enumerate(names):
        if name == "label" and task.name == "regression":
            parts.append(Part(name, None, reason="numbers have no class shares"))
            continue
        low, high = np.quantile(drawn[:, place], LEVEL)
        parts.append(Part(name, float(values[place]), (float(low), float(high))))
    return parts


def _parts(
    old: Floats, usual: Floats, new: Floats, moved: Floats, shifted: Floats, generator: np.random.Generator | None
) -> tuple[float, float, float, float]:
    """Return change, covariate, label and concept part of the rows, or of a bootstrap replicate of them."""
    if generator is not None:
        mine, theirs = (generator.integers(0, one.size, one.size) for one in (old, new))
        old, usual, new, moved, shifted = old[mine], usual[mine], new[theirs], moved[theirs], shifted[theirs]
    change = float(new.mean() - old.mean())
    covariate = float(moved.mean() - usual.mean())
    label = float(shifted.mean() - moved.mean())
    return change, covariate, label, change - covariate - label


def _expected_errors(
    before: Floats, now: Floats, old: pa.Table, new: pa.Table, half: np.ndarray, generator: np.random.Generator
) -> tuple[Floats, Floats, Floats] | str:
    """Return the expected error of unseen baseline rows, of the window's, and of those at the window's class shares."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    truth = np.array(texts(old, "ground_truth"), dtype=object).astype(str)
    classes = np.unique(truth[half])
    if not 2 <= classes.size <= MOST_CLASSES:
        return f"{classes.size} classes among the baseline's labels; between 2 and {MOST_CLASSES} can be split"
    seed = int(generator.integers(2**31))
    model = HistGradientBoostingClassifier(
        max_iter=TREES, max_depth=DEPTH, min_samples_leaf=LEAF, early_stopping=False, random_state=seed
    ).fit(before[half], truth[half])
    places = {name: place for place, name in enumerate(model.classes_)}

    def wrong(chances: Floats, table: pa.Table) -> Floats:
        said = [places.get(str(value), -1) for value in texts(table, "prediction")]
        right = np.array([row[place] if place >= 0 else 0.0 for row, place in zip(chances, said, strict=True)])
        return 1.0 - right

    usual = np.asarray(model.predict_proba(before[~half]))
    chances = np.asarray(model.predict_proba(now))
    known = texts(new, "ground_truth")
    shares = np.array([sum(str(value) == name for value in known) for name in model.classes_], np.float64)
    shares /= max(shares.sum(), 1.0)
    return wrong(usual, old.filter(pa.array(~half))), wrong(chances, new), wrong(tilted(chances, shares), new)


def tilted(chances: Floats, shares: Floats) -> Floats:
    """Return chances of shape (rows, classes), each class's odds times one factor so that the means are ``shares``.

    Iterated proportional fitting over rows (sum 1) and classes (mean as given); stops when means agree to 1e-9.
    """
    found = np.clip(chances, 1e-9, None)
    for _ in range(500):
        found = found * (np.clip(shares, 1e-9, None) / found.mean(axis=0))
        found /= found.sum(axis=1, keepdims=True)
        if np.abs(found.mean(axis=0) - shares).max() < 1e-9:
            break
    return np.asarray(found)


def _target(rows: pa.Table) -> Floats | None:
    """Return what the model said as a number: the score, a numeric prediction, or whether it is the commonest class."""
    if "score" in rows.column_names and rows["score"].null_count < rows.num_rows:
        return numbers(rows, "score")
    if "prediction" not in rows.column_names:
        return None
    kind = rows.schema.field("prediction").type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return numbers(rows, "prediction")
    said = texts(rows, "prediction")
    held = [value for value in said if value is not None]
    if not held:
        return None
    commonest = max(sorted(set(held)), key=held.count)
    return np.array([np.nan if value is None else float(value == commonest) for value in said], np.float64)


def _regressor(generator: np.random.Generator) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        max_iter=TREES,
        max_depth=DEPTH,
        min_samples_leaf=LEAF,
        early_stopping=False,
        random_state=int(generator.integers(2**31)),
    )


def shares_of(importances: Mapping[str, float]) -> dict[str, float]:
    """Return importances as shares that sum to 1; empty where none is above 0."""
    total = sum(max(value, 0.0) for value in importances.values())
    return {name: max(value, 0.0) / total for name, value in importances.items()} if total > 0 else {}
