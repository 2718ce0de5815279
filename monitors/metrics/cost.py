"""Cost: what the answers cost on average, by a matrix that the user gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from monitors.contract import Counts, Direction, Metric
from monitors.ratios import ratio
from monitors.tables import BinaryTable, MulticlassTable, Table


@dataclass(frozen=True, kw_only=True)
class Cost(Metric):
    """The mean cost per row, ``matrix[label][prediction]`` of each; gains are negative, what is not named costs 0."""

    name: ClassVar[str] = "cost"
    title: ClassVar[str] = "Cost per row"
    direction: ClassVar[Direction] = Direction.HIGHER_IS_WORSE
    range: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    decides: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass"})
    source: ClassVar[str] = "Elkan (2001); NannyML, business_value (with the sign turned)"
    matrix: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def value(self, table: Table) -> Counts:
        """Return it; rows of "another class" are left out."""
        if isinstance(table, BinaryTable):
            names: tuple[str, ...] = table.names
            whole = table.confusion
        elif isinstance(table, MulticlassTable):
            names, whole = table.classes, table.confusion[..., :-1, :-1]
        else:
            raise ValueError("costs are of classes")
        prices = np.array([[self.matrix.get(label, {}).get(given, 0.0) for given in names] for label in names])
        return ratio((whole * prices).sum(axis=(-2, -1)), whole.sum(axis=(-2, -1)))

    def applies(self, table: Table) -> bool:  # noqa: ARG002 - it is the matrix that counts
        """Return whether a matrix is given."""
        return bool(self.matrix)
