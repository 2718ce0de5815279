"""Two groups side by side as a bias metric sees them: counts with any leading axes, or rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from monitors.contract import Counts
from monitors.layout import Layout

FAVOURED, OTHER = 0, 1
"""The places of the favoured group (a) and the one that is looked at (d)."""
UNFAVOURABLE, FAVOURABLE, UNKNOWN = 0, 1, 2
"""The places of an outcome."""


@dataclass(frozen=True, eq=False)
class Facets:
    """Rows of two groups: ``cells`` of shape (..., 2 groups, strata, 3 labels, 3 predictions).

    Labels and predictions are unfavourable, favourable, unknown. ``classes`` of shape (..., 2, labels) holds the rows
    by label where labels are not collapsed to favourable or not.
    """

    cells: Counts
    classes: Counts | None = None

    @cached_property
    def rows(self) -> Counts:
        """All rows, shape (..., group)."""
        return np.asarray(self.cells.sum(axis=(-3, -2, -1)))

    @cached_property
    def labels(self) -> Counts:
        """Rows whose label is known, shape (..., group, label)."""
        return np.asarray(self.cells[..., :2, :].sum(axis=(-3, -1)))

    @cached_property
    def predictions(self) -> Counts:
        """Rows whose prediction is known, shape (..., group, prediction)."""
        return np.asarray(self.cells[..., :2].sum(axis=(-3, -2)))

    @cached_property
    def both(self) -> Counts:
        """Rows whose label and prediction are known, shape (..., group, label, prediction)."""
        return np.asarray(self.cells[..., :2, :2].sum(axis=-3))

    @cached_property
    def label_classes(self) -> Counts:
        """Rows by label, collapsed unless classes are given, shape (..., group, labels)."""
        return self.labels if self.classes is None else self.classes

    def by_stratum(self, what: str) -> Counts:
        """Return the rows whose "label" or "prediction" is known, shape (..., group, stratum, outcome)."""
        if what == "label":
            return np.asarray(self.cells[..., :2, :].sum(axis=-1))
        return np.asarray(self.cells[..., :2].sum(axis=-2))

    def counted(self, needs: frozenset[str]) -> Counts:
        """Return how many rows of each group have what a metric needs, shape (..., group)."""
        labels = slice(2) if "label" in needs else slice(None)
        predictions = slice(2) if "prediction" in needs else slice(None)
        return np.asarray(self.cells[..., labels, predictions].sum(axis=(-3, -2, -1)))


@dataclass(frozen=True, eq=False)
class FacetSample:
    """Rows of two groups: numeric ``features`` of shape (rows, features), who is looked at, who was favoured."""

    features: Counts
    other: NDArray[np.bool_]
    favourable: NDArray[np.bool_]


def divided(part: Counts, whole: Counts, *, quirky: bool) -> Counts:
    """Return part / whole: undefined (NaN) where the whole is 0.

    With ``quirky`` as smclarify has it: 0 / 0 is 0, and anything else by 0 is infinite.
    """
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    nothing = np.where(part == 0, 0.0, np.copysign(np.inf, part)) if quirky else np.full(part.shape, np.nan)
    return np.divide(part, whole, out=np.asarray(nothing, np.float64), where=whole != 0)


def difference(minuend: Counts, subtrahend: Counts, *, quirky: bool) -> Counts:
    """Return the difference; with ``quirky`` two infinities are equal, as smclarify has it."""
    same = np.isinf(minuend) & (minuend == subtrahend)
    with np.errstate(invalid="ignore"):
        found = np.asarray(minuend - subtrahend)
    return np.where(same & quirky, 0.0, found)


def shares_of_labels(facets: Facets, *, quirky: bool) -> tuple[Counts, Counts]:
    """Return the shares of the labels in both groups, each of shape (..., labels).

    With ``quirky`` labels that one group lacks are left out (0 in both), as smclarify has it, without making the rest
    sum to 1.
    """
    counts = facets.label_classes
    shares = divided(counts, counts.sum(axis=-1, keepdims=True), quirky=False)
    favoured, other = shares[..., FAVOURED, :], shares[..., OTHER, :]
    if not quirky:
        return favoured, other
    shared = (favoured > 0) & (other > 0)
    nowhere = ~shared.any(axis=-1, keepdims=True)
    return tuple(np.where(nowhere, np.nan, np.where(shared, part, 0.0)) for part in (favoured, other))  # type: ignore[return-value]


def relative_entropy(one: Counts, other: Counts) -> Counts:
    """Return the sum of p ln(p / q) over the last axis, infinite where q is 0 and p is not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = one * (np.log(one) - np.log(other))
    return np.asarray(np.where(one == 0, 0.0, terms).sum(axis=-1))


