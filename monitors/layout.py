"""Where a profile's bins are: edges and categories, learnt once from a baseline and fixed for a model version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from monitors.cells import NO_SUM, QUANTISED_SUM, RAW_SUM, Search, plan_search
from monitors.columns import codes_of, numbers_of
from monitors.contract import Column, Role, Type

FORMAT = 1
"""The format version of an encoded layout; every older one stays readable."""

GROUND_TRUTH = "ground_truth"
BOOLEANS = ("false", "true")
MOST_CATEGORIES = 1000
MOST_CLASSES = 50
MOST_GROUPS = 64
TASKS = ("binary", "multiclass", "multilabel", "regression")
MOMENTS = (
    "n", "e", "abs_e", "e2", "e4", "y", "y2", "y4", "e_y", "e2_y",
    "relative", "relative_n", "log2", "log2_n", "unknown",
)  # fmt: skip
"""The sums of a regression's rows, per group: e = prediction - y; ``relative`` sums abs(e) / abs(y) over the
``relative_n`` rows with y != 0, ``log2`` sums (log(1 + prediction) - log(1 + y))^2 over the ``log2_n`` rows where
both logarithms exist; ``n`` rows have a prediction and a label, ``unknown`` ones lack one of them."""
MOST_LABELS_COUNTED = 16


@dataclass(frozen=True, slots=True, eq=False)
class NumericLayout:
    """The bins of a numeric column.

    ``edges`` are strictly increasing. A value v falls after the edges <= v. Without ``tied`` there are
    ``len(edges) + 1`` cells; with it, a value *equal to* edge i has the cell 2 i + 1 of its own and the open intervals
    between the edges have the even cells: ``2 len(edges) + 1`` cells in all, in the order of the values.
    """

    edges: NDArray[np.float64]
    tied: bool = False

    def __post_init__(self) -> None:
        """Refuse edges that are not finite and strictly increasing."""
        if self.edges.size and not (np.isfinite(self.edges).all() and (np.diff(self.edges) > 0).all()):
            raise ValueError("edges must be finite and strictly increasing")

    def __eq__(self, other: object) -> bool:
        """Whether the bins are the same."""
        if not isinstance(other, NumericLayout):
            return NotImplemented
        return self.tied == other.tied and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        """Hash what equality looks at."""
        return hash((self.tied, self.edges.tobytes()))

    @property
    def cells(self) -> int:
        """The number of cells counted."""
        return 2 * self.edges.size + 1 if self.tied else self.edges.size + 1

    def bounds(
        self, minimum: float = -np.inf, maximum: float = np.inf
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the lowest and the highest value of each cell, two arrays of shape (cells,).

        The open end cells reach to ``minimum`` and ``maximum``; a cell of its own of a tied edge has both at the edge.
        """
        if not self.edges.size:
            return np.array([minimum]), np.array([maximum])
        low = np.concatenate(([min(minimum, self.edges[0])], self.edges))
        high = np.concatenate((self.edges, [max(maximum, self.edges[-1])]))
        if not self.tied:
            return low, high
        all_low, all_high = np.empty(self.cells), np.empty(self.cells)
        all_low[0::2], all_high[0::2] = low, high
        all_low[1::2] = all_high[1::2] = self.edges
        return all_low, all_high


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
    """What the outcome tables are made of: the task, the classes in order, the groups per attribute.

    ``positive_class`` of a binary task defaults to the last of its two classes. ``residual_edges`` are the bins of a
    regression's residual, prediction - ground truth; ``plan_layout`` fills them.
    """

    task: str
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Per attribute or declared crossing (``sex``, ``sex*age``) the names of its groups; two more are "other", for
    groups not named, and "unknown", for rows without the attribute."""
    residual_edges: tuple[float, ...] = ()
    cuts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Where the groups of numeric attributes begin, see ``monitors.groups``."""
    features: tuple[str, ...] = ()
    """The attributes (and group variable) that are read from the feature of their name; all others are protected."""
    favourable: str | tuple[str, float] | None = None
    """The outcome that is good for the person: a class, or ``("above", x)`` or ``("below", x)``."""
    stratum: str | None = None
    """The group variable, and with it the names of its ``strata``."""
    strata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an unknown task, too many classes or groups, and a positive class that is none."""
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is not one of {', '.join(TASKS)}")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary task has two classes, not {len(self.classes)}")
        if self.task == "binary" and self.positive_class is not None and self.positive_class not in self.classes:
            raise ValueError(f"positive class {self.positive_class!r} is not one of {', '.join(self.classes)}")
        for attribute, names in self.groups.items():
            if len(names) > MOST_GROUPS:
                raise ValueError(f"{attribute} has {len(names)} groups; {MOST_GROUPS} can be counted apart")

    @property
    def positive(self) -> str:
        """The positive class of a binary task."""
        return self.positive_class if self.positive_class is not None else self.classes[-1]

    def group_names(self, attribute: str) -> tuple[str, ...]:
        """Return the names along the first axis of the attribute's tables."""
        return ("all",) if attribute == "all" else (*self.groups[attribute], "other", "unknown")

    @property
    def counts_favourable(self) -> bool:
        """Whether tables by favourable outcome are counted: where the others do not say which rows are favoured."""
        return self.favourable is not None and (self.stratum is not None or self.task in ("multilabel", "regression"))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The single attributes that rows must carry, the group variable among them."""
        named = [name for name in self.groups if "*" not in name]
        return tuple(dict.fromkeys([*named, *([self.stratum] if self.stratum else [])]))


@dataclass(frozen=True, slots=True)
class OutcomeTable:
    """One table of outcomes: its name, its shape and where it begins among all cells of the outcomes.

    ``counts`` says whether its cells are counts of rows or sums of numbers.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    counts: bool = True

    @property
    def size(self) -> int:
        """The number of its cells."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Grid:
    """The cells of all columns side by side, the columns of the inputs first and the ground truth last.

    Column i owns the cells ``offsets[i]`` to ``offsets[i + 1]``; ``centres`` are the columns' middle edges. ``mode``
    says how the sum inside a cell is stored, ``low`` and ``high`` are the cell's ends.
    """

    names: tuple[str, ...]
    inputs: int
    offsets: NDArray[np.int64]
    numeric: NDArray[np.bool_]
    centres: NDArray[np.float64]
    mode: NDArray[np.uint8]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    searches: Mapping[str, Search]
    categories: Mapping[str, pa.Array]

    @property
    def cells(self) -> int:
        """The number of all cells."""
        return int(self.offsets[-1])


@dataclass(frozen=True, eq=False)
class Layout:
    """The bins of every column of a model version, by the column's name in the lake, and of its outcomes."""

    columns: Mapping[str, NumericLayout | CategoryLayout]
    outcomes: OutcomeLayout | None = None
    number: int = 1

    def __eq__(self, other: object) -> bool:
        """Whether profiles of both add up; the number is only a name."""
        if not isinstance(other, Layout):
            return NotImplemented
        return self is other or self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        """Hash what equality looks at."""
        return hash(self.fingerprint)

    @cached_property
    def fingerprint(self) -> bytes:
        """16 bytes that are equal where bins, order of columns and outcomes are."""
        return hashlib.blake2b(_document(replace(self, number=0)), digest_size=16).digest()

    @cached_property
    def grid(self) -> Grid:
        """The cells of all columns side by side."""
        return _grid(self)

    @cached_property
    def tables(self) -> Mapping[str, OutcomeTable]:
        """The tables of the outcomes by name.

        Rows are counted once in table ``all`` and once per attribute, under the attribute's name, first axis its groups
        (``OutcomeLayout.group_names``). Codes of a class: its place among the classes, then "other" (not for binary
        tasks), then "unknown".

        * binary: (group, label, prediction, score cell), label and prediction negative, positive, unknown; the last
          score cell is "no score";
        * multiclass: (group, label, prediction), and ``<attribute>/<class>``: (group, label is the class / is not /
          unknown, prediction is the class / is not, cell of ``scores.<class>``);
        * multilabel: ``all/<class>``: as binary, its label and prediction being whether the class is among them, and
          ``all/sizes``: rows by number of true, predicted and common classes, each at most 16;
        * regression: (group, sum of ``MOMENTS``), and ``<attribute>/residual`` and ``<attribute>/residual_sums``:
          (group, cell of the residual);
        * where outcomes are counted by ``favourable``, ``<attribute>/favourable``: (group, stratum, label, prediction),
          both unfavourable, favourable, unknown; one stratum where there is no group variable.
        """
        return {table.name: table for table in _tables(self)}

    @cached_property
    def outcome_cells(self) -> int:
        """The number of all cells of the outcomes."""
        return sum(table.size for table in self.tables.values())

    @cached_property
    def outcome_sums(self) -> NDArray[np.bool_]:
        """Whether a cell of the outcomes holds a sum; the others hold counts."""
        is_sum = np.zeros(self.outcome_cells, np.bool_)
        for table in self.tables.values():
            is_sum[table.offset : table.offset + table.size] = not table.counts
        return is_sum

    def encode(self) -> bytes:
        """Return the layout as bytes that begin with the format's version."""
        return bytes([FORMAT]) + zstandard.compress(_document(self), 9)

    @staticmethod
    def decode(data: bytes) -> Layout:
        """Return the layout of encoded bytes; equal bytes give the same object."""
        return _decoded(bytes(data))


