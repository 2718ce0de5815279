"""Counts of equal spans of a quiet stream, side by side: how much windows differ when nothing is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zstandard
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitors.cells import MISSING

if TYPE_CHECKING:
    from monitors.layout import Layout
    from monitors.profile import OutcomeCells, Profile

FORMAT = 2
"""The format version of encoded blocks; every older one stays readable: 1 had no outcomes."""


@dataclass(frozen=True)
class Blocks:
    """Counts of shape (blocks, cells) per column of the layout, and the missing and row counts of each block.

    ``outcomes`` are the cells of the outcome tables, shape (blocks, outcome cells); None where no labels were read.
    """

    counts: Mapping[str, csr_array]
    missing: Mapping[str, NDArray[np.int64]]
    rows: NDArray[np.int64]
    outcomes: csr_array | None = None

    def __len__(self) -> int:
        """Return the number of blocks."""
        return int(self.rows.size)

    def dense(self, column: str) -> NDArray[np.float64]:
        """Return the column's counts, shape (blocks, cells)."""
        return np.asarray(self.counts[column].toarray(), dtype=np.float64)

    def regrouped(self, length: int) -> Blocks:
        """Return blocks that are each the sum of so many neighbours; what does not fill a last one is left out."""
        if length < 1:
            raise ValueError(f"a block is at least one block long, not {length}")
        blocks = len(self) // length
        kept = blocks * length
        places = np.arange(kept)
        sums = csr_array(
            (np.ones(kept, np.int64), places, np.arange(blocks + 1) * length), shape=(blocks, len(self)), dtype=np.int64
        )
        return Blocks(
            counts={name: csr_array(sums @ counts) for name, counts in self.counts.items()},
            missing={
                name: missing[:kept].reshape(blocks, length).sum(axis=1) for name, missing in self.missing.items()
            },
            rows=self.rows[:kept].reshape(blocks, length).sum(axis=1),
            outcomes=None if self.outcomes is None else csr_array(sums.astype(np.float64) @ self.outcomes),
        )

    def chosen(self, which: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Blocks:
        """Return the blocks at some places, or where a mask is set."""
        places = np.asarray(which)
        places = np.flatnonzero(places) if places.dtype == np.bool_ else places.astype(np.int64)
        return Blocks(
            counts={name: csr_array(counts[places]) for name, counts in self.counts.items()},
            missing={name: missing[places] for name, missing in self.missing.items()},
            rows=self.rows[places],
            outcomes=None if self.outcomes is None else csr_array(self.outcomes[places]),
        )

    @staticmethod
    def from_profiles(profiles: Sequence[Profile]) -> Blocks:
        """Return one block per profile, in their order; ValueError where their layouts differ or there is none."""
        if not profiles:
            raise ValueError("blocks need at least one profile")
        layout = profiles[0].layout
        grid = layout.grid
        tallies = []
        for profile in profiles:
            if profile.layout is not layout and profile.layout != layout:
                raise ValueError("profiles of different layouts do not make blocks")
            tallies.append(profile.tally.sparse())
        cells = np.concatenate([tally.cells for tally in tallies if tally.cells is not None])
        offsets = np.concatenate(([0], np.cumsum([tally.counts.size for tally in tallies])))
        data = np.concatenate([tally.counts for tally in tallies])
        together = csr_array((data, cells, offsets), shape=(len(profiles), grid.cells)).tocsc()
        return Blocks(
            counts={
                name: csr_array(together[:, int(grid.offsets[p]) : int(grid.offsets[p + 1])])
                for p, name in enumerate(grid.names)
            },
            missing={
                name: np.array([tally.whole[p, MISSING] for tally in tallies], np.int64)
                for p, name in enumerate(grid.names)
            },
            rows=np.array([profile.rows for profile in profiles], np.int64),
            outcomes=outcomes_of(layout, [profile.outcome_cells for profile in profiles]),
        )

    def encode(self) -> bytes:
        """Return the blocks as bytes that begin with the format's version."""
        columns, parts = [], [np.ascontiguousarray(self.rows, "<i8").tobytes()]
        for name, counts in self.counts.items():
            columns.append({"name": name, "cells": int(counts.shape[1]), "entries": int(counts.nnz)})
            parts += [
                np.ascontiguousarray(array, kind).tobytes()
                for array, kind in (
                    (counts.indptr, "<i4"),
                    (counts.indices, "<i4"),
                    (counts.data, "<i4"),
                    (self.missing[name], "<i8"),
                )
            ]
        document: dict[str, object] = {"blocks": len(self), "columns": columns}
        if self.outcomes is not None:
            found = self.outcomes
            document["outcomes"] = {"cells": int(found.shape[1]), "entries": int(found.nnz)}
            parts += [
                np.ascontiguousarray(array, kind).tobytes()
                for array, kind in ((found.indptr, "<i4"), (found.indices, "<i4"), (found.data, "<f8"))
            ]
        text = json.dumps(document, ensure_ascii=False).encode()
        payload = b"".join((len(text).to_bytes(4, "little"), text, *parts))
        return bytes([FORMAT]) + zstandard.compress(payload, 3)

    @staticmethod
    def decode(data: bytes) -> Blocks:
        """Return the blocks of encoded bytes; ValueError for a format this version does not know."""
        if not data or data[0] not in (1, FORMAT):
            found = data[0] if data else "nothing"
            raise ValueError(f"blocks of format {found} cannot be read; this version reads formats to {FORMAT}")
        payload = zstandard.ZstdDecompressor().decompress(data[1:])
        length = int.from_bytes(payload[:4], "little")
        document = json.loads(payload[4 : 4 + length])
        place = 4 + length

        def read(kind: str, number: int) -> NDArray[np.int64]:
            nonlocal place
            array = np.frombuffer(payload, kind, number, place)
            place += array.nbytes
            return array.astype(np.int64)

        blocks = document["blocks"]
        rows = read("<i8", blocks)
        counts, missing = {}, {}
        for column in document["columns"]:
            starts, cells = read("<i4", blocks + 1), read("<i4", column["entries"])
            values = read("<i4", column["entries"])
            counts[column["name"]] = csr_array((values, cells, starts), shape=(blocks, column["cells"]))
            missing[column["name"]] = read("<i8", blocks)
        outcomes = None
        if found := document.get("outcomes"):
            starts, cells = read("<i4", blocks + 1), read("<i4", found["entries"])
            sums = np.frombuffer(payload, "<f8", found["entries"], place)
            outcomes = csr_array((sums, cells, starts), shape=(blocks, found["cells"]))
        return Blocks(counts=counts, missing=missing, rows=rows, outcomes=outcomes)


def outcomes_of(layout: Layout, parts: Sequence[OutcomeCells | None]) -> csr_array | None:
    """Return outcome cells side by side, shape (parts, outcome cells); None where no part has any."""
    if not layout.tables or all(part is None for part in parts):
        return None
    found = [(np.empty(0, np.int64), np.empty(0)) if part is None else part.sparse() for part in parts]
    offsets = np.concatenate(([0], np.cumsum([cells.size for cells, _ in found])))
    data = np.concatenate([values for _, values in found])
    places = np.concatenate([cells for cells, _ in found])
    return csr_array((data, places, offsets), shape=(len(parts), layout.outcome_cells))
