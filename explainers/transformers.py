"""Whose is a transformed column: follows each column through a Pipeline's imputers, encoders and scalers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class MixedColumnsError(Exception):
    """A step makes columns out of several others, so that no contribution belongs to one input."""


Owners = list[int]


def owners(steps: Sequence[Any], columns: Sequence[str]) -> tuple[int, ...]:
    """Return for each column that the last of the steps gives which of the first's columns it comes from."""
    held = list(range(len(columns)))
    names: Sequence[str] | None = columns
    for step in steps:
        held = _through(step, held, names)
        names = None
    return tuple(held)


def _through(step: Any, held: Owners, names: Sequence[str] | None) -> Owners:
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return held
    follow = _STEPS.get(type(step).__name__)
    if follow is None or not type(step).__module__.startswith("sklearn."):
        raise MixedColumnsError(f"the step {type(step).__name__} does not say which column comes from which")
    return follow(step, held, names)


def _same(_step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    return held


def _pipeline(step: Any, held: Owners, names: Sequence[str] | None) -> Owners:
    for _, inner in step.steps:
        held = _through(inner, held, names)
        names = None
    return held


def _imputer(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    dropped = np.zeros(len(held), dtype=bool)
    if not getattr(step, "keep_empty_features", False) and hasattr(step, "statistics_"):
        statistics = np.asarray(step.statistics_)
        if statistics.dtype.kind == "f":
            dropped = np.isnan(statistics)
        elif statistics.dtype == object:
            dropped = np.array([isinstance(value, float) and np.isnan(value) for value in statistics])
    kept = [owner for owner, out in zip(held, dropped, strict=True) if not out]
    indicator = getattr(step, "indicator_", None)
    if getattr(step, "add_indicator", False) and indicator is not None:
        kept += [held[place] for place in indicator.features_]
    return kept


def _indicator(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    return [held[place] for place in step.features_]


def _one_hot(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    infrequent = getattr(step, "_infrequent_enabled", False)
    out: Owners = []
    for place, owner in enumerate(held):
        count = len(step.categories_[place])
        if infrequent and step.infrequent_categories_[place] is not None:
            count -= len(step.infrequent_categories_[place]) - 1
        drop = step.drop_idx_[place] if getattr(step, "drop_idx_", None) is not None else None
        out += [owner] * (count - (drop is not None))
    return out


def _bins(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    if step.encode == "ordinal":
        return held
    return [owner for owner, count in zip(held, step.n_bins_, strict=True) for _ in range(int(count))]


def _target(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    width = len(step.classes_) if getattr(step, "target_type_", "") == "multiclass" else 1
    return [owner for owner in held for _ in range(width)]


def _selected(step: Any, held: Owners, _names: Sequence[str] | None) -> Owners:
    return [held[place] for place in np.flatnonzero(step.get_support())]


def _columns(step: Any, held: Owners, names: Sequence[str] | None) -> Owners:
    out: Owners = []
    for label, inner, chosen in step.transformers_:
        if isinstance(inner, str) and inner == "drop":
            continue
        places = _places(chosen, held, names if names is not None else getattr(step, "feature_names_in_", None))
        if not places:
            continue
        start = step.output_indices_[label].start if getattr(step, "output_indices_", None) else len(out)
        if start != len(out):
            raise MixedColumnsError(f"the columns of {label} are not where they should be")
        chosen_names = None if names is None else [names[place] for place in places]
        out += _through(inner, [held[place] for place in places], chosen_names)
    return out


def _places(chosen: Any, held: Owners, names: Sequence[str] | None) -> list[int]:
    if isinstance(chosen, slice):
        if isinstance(chosen.start, str) or isinstance(chosen.stop, str):
            raise MixedColumnsError("a ColumnTransformer chooses columns by a slice of names")
        return list(range(len(held)))[chosen]
    listed = [chosen] if isinstance(chosen, str | int) else list(chosen)
    if listed and all(isinstance(each, bool | np.bool_) for each in listed):
        return list(np.flatnonzero(listed))
    known = {name: place for place, name in enumerate(names)} if names is not None else {}
    return [known[each] if isinstance(each, str) else int(each) for each in listed]


_STEPS: dict[str, Callable[[Any, Owners, Sequence[str] | None], Owners]] = {
    "ColumnTransformer": _columns,
    "Pipeline": _pipeline,
    "SimpleImputer": _imputer,
    "KNNImputer": _imputer,
    "MissingIndicator": _indicator,
    "OneHotEncoder": _one_hot,
    "OrdinalEncoder": _same,
    "TargetEncoder": _target,
    "KBinsDiscretizer": _bins,
    "StandardScaler": _same,
    "MinMaxScaler": _same,
    "MaxAbsScaler": _same,
    "RobustScaler": _same,
    "PowerTransformer": _same,
    "QuantileTransformer": _same,
    "Binarizer": _same,
    "VarianceThreshold": _selected,
    "SelectKBest": _selected,
    "SelectPercentile": _selected,
    "SelectFromModel": _selected,
}