def conditional_disparity(counts: Counts) -> Counts:
    """Return the mean over strata of (share of the group among the rejected - among the accepted), by their rows.

    ``counts`` has the shape (..., group, stratum, outcome). A term without rejected (or accepted) rows counts 0; NaN
    where nobody at all was accepted, or rejected. Wachter, Mittelstadt and Russell (2021).
    """
    whole = counts.sum(axis=-3)
    share = np.divide(counts[..., OTHER, :, :], whole, out=np.zeros(whole.shape), where=whole > 0)
    rows = whole.sum(axis=-1)
    mean = divided(
        ((share[..., UNFAVOURABLE] - share[..., FAVOURABLE]) * rows).sum(axis=-1), rows.sum(axis=-1), quirky=False
    )
    return np.where((whole.sum(axis=-2) > 0).all(axis=-1), mean, np.nan)


def facets_of_rows(
    other: Sequence[bool] | NDArray[np.bool_],
    labels: Sequence[object] | None = None,
    predictions: Sequence[object] | None = None,
    *,
    favourable: Sequence[object] = (1,),
    strata: Sequence[object] | None = None,
    collapsed: bool = True,
) -> Facets:
    """Return the facets of rows: ``other`` says which belong to the group that is looked at, None is unknown.

    ``collapsed`` False keeps the labels apart in ``classes``.
    """
    group = np.where(np.asarray(other, np.bool_), OTHER, FAVOURED)
    wanted = set(favourable)

    def outcome(values: Sequence[object] | None) -> NDArray[np.int64]:
        if values is None:
            return np.full(group.size, UNKNOWN)
        return np.array([UNKNOWN if value is None else int(value in wanted) for value in values], np.int64)

    names = sorted({str(value) for value in strata}) if strata is not None else [""]
    place = {name: at for at, name in enumerate(names)}
    stratum = np.array([place[str(value)] for value in strata] if strata is not None else [0] * group.size, np.int64)
    cells = np.zeros((2, len(names), 3, 3))
    np.add.at(cells, (group, stratum, outcome(labels), outcome(predictions)), 1.0)
    classes = None
    if not collapsed and labels is not None:
        kinds = sorted({str(value) for value in labels if value is not None})
        classes = np.zeros((2, len(kinds)))
        known = [(at, kinds.index(str(value))) for at, value in zip(group, labels, strict=True) if value is not None]
        np.add.at(classes, tuple(np.array(known).T), 1.0)
    return Facets(cells, classes)


def facet_cells(layout: Layout, values: Counts, attribute: str) -> Counts:
    """Return an attribute's outcomes, shape (..., groups, strata, 3 labels, 3 predictions), of all outcome cells.

    ``values`` has the shape (..., ``layout.outcome_cells``). ValueError where the layout does not know which outcome is
    favourable, or does not count the attribute.
    """
    outcomes = layout.outcomes
    if outcomes is None or attribute not in outcomes.groups:
        raise ValueError(f"outcomes are not counted by {attribute}")
    if outcomes.favourable is None:
        raise ValueError("the favourable outcome is not known")
    leading = values.shape[:-1]

    def part(name: str) -> Counts:
        table = layout.tables[name]
        return np.asarray(values[..., table.offset : table.offset + table.size]).reshape(*leading, *table.shape)

    if outcomes.counts_favourable:
        return part(f"{attribute}/favourable")
    if outcomes.task == "binary":
        cells = part(attribute).sum(axis=-1)
        order = [0, 1, 2] if outcomes.favourable == outcomes.positive else [1, 0, 2]
        return np.asarray(cells[..., order, :][..., order])[..., None, :, :]
    cells = part(attribute)
    good, unknown = outcomes.classes.index(str(outcomes.favourable)), len(outcomes.classes) + 1
    place = np.full(unknown + 1, UNFAVOURABLE)
    place[good], place[unknown] = FAVOURABLE, UNKNOWN
    collapse = (place == np.arange(3)[:, None]).astype(np.float64)
    return np.asarray(np.einsum("ia,...ab,jb->...ij", collapse, cells, collapse))[..., None, :, :]
