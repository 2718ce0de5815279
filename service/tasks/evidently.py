"""Evidently's stat tests and its report, run in the worker process: nothing of Evidently is imported anywhere else."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from monitors.multivariate import vectors
from service.confinement import Answer, Request, TaskRefused

if TYPE_CHECKING:
    import pandas as pd

MISSING = "Evidently is not installed here: install the extra with pip install 'plumbline-server[evidently]'"
LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "&": "＆", '"': "”", "'": "’", "`": "‘", "\\": "∖", "{": "(", "}": ")"})
TYPES = {"numeric": "num", "categorical": "cat", "boolean": "cat", "text": "text"}


STAT_TESTS, REPORTS = "evidently.legacy.calculations.stattests", "evidently.presets"


def libraries() -> frozenset[str]:
    """Return the modules that are worth importing before there is work for them."""
    return frozenset((STAT_TESTS, REPORTS))


def prepare(needed: Collection[str] = (STAT_TESTS,)) -> None:
    """Import Evidently, without the event loop that it makes at import: a loop opens sockets, and none is run here."""
    made = asyncio.new_event_loop
    asyncio.new_event_loop = asyncio.AbstractEventLoop
    try:
        for name in sorted(libraries().intersection(needed)):
            import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "evidently":
            raise
        raise TaskRefused(MISSING) from None
    finally:
        asyncio.new_event_loop = made


def stat_tests(request: Request) -> Answer:
    """Compute stat tests of columns, called directly.

    The document's ``asked`` are ``{"column", "type", "method", "most_rows", "equal", "options"}``; the tables are
    ``baseline`` and ``window`` in the lake's columns. Answers ``scores`` in that order, each ``{"score", "n_baseline",
    "n_window"}`` or ``{"error"}``.
    """
    prepare()
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType

    def score(asked: dict[str, Any], old: pd.Series, new: pd.Series) -> float:
        kind = ColumnType(TYPES[asked["type"]])
        test = get_registered_stattest(asked["method"], kind)
        return float(test(old.copy(), new.copy(), kind, None).drift_score)

    return _scored(request, _values, score)


def embedding_drift(request: Request) -> Answer:
    """Compute drift methods of embeddings, called directly; asked and answered as `stat_tests` are."""
    prepare()
    from evidently.legacy.metrics.data_drift import embedding_drift_methods

    def score(asked: dict[str, Any], old: pd.DataFrame, new: pd.DataFrame) -> float:
        if not len(old) or not len(new):
            raise ValueError("no row has a vector")
        if old.shape[1] != new.shape[1]:
            raise ValueError(f"vectors of {new.shape[1]} numbers, in the baseline of {old.shape[1]}")
        options = {
            name: value or None if name == "pca_components" else value for name, value in asked["options"].items()
        }
        method = getattr(embedding_drift_methods, asked["method"])(**options)
        return float(method(new.copy(), old.copy())[0])

    return _scored(request, _vectors, score)


def _scored(
    request: Request,
    values: Callable[[pa.Table, dict[str, Any]], Any],
    score: Callable[[dict[str, Any], Any, Any], float],
) -> Answer:
    """Return the score of everything that is asked for, or what was raised about its rows."""
    scores = []
    for asked in request.document["asked"]:
        old, new = (values(request.tables[side], asked) for side in ("baseline", "window"))
        if asked["equal"]:
            size = min(len(old), len(new))
            old, new = old.iloc[:size], new.iloc[:size]
        np.random.seed(int(request.document["seed"]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = score(asked, old, new)
            told: dict[str, Any] = {"score": found} if np.isfinite(found) else {"error": "it is not finite here"}
        except Exception as error:  # noqa: BLE001 - a test may raise anything about its rows; the result says what
            told = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
        scores.append({**told, "n_baseline": len(old), "n_window": len(new)})
    return {"scores": scores}, {}


def report(request: Request) -> Answer:
    """Make Evidently's drift report as HTML; the document's ``types`` are the columns' types by their names.

    Evidently puts names and values into its page as they are, scripts in them included: the characters that make
    markup are replaced by others that look alike before it sees them.
    """
    prepare((STAT_TESTS, REPORTS))
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    types = {name: TYPES[kind] for name, kind in request.document["types"].items()}
    plain = {name: inert(name) for name in types}
    definition = DataDefinition(
        numerical_columns=[plain[name] for name, kind in types.items() if kind == "num"],
        categorical_columns=[plain[name] for name, kind in types.items() if kind == "cat"],
    )
    sides = [
        Dataset.from_pandas(_frame(request.tables[side], types, plain), data_definition=definition)
        for side in ("window", "baseline")
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html = Report([DataDriftPreset()]).run(*sides).get_html_str(as_iframe=False)
    return {"html": html}, {}


def inert(text: str) -> str:
    """Return a text without the characters that make markup or end a string in a script."""
    return text.translate(LOOKALIKES)


def _frame(table: pa.Table, types: dict[str, str], plain: dict[str, str]) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, kind in types.items():
        column = table[name].combine_chunks()
        if kind == "num":
            numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            columns[plain[name]] = np.where(np.isfinite(numbers), numbers, np.nan)
        else:
            texts = column.cast(pa.string()).to_pylist()
            columns[plain[name]] = pd.Series([None if text is None else inert(text) for text in texts], dtype=object)
    return pd.DataFrame(columns)


def _values(table: pa.Table, asked: dict[str, Any]) -> pd.Series:
    """Return a column's values without missing and infinite ones, at most as many as are asked for."""
    import pandas as pd

    column = table[asked["column"]].combine_chunks()
    if asked["type"] == "numeric":
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return pd.Series(numbers[np.isfinite(numbers)][: asked["most_rows"]])
    texts = [value for value in column.cast(pa.string()).to_pylist() if value is not None]
    return pd.Series(texts[: asked["most_rows"]], dtype=object)


def _vectors(table: pa.Table, asked: dict[str, Any]) -> pd.DataFrame:
    """Return a column's whole vectors, a component a column, at most as many as are asked for."""
    import pandas as pd

    return pd.DataFrame(vectors(table, asked["column"])[0][: asked["most_rows"]])