def plan_layout(
    batches: Iterable[pa.RecordBatch],
    columns: Sequence[Column],
    *,
    bins: int | None = 1024,
    outcomes: OutcomeLayout | None = None,
    number: int = 1,
) -> Layout:
    """Learn the bins of the columns from a baseline's rows.

    Numbers get an edge per distinct value where there are at most ``bins`` of them, else edges at their quantiles, with
    cells for values equal to an edge where more than 1 % of the values repeat. Categories are counted all up to 1,000,
    declared ones included. A ground truth that no row carries has the bins of the prediction. Without a number of
    ``bins`` every distinct value has a cell of its own (`monitors.exact`).
    """
    table = list(batches)
    planned: dict[str, NumericLayout | CategoryLayout] = {}
    for column in columns:
        chunks = [batch.column(column.name) for batch in table if column.name in batch.schema.names]
        planned[column.name] = _plan_column(column, chunks, bins)
    truth, prediction = planned.get(GROUND_TRUTH), planned.get("prediction")
    if isinstance(truth, NumericLayout) and not truth.edges.size and isinstance(prediction, NumericLayout):
        planned[GROUND_TRUTH] = prediction
    if isinstance(truth, CategoryLayout) and not truth.categories and isinstance(prediction, CategoryLayout):
        planned[GROUND_TRUTH] = prediction
    if outcomes is not None:
        outcomes = _plan_outcomes(outcomes, planned, table)
    return Layout(columns=planned, outcomes=outcomes, number=number)


