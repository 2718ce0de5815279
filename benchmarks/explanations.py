"""What explaining costs beside native contributions, shap and KernelExplainer, on one thread, in one run.

    python -m benchmarks.explanations [--full]

CPU seconds, so that other load on the machine counts little. The aims: few rows within 1.1 x of the booster's own,
10,000 rows of 500 trees at depth 6 at least 4 x faster than it at equal digits (1e-4), a black box at KernelExplainer's
error at least 15 x cheaper than KernelExplainer.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, cast

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.modules.setdefault("matplotlib", cast(ModuleType, None))

import numpy as np  # noqa: E402 - the number of threads is read when it is loaded
import pandas as pd  # noqa: E402
import shap  # noqa: E402
import xgboost  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from explainers.binding import bind  # noqa: E402
from explainers.contract import Bound, Manifest, Scale  # noqa: E402
from explainers.explanation import Explained, explain  # noqa: E402
from explainers.loading import load  # noqa: E402

COLUMNS = 50
MOST_PAIRS = 4
FEW_TURNS = 20
"""Of two things that take a fifth of a second each, in turn, so many that each has had a quiet moment."""
Done = TypeVar("Done")


def table(rows: int, seed: int) -> pd.DataFrame:
    """Return normal rows, single precision as XGBoost has them."""
    values = np.random.default_rng(seed).normal(size=(rows, COLUMNS)).astype(np.float32)
    return pd.DataFrame(values, columns=[f"f{place}" for place in range(COLUMNS)])


def booster(trees: int) -> Any:
    """Return a classifier of depth 6."""
    rows = table(5_000, 0)
    noise = np.random.default_rng(1).normal(size=len(rows))
    answer = rows["f0"] * rows["f1"] + rows["f2"] - np.abs(rows["f3"]) + noise > 0
    return xgboost.train(
        {"max_depth": 6, "objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(rows, answer), trees
    )


def timed(work: Callable[[], Done], times: int = 1) -> tuple[Done, float]:
    """Return what work gives and its CPU seconds, the least of several."""
    least = np.inf
    for _ in range(times):
        start = time.process_time()
        done = work()
        least = min(least, time.process_time() - start)
    return done, float(least)


def few(report: Table, bound: Bound, model: Any) -> None:
    """Explain 100 rows beside the booster itself and shap."""
    rows, background = table(100, 2), table(100, 3)
    native, ours = np.inf, np.inf
    for _ in range(FEW_TURNS):
        told, seconds = timed(lambda: model.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True))
        native = min(native, seconds)
        found, seconds = timed(lambda: explain(bound, rows, background))
        ours = min(ours, seconds)
    values, theirs = timed(lambda: shap.TreeExplainer(model).shap_values(rows))
    off = np.abs(found.attributions.values[:, :, 0] - told[:, :-1]).max()
    report.add_row("100 rows", "native contributions", f"{native:.3f}", "", "")
    report.add_row("", "shap.TreeExplainer", f"{theirs:.3f}", f"{np.abs(values - told[:, :-1]).max():.1e}", "")
    report.add_row(
        "", f"ours ({found.method})", f"{ours:.3f}", f"{off:.1e}", f"{ours / native:.2f} x native (aim <= 1.1)"
    )


def many(report: Table, bound: Bound, model: Any, rows_count: int) -> None:
    """Explain many rows beside the booster itself."""
    rows, background = table(rows_count, 4), table(100, 3)
    told, native = timed(lambda: model.predict(xgboost.DMatrix(rows, nthread=1), pred_contribs=True))
    found, ours = timed(lambda: explain(bound, rows, background))
    off = np.abs(found.attributions.values[:, :, 0] - told[:, :-1]).max()
    report.add_row(f"{rows_count:,} rows", "native contributions", f"{native:.2f}", "", "")
    aim = f"{native / ours:.1f} x faster (aim >= 4)"
    report.add_row("", f"ours ({found.method})", f"{ours:.2f}", f"{off:.1e}", aim)


def orders(bound: Bound, rows: pd.DataFrame, background: pd.DataFrame, pairs: int) -> Explained:
    """Explain margins by so many pairs of orders."""
    options = {"permutations": pairs}
    return explain(bound, rows, background, method="permutation", scale="margin", options=options)


def black_box(report: Table, bound: Bound, model: Any, rows_count: int) -> None:
    """Explain margins from outside beside KernelExplainer, against the same 100 background rows.

    Interventional TreeSHAP is exact on margins (on chances shap rescales them). The error is the mean absolute
    difference over all rows and columns. Orders are added, pair by pair, until it is at most KernelExplainer's; what
    counts is the cost of the last attempt alone, as somebody who knows the budget would pay it.
    """
    rows, background = table(rows_count, 5), table(100, 3)
    exact = shap.TreeExplainer(model, background, feature_perturbation="interventional").shap_values(rows)

    def margin(values: np.ndarray) -> np.ndarray:
        frame = pd.DataFrame(values, columns=rows.columns)
        return bound.predict(frame, Scale.MARGIN)[:, 0]

    kernel = shap.KernelExplainer(margin, background.to_numpy())
    np.random.seed(0)
    theirs, cost = timed(lambda: kernel.shap_values(rows.to_numpy(), silent=True))
    wrong = np.abs(np.asarray(theirs) - exact).mean()
    report.add_row(f"black box, {rows_count} rows", "shap.KernelExplainer", f"{cost:.2f}", f"{wrong:.2e}", "")
    for pairs in range(1, MOST_PAIRS + 1):
        found, ours = timed(partial(orders, bound, rows, background, pairs))
        values = found.attributions
        off = np.abs(values.values[:, :, 0] - exact).mean()
        assert values.error is not None
        said = f"{cost / ours:.1f} x cheaper (aim >= 15); told standard error {values.error.mean():.1e} on average"
        report.add_row("", f"ours, {pairs} pair(s) of orders", f"{ours:.2f}", f"{off:.2e}", said)
        if off <= wrong:
            break


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="50 black-box rows instead of 20")
    quick = not parser.parse_args().full
    warnings.simplefilter("ignore")
    report = Table(title=f"Attributions: XGBoost, 500 trees of depth 6, {COLUMNS} columns, one thread")
    for heading in ("what", "how", "CPU s", "off by", "so"):
        report.add_column(heading)
    model = booster(500)
    bound = bind(load(bytes(model.save_raw("ubj")), Manifest()), Manifest())
    few(report, bound, model)
    many(report, bound, model, 10_000)
    black_box(report, bound, model, 20 if quick else 50)
    Console(width=120).print(report)


if __name__ == "__main__":
    main()
