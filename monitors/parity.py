"""What is offered under fairlearn's name, computed by fairlearn on the weighted cells of a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from math import isfinite
from typing import Any

import numpy as np

from monitors.contract import Counts
from monitors.facets import FAVOURABLE

RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
"""What is shown of each group."""
LABELLED = ("true_positive_rate", "false_positive_rate")


@cache
def names() -> tuple[str, ...]:
    """Return fairlearn's differences and ratios between groups."""
    from fairlearn import metrics  # slow to import

    return tuple(name for name in metrics.__all__ if name.endswith(("_difference", "_ratio")))


def needs_labels(name: str) -> bool:
    """Whether a difference, ratio or rate looks at labels."""
    return not name.startswith(("demographic_parity", "selection_rate"))


def gap(name: str, groups: Sequence[str], cells: Counts) -> float:
    """Return one of fairlearn's differences or ratios; NaN where it is undefined.

    ``cells`` of shape (groups, 2 labels, 2 predictions) are the rows of each group; of what looks at predictions alone
    the labels do not matter.
    """
    from fairlearn import metrics

    truth, prediction, people, weights = _rows(groups, cells)
    if len(set(people)) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # groups without any positive: the value says so
        value = getattr(metrics, name)(truth, prediction, sensitive_features=people, sample_weight=weights)
    return float(value) if isfinite(value) else float("nan")


def rates(groups: Sequence[str], cells: Counts) -> dict[str, dict[str, float]]:
    """Return the rates of each group by name, from a MetricFrame over the cells."""
    from fairlearn import metrics

    truth, prediction, people, weights = _rows(groups, cells)
    if not people:
        return {name: {} for name in RATES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = metrics.MetricFrame(
            metrics={name: getattr(metrics, name) for name in RATES},
            y_true=truth,
            y_pred=prediction,
            sensitive_features=people,
            sample_params={name: {"sample_weight": weights} for name in RATES},
        )
    found = frame.by_group.to_dict()
    return {name: {str(group): float(value) for group, value in found[name].items()} for name in RATES}


def _rows(groups: Sequence[str], cells: Counts) -> tuple[Any, Any, list[str], Any]:
    """Return label, prediction, group and weight of each cell that holds rows."""
    group, label, prediction = np.nonzero(cells)
    people = [groups[place] for place in group.tolist()]
    return (label == FAVOURABLE).astype(int), (prediction == FAVOURABLE).astype(int), people, cells[cells != 0]
