"""Groups of people: how the values of an attribute become the groups that outcomes are counted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monitors.columns import codes_of, numbers_of
from monitors.contract import Attribute
from monitors.layout import MOST_GROUPS


def cut_names(cuts: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the groups that cuts make of numbers: ``<25``, ``25..62``, ``>=62``.

    A group holds the values from its cut on to below the next one.
    """
    inner = [f"{low:g}..{high:g}" for low, high in pairwise(cuts)]
    return (f"<{cuts[0]:g}", *inner, f">={cuts[-1]:g}")


def group_names(values: pa.Array | pa.ChunkedArray, cuts: Sequence[float] = ()) -> pa.Array:
    """Return the name of each row's group as dictionary codes, null where the row has no value.

    Numbers are put between the cuts; without cuts each value is a group of its own, in the one spelling of text.
    """
    if cuts:
        numbers = numbers_of(values)
        if numbers is None:
            return pa.nulls(len(values), pa.string()).dictionary_encode()
        places = np.searchsorted(np.array(cuts), numbers, side="right")
        return _coded(places, np.isfinite(numbers), cut_names(cuts))
    coded = codes_of(values, pa.array([], pa.string()))
    if coded is None:
        return pa.nulls(len(values), pa.string()).dictionary_encode()
    known = (coded.codes >= 0) & np.append(coded.cells >= 0, False)[coded.codes]
    return _coded(coded.codes, known, coded.dictionary.to_pylist())


def _coded(places: NDArray[np.int32] | NDArray[np.intp], known: NDArray[np.bool_], names: Sequence[str]) -> pa.Array:
    indices = pa.array(np.where(known, places, 0).astype(np.int32), mask=~known)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def most_frequent(names: Sequence[pa.Array]) -> tuple[str, ...]:
    """Return the names that occur, the most frequent first, at most as many as can be counted apart."""
    counts: dict[str, int] = {}
    for chunk in names:
        for entry in chunk.value_counts().to_pylist():
            if entry["values"] is not None:
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return tuple(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_GROUPS])


def plan_groups(declared: Sequence[Attribute], names: Mapping[str, Sequence[pa.Array]]) -> dict[str, tuple[str, ...]]:
    """Return the groups of each declared attribute and crossing.

    ``names`` holds the group of each row by attribute, where rows are known: groups that are not declared are learnt
    from them, and of a crossing the most frequent cells are kept where there are more than can be counted apart.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for attribute in declared:
        if attribute.crossed:
            continue
        if attribute.cuts:
            groups[attribute.name] = cut_names(attribute.cuts)
        else:
            groups[attribute.name] = attribute.values[:MOST_GROUPS] or most_frequent(names.get(attribute.name, ()))
    for attribute in declared:
        if not attribute.crossed or any(part not in groups for part in attribute.crossed):
            continue
        cells = ["*".join(cell) for cell in product(*(groups[part] for part in attribute.crossed))]
        if len(cells) > MOST_GROUPS:
            cells = _fullest(cells, [names.get(part, ()) for part in attribute.crossed])
        groups["*".join(attribute.crossed)] = tuple(cells)
    return groups


def _fullest(cells: Sequence[str], parts: Sequence[Sequence[pa.Array]]) -> list[str]:
    counts = dict.fromkeys(cells, 0)
    for chunks in zip(*parts, strict=False):
        for values in zip(*(chunk.to_pylist() for chunk in chunks), strict=False):
            if None not in values and (cell := "*".join(values)) in counts:
                counts[cell] += 1
    return sorted(cells, key=lambda cell: -counts[cell])[:MOST_GROUPS]