def _plan_column(column: Column, chunks: Sequence[pa.Array], bins: int | None) -> NumericLayout | CategoryLayout:
    if column.type is Type.BOOLEAN:
        return CategoryLayout(BOOLEANS)
    if column.type is Type.CATEGORICAL:
        return CategoryLayout(_categories(column, chunks, None if bins is None else MOST_CATEGORIES))
    if column.type in (Type.TEXT, Type.EMBEDDING):
        return NumericLayout(np.empty(0))
    values = _finite(chunks)
    if bins is None:
        return NumericLayout(_distinct(values), tied=True)
    if column.role is Role.SCORE and values.size:
        return _score_layout(values, bins)
    return _quantile_layout(values, bins)


def _finite(chunks: Sequence[pa.Array]) -> NDArray[np.float64]:
    """Return the finite values, sorted."""
    parts = [numbers for chunk in chunks if (numbers := numbers_of(chunk)) is not None]
    values = np.concatenate(parts) if parts else np.empty(0)
    values = np.sort(values[np.isfinite(values)])
    return np.asarray(values, np.float64)


def _quantile_layout(values: NDArray[np.float64], bins: int) -> NumericLayout:
    """Lay out sorted values: an edge per distinct value, or at the quantiles."""
    distinct = _distinct(values)
    if distinct.size <= bins:
        return NumericLayout(distinct, tied=True)
    return NumericLayout(_quantiles(values, bins), tied=_repeats(values, distinct))


