"""Where a profile's bins are: edges and categories, learnt once from a baseline and fixed for a model version."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NumericLayout:
    """The bins of a numeric column.

    ``edges`` are strictly increasing. A value v falls after the edges <= v. Without ``tied`` there are
    ``len(edges) + 1`` cells; with it, a value *equal to* edge i has the cell 2 i + 1 of its own and the open intervals
    between the edges have the even cells: ``2 len(edges) + 1`` cells in all, in the order of the values.
    """

    edges: NDArray[np.float64]
    tied: bool = False

    @property
    def cells(self) -> int:
        """The number of cells counted."""
        return 2 * self.edges.size + 1 if self.tied else self.edges.size + 1


@dataclass(frozen=True, slots=True)
class CategoryLayout:
    """The categories of a column, most frequent first; one cell each and a last one for all other values."""

    categories: tuple[str, ...]

    @property
    def cells(self) -> int:
        """The number of cells counted."""
        return len(self.categories) + 1


@dataclass(frozen=True, slots=True)
class OutcomeLayout:
    """What the outcome tables are made of: the task, the classes in order, the groups per attribute."""

    task: str
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Per attribute or declared crossing (``sex``, ``sex*age``) the names of its groups; one more is "other"."""


@dataclass(frozen=True)
class Layout:
    """The bins of every column of a model version, by the column's name in the lake, and of its outcomes."""

    columns: Mapping[str, NumericLayout | CategoryLayout]
    outcomes: OutcomeLayout | None = None
    number: int = 1