def _score_layout(values: NDArray[np.float64], bins: int) -> NumericLayout:
    """Lay out sorted scores: half of the edges at their quantiles, half evenly spaced on the logit scale.

    Quantiles alone misjudge an AUC by 0.03 when scores shift by three standard deviations, evenly spaced edges by up
    to 0.23 when positives are rare. Scores outside [0, 1] have 64 geometric bins beyond each end instead.
    """
    distinct = _distinct(values)
    if values[0] >= 0.0 and values[-1] <= 1.0:
        half = bins // 2
        edges = distinct if distinct.size <= half else _quantiles(values, half)
        logits = np.linspace(-16.0, 16.0, bins - half)
        edges = np.union1d(edges, _apart(1.0 / (1.0 + np.exp(-logits)), edges))
    else:
        edges = distinct if distinct.size <= bins else _quantiles(values, bins)
        span = max(float(values[-1] - values[0]), abs(float(values[-1])), abs(float(values[0])), 1e-12)
        steps = span * np.geomspace(1e-3, 1e4, 64)
        edges = np.concatenate((values[0] - steps[::-1], edges, values[-1] + steps))
        edges = np.unique(edges[np.isfinite(edges)])
    return NumericLayout(edges, tied=distinct.size <= bins // 2 or _repeats(values, distinct))


def _apart(even: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the evenly spaced edges that are not beside another one, by less than 0.005 on the logit scale."""
    place = np.searchsorted(edges, even)
    near = 0.005 * even * (1.0 - even)
    left = even - edges[np.maximum(place - 1, 0)]
    right = edges[np.minimum(place, edges.size - 1)] - even
    kept: NDArray[np.bool_] = (np.abs(left) > near) & (np.abs(right) > near)
    return np.asarray(even[kept], np.float64)


def _distinct(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values if values.size < 2 else values[np.concatenate(([True], values[1:] != values[:-1]))]


def _quantiles(values: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Return the distinct values at 1/bins, 2/bins, …, each one that occurs."""
    ranks = (np.arange(1, bins) * values.size) // bins
    return np.asarray(np.unique(values[ranks]), np.float64)


def _repeats(values: NDArray[np.float64], distinct: NDArray[np.float64]) -> bool:
    return bool(values.size - distinct.size > 0.01 * values.size)


def _categories(column: Column, chunks: Sequence[pa.Array], most: int | None) -> tuple[str, ...]:
    counts: dict[str, int] = {}
    nothing = pa.array([], pa.string())
    for chunk in chunks:
        coded = codes_of(chunk, nothing)
        if coded is None:
            continue
        used = np.bincount(coded.codes[coded.codes >= 0], minlength=len(coded.dictionary))
        for name, count in zip(coded.dictionary.to_pylist(), used.tolist(), strict=True):
            if count and name is not None:
                counts[name] = counts.get(name, 0) + count
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    declared = [name for name in column.categories or () if name not in counts]
    return tuple([*ranked[:most], *declared][:most])


def _plan_outcomes(
    outcomes: OutcomeLayout, planned: Mapping[str, NumericLayout | CategoryLayout], table: Sequence[pa.RecordBatch]
) -> OutcomeLayout:
    if outcomes.task in ("multiclass", "multilabel") and len(outcomes.classes) > MOST_CLASSES:
        seen = [planned[key] for key in (GROUND_TRUTH, "prediction") if key in planned]
        ranked = [name for column in seen if isinstance(column, CategoryLayout) for name in column.categories]
        ranked += outcomes.classes
        kept = set(sorted(outcomes.classes, key=ranked.index)[: MOST_CLASSES - 1])
        outcomes = replace(outcomes, classes=tuple(name for name in outcomes.classes if name in kept))
    if outcomes.task == "regression" and not outcomes.residual_edges:
        outcomes = replace(outcomes, residual_edges=_residual_edges(table))
    return outcomes


def _residual_edges(table: Sequence[pa.RecordBatch]) -> tuple[float, ...]:
    """Return 256 quantiles of the residual where labels are known, else even steps over the prediction's spread."""
    residuals, predictions = [], []
    for batch in table:
        names = batch.schema.names
        prediction = numbers_of(batch.column("prediction")) if "prediction" in names else None
        if prediction is None:
            continue
        predictions.append(prediction)
        truth = numbers_of(batch.column(GROUND_TRUTH)) if GROUND_TRUTH in names else None
        if truth is not None:
            residuals.append(prediction - truth)
    known = np.concatenate(residuals) if residuals else np.empty(0)
    known = np.sort(known[np.isfinite(known)])
    if known.size >= 100:
        spread = max(float(known[-1] - known[0]), 1e-12)
        ends = spread * np.geomspace(0.01, 100.0, 16)
        inner = _quantiles(known, 256)
        return tuple(np.unique(np.concatenate((known[0] - ends, inner, [0.0], known[-1] + ends))).tolist())
    values = np.concatenate(predictions) if predictions else np.empty(0)
    values = values[np.isfinite(values)]
    deviation = float(values.std()) if values.size > 1 else 1.0
    steps = np.geomspace(1e-3, 100.0, 128) * (deviation or 1.0)
    return tuple(np.concatenate((-steps[::-1], [0.0], steps)).tolist())


def _grid(layout: Layout) -> Grid:
    names = tuple(sorted(layout.columns, key=lambda name: name == GROUND_TRUTH))
    offsets = np.zeros(len(names) + 1, np.int64)
    numeric = np.zeros(len(names), np.bool_)
    centres = np.zeros(len(names))
    modes, lows, highs = [], [], []
    searches: dict[str, Search] = {}
    categories: dict[str, pa.Array] = {}
    for place, name in enumerate(names):
        column = layout.columns[name]
        offsets[place + 1] = offsets[place] + column.cells
        if isinstance(column, CategoryLayout):
            modes.append(np.full(column.cells, NO_SUM))
            lows.append(np.zeros(column.cells))
            highs.append(np.zeros(column.cells))
            categories[name] = pa.array(column.categories, pa.string())
            continue
        numeric[place] = True
        centre = float(column.edges[column.edges.size // 2]) if column.edges.size else 0.0
        centres[place] = centre if abs(centre) < 1e300 else 0.0
        low, high = column.bounds()
        with np.errstate(over="ignore", invalid="ignore"):
            mode = np.where(np.isfinite(high - low), QUANTISED_SUM, RAW_SUM)
        mode[low == high] = NO_SUM
        modes.append(mode)
        lows.append(low)
        highs.append(high)
        searches[name] = plan_search(column.edges, column.tied)
    return Grid(
        names=names,
        inputs=len(names) - (GROUND_TRUTH in layout.columns),
        offsets=offsets,
        numeric=numeric,
        centres=centres,
        mode=np.concatenate(modes).astype(np.uint8) if modes else np.empty(0, np.uint8),
        low=np.concatenate(lows) if lows else np.empty(0),
        high=np.concatenate(highs) if highs else np.empty(0),
        searches=searches,
        categories=categories,
    )


def _tables(layout: Layout) -> Iterable[OutcomeTable]:
    outcomes = layout.outcomes
    if outcomes is None:
        return
    offset = 0

    def place(name: str, *shape: int, counts: bool = True) -> OutcomeTable:
        nonlocal offset
        table = OutcomeTable(name, shape, offset, counts)
        offset += table.size
        return table

    def score_cells(column: str) -> int:
        scores = layout.columns.get(column)
        return (scores.cells if isinstance(scores, NumericLayout) else 0) + 1

    classes = len(outcomes.classes)
    if outcomes.task == "multilabel":
        yield place("all/sizes", *(MOST_LABELS_COUNTED + 1,) * 3)
        for name in outcomes.classes:
            yield place(f"all/{name}", 1, 3, 3, score_cells(f"scores.{name}"))
    for attribute in ("all", *outcomes.groups):
        groups = len(outcomes.group_names(attribute))
        if outcomes.task == "binary":
            yield place(attribute, groups, 3, 3, score_cells("score"))
        elif outcomes.task == "multiclass":
            yield place(attribute, groups, classes + 2, classes + 2)
            for name in outcomes.classes if "*" not in attribute else ():
                if isinstance(layout.columns.get(f"scores.{name}"), NumericLayout):
                    yield place(f"{attribute}/{name}", groups, 3, 2, score_cells(f"scores.{name}"))
        elif outcomes.task == "regression":
            yield place(attribute, groups, len(MOMENTS), counts=False)
            yield place(f"{attribute}/residual", groups, len(outcomes.residual_edges) + 1)
            yield place(f"{attribute}/residual_sums", groups, len(outcomes.residual_edges) + 1, counts=False)
    strata = len(outcomes.strata) + 2 if outcomes.stratum is not None else 1
    for attribute in outcomes.groups if outcomes.counts_favourable else ():
        yield place(f"{attribute}/favourable", len(outcomes.group_names(attribute)), strata, 3, 3)


def _document(layout: Layout) -> bytes:
    """Return the length of a JSON document in four bytes, the document, and all edges after it."""
    columns: list[dict[str, Any]] = []
    edges = []
    for name, column in layout.columns.items():
        if isinstance(column, CategoryLayout):
            columns.append({"name": name, "categories": column.categories})
        else:
            columns.append({"name": name, "edges": int(column.edges.size), "tied": column.tied})
            edges.append(np.ascontiguousarray(column.edges, "<f8"))
    document: dict[str, Any] = {"number": layout.number, "columns": columns}
    if layout.outcomes is not None:
        outcomes = layout.outcomes
        document["outcomes"] = {
            "task": outcomes.task,
            "classes": outcomes.classes,
            "positive_class": outcomes.positive_class,
            "groups": list(outcomes.groups.items()),
            "residual_edges": outcomes.residual_edges,
        }
        # Left out where empty: layouts without them keep the fingerprint they always had.
        more = {
            "cuts": list(outcomes.cuts.items()),
            "features": outcomes.features,
            "favourable": outcomes.favourable,
            "stratum": outcomes.stratum,
            "strata": outcomes.strata,
        }
        document["outcomes"] |= {name: value for name, value in more.items() if value}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "little") + text + b"".join(part.tobytes() for part in edges)


@lru_cache(maxsize=64)
def _decoded(data: bytes) -> Layout:
    if not data or data[0] != FORMAT:
        found = data[0] if data else "nothing"
        raise ValueError(f"a layout of format {found} cannot be read; this version reads format {FORMAT}")
    raw = zstandard.ZstdDecompressor().decompress(data[1:])
    length = int.from_bytes(raw[:4], "little")
    document = json.loads(raw[4 : 4 + length])
    edges = np.frombuffer(raw, "<f8", offset=4 + length).astype(np.float64) if len(raw) > 4 + length else np.empty(0)
    columns: dict[str, NumericLayout | CategoryLayout] = {}
    place = 0
    for column in document["columns"]:
        if "categories" in column:
            columns[column["name"]] = CategoryLayout(tuple(column["categories"]))
        else:
            columns[column["name"]] = NumericLayout(edges[place : place + column["edges"]].copy(), column["tied"])
            place += column["edges"]
    outcomes = None
    if found := document.get("outcomes"):
        outcomes = OutcomeLayout(
            task=found["task"],
            classes=tuple(found["classes"]),
            positive_class=found["positive_class"],
            groups={name: tuple(names) for name, names in found["groups"]},
            residual_edges=tuple(found["residual_edges"]),
            cuts={name: tuple(cuts) for name, cuts in found.get("cuts", [])},
            features=tuple(found.get("features", ())),
            favourable=tuple(good) if isinstance(good := found.get("favourable"), list) else good,
            stratum=found.get("stratum"),
            strata=tuple(found.get("strata", ())),
        )
    return Layout(columns=columns, outcomes=outcomes, number=document["number"])
