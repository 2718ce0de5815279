"""Profiling a million rows of 50 features from Parquet on one core, beside what users would run instead.

Both sides read the same rows in the same run. CPU seconds of this process, best of several runs, warm. Evidently's
report takes minutes at a million rows, so it is given 100,000 unless ``--full`` is said. The exit code says whether the
pass and its decoding are within their limits at the pace of the machine that these were set on; without the others, or
of another number of rows, there is no verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("DO_NOT_TRACK", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.pace import scipy_pace
from monitors.contract import Column, Role, Type
from monitors.kernel import profile_batches
from monitors.layout import OutcomeLayout, plan_layout

ROW_GROUP = 131_072
LIMITED_ROWS, WHOLE_WITHIN, DECODED_WITHIN = 1_000_000, 0.6, 0.35
"""The limits are CPU seconds for so many rows."""
NUMBERS, CARDINALITIES = 40, (5, 8, 12, 20, 40, 80, 150, 300, 600, 1000)
TEXTS = [f"features.c{i}" for i in range(len(CARDINALITIES))] + [
    "prediction",
    "ground_truth",
    "group.sex",
    "group.region",
]


def rows(number: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Return rows of a binary model: columns of many shapes, ten of them shifted where there is a shift."""
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {"prediction_id": pa.array([f"{seed}-{i:08d}" for i in range(number)])}
    columns["timestamp"] = pa.array((np.arange(number) * 3_600_000).astype(np.int64), pa.timestamp("us", tz="UTC"))
    shapes: list[Callable[[], NDArray[np.float64]]] = [
        lambda: rng.normal(size=number),
        lambda: rng.lognormal(0, 1, number),
        lambda: rng.pareto(0.5, number),
        lambda: np.round(rng.normal(50, 15, number), 1),
        lambda: rng.poisson(4, number).astype(np.float64),
        lambda: rng.gamma(2, 3, number),
        lambda: rng.random(number),
        lambda: np.round(rng.lognormal(8, 1, number), 2),
    ]
    logit = np.zeros(number)
    for i in range(NUMBERS):
        values = shapes[i % len(shapes)]()
        if i < 8:
            values = values + shift * values.std()
        if i % 8 == 0:
            logit += np.clip(values, -5, 5) * 0.5
        columns[f"features.n{i}"] = pa.array(values, mask=rng.random(number) < 0.03 if i % 8 == 6 else None)
    for i, cardinality in enumerate(CARDINALITIES):
        weights = 1 / np.arange(1, cardinality + 1)
        codes = rng.choice(cardinality, number, p=weights / weights.sum())
        names = pa.array([f"value {k}" for k in range(cardinality)])
        columns[f"features.c{i}"] = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names)
    score = 1 / (1 + np.exp(-logit + 2))
    columns["score"] = pa.array(score)
    classes = pa.array(["0", "1"])
    columns["prediction"] = pa.DictionaryArray.from_arrays(pa.array((score > 0.5).astype(np.int32)), classes)
    label = (rng.random(number) < score).astype(np.int32)
    columns["ground_truth"] = pa.DictionaryArray.from_arrays(pa.array(label), classes)
    for name, groups in (("sex", ["F", "M"]), ("region", ["north", "east", "south", "west", "centre"])):
        codes = rng.integers(0, len(groups), number).astype(np.int32)
        columns[f"group.{name}"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(groups))
    return pa.table(columns)


def write(table: pa.Table, path: Path) -> None:
    """Write rows as a compacted segment: zstd-1, floats split by bytes, dictionaries on text, gaps where any are."""
    gaps = [field.with_nullable(table[field.name].null_count > 0) for field in table.schema]
    table = table.cast(pa.schema(gaps))
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=1,
        use_dictionary=TEXTS,
        use_byte_stream_split=floats,
        row_group_size=ROW_GROUP,
        write_statistics=False,
    )


def columns_of(table: pa.Table) -> list[Column]:
    """Return the schema of the model."""
    columns = []
    for field in table.schema:
        kind = Type.CATEGORICAL if field.name in TEXTS else Type.NUMERIC
        if field.name.startswith("features."):
            columns.append(Column(name=field.name, role=Role.FEATURE, type=kind))
        elif field.name in ("score", "prediction", "ground_truth"):
            columns.append(Column(name=field.name, role=Role(field.name), type=kind))
    return columns


def batches(path: Path, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows as the lake reads them: text as dictionary codes, the file mapped into memory."""
    file = pq.ParquetFile(path, read_dictionary=TEXTS, pre_buffer=False, memory_map=True)
    yield from file.iter_batches(batch_size=ROW_GROUP, columns=names, use_threads=False)


def cpu(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the least CPU seconds of several runs."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def show(name: str, seconds: float | None, number: int, note: str = "") -> None:
    """Print one line of the table."""
    if seconds is None:
        print(f"| {name} | {number:,} | - | - | {note} |")
        return
    rate = number * (NUMBERS + len(CARDINALITIES)) / seconds / 1e6
    print(f"| {name} | {number:,} | {seconds:.3f} | {rate:,.1f} | {note} |", flush=True)


def ours(folder: Path, reference: pa.Table, number: int, repeats: int) -> tuple[float, float]:
    """Measure the profile pass and its parts; return the seconds of the whole and of decoding."""
    path = folder / "window.parquet"
    columns = columns_of(reference)
    groups = {"sex": ("F", "M"), "region": ("north", "east", "south", "west", "centre")}
    outcomes = OutcomeLayout("binary", ("0", "1"), "1", groups)
    started = time.process_time()
    layout = plan_layout(reference.to_batches(), columns, outcomes=outcomes)
    planning = time.process_time() - started
    names = ["timestamp", *layout.columns, "group.sex", "group.region"]
    profile = profile_batches(batches(path, names), layout)
    whole = cpu(lambda: profile_batches(batches(path, names), layout), repeats)
    decoding = cpu(lambda: [batch.num_rows for batch in batches(path, names)], repeats)
    inputs = [name for name in names if name != "ground_truth" and not name.startswith("group.")]
    without = cpu(lambda: profile_batches(batches(path, inputs), layout), repeats)
    memory = list(batches(path, names))
    kernel = cpu(lambda: profile_batches(memory, layout), repeats)
    show("Plumbline: whole profile with outcomes, from Parquet", whole, number)
    show("- of it decoding", decoding, number)
    show("- of it the kernel, batches in memory", kernel, number)
    show("Plumbline: profile without labels, from Parquet", without, number)
    show("Plumbline: plan the layout (once per version)", planning, reference.num_rows)
    size = len(profile.encode_inputs()), len(profile.encode_outcomes())
    encoding = cpu(lambda: (profile.encode_inputs(), profile.encode_outcomes()), repeats)
    note = f"{size[0] / 1000:.0f} kB inputs, {size[1] / 1000:.0f} kB outcomes"
    show("Plumbline: encode the profile", encoding, number, note)
    return whole, decoding


def scipy_loop(reference: pa.Table, window: pa.Table, repeats: int) -> float:
    """Return the CPU seconds of ks_2samp and chi2_contingency over all features, rows in memory."""
    from scipy.stats import chi2_contingency, ks_2samp

    names = [name for name in window.column_names if name.startswith("features.")]
    left = {name: reference[name].to_pandas() for name in names}
    right = {name: window[name].to_pandas() for name in names}

    def work() -> None:
        for name in names:
            if name in TEXTS:
                one, other = left[name].value_counts(), right[name].value_counts()
                table = np.stack([one.to_numpy(), other.reindex(one.index).fillna(0).to_numpy()])
                chi2_contingency(table + 1e-9)
            else:
                ks_2samp(left[name].dropna(), right[name].dropna(), method="asymp")

    return cpu(work, repeats)


def evidently_preset(reference: pa.Table, window: pa.Table) -> float:
    """Return the CPU seconds of Evidently's DataDriftPreset over all features, rows in memory."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [name for name in window.column_names if name.startswith("features.")]
    numbers = [name for name in names if name not in TEXTS]
    texts = [name for name in names if name in TEXTS]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)

    def frame(table: pa.Table) -> Dataset:
        pandas = table.select(names).to_pandas()
        pandas[texts] = pandas[texts].astype(str)
        return Dataset.from_pandas(pandas, data_definition=definition)

    left, right = frame(reference), frame(window)
    return cpu(lambda: Report([DataDriftPreset()]).run(right, left), 1)


def frouros_loop(reference: pa.Table, window: pa.Table) -> float:
    """Return the CPU seconds of frouros' PSI over the numeric features, rows in memory."""
    from frouros.detectors.data_drift import PSI

    names = [name for name in window.column_names if name.startswith("features.n")]
    left = {name: reference[name].to_pandas().dropna().to_numpy() for name in names}
    right = {name: window[name].to_pandas().dropna().to_numpy() for name in names}

    def work() -> None:
        for name in names:
            detector = PSI(num_bins=10)
            detector.fit(X=left[name])
            detector.compare(X=right[name])

    return cpu(work, 1)


def peers(reference: pa.Table, window: pa.Table, full: bool) -> float:
    """Measure what users would run instead; return the seconds of SciPy's tests."""
    loop = scipy_loop(reference, window, 2)
    show("SciPy: ks_2samp and chi2_contingency in a loop, rows in memory", loop, window.num_rows)
    try:
        show("frouros: PSI of the 40 numbers, rows in memory", frouros_loop(reference, window), window.num_rows)
    except ImportError:
        show("frouros: PSI", None, window.num_rows, "not installed, not measured")
    part = window if full else window.slice(0, 100_000)
    note = "" if full else "given 100,000 rows; --full gives it all"
    try:
        show("Evidently: DataDriftPreset, rows in memory", evidently_preset(reference, part), part.num_rows, note)
    except ImportError:
        show("Evidently: DataDriftPreset", None, part.num_rows, "not installed, not measured")
    return loop


def main() -> int:
    """Make the rows, measure both sides, print the table; return 0 where the limits are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=LIMITED_ROWS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="give Evidently all rows too (minutes)")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    pa.set_cpu_count(1)
    reference, window = rows(100_000, 1), rows(arguments.rows, 2, 0.1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(window, folder / "window.parquet")
        size = (folder / "window.parquet").stat().st_size / arguments.rows
        print(f"baseline {reference.num_rows:,} rows, window {arguments.rows:,} rows of {size:.0f} bytes, one core")
        print("| what | rows | CPU s | million values/s | |\n|---|---|---|---|---|")
        whole, decoding = ours(folder, reference, arguments.rows, arguments.repeats)
    if arguments.ours:
        return 0
    loop = peers(reference, window, arguments.full)
    if arguments.rows != LIMITED_ROWS:
        return 0
    pace = scipy_pace(loop, arguments.rows)
    print(f"\n{pace}")
    kept = [pace.within("the whole pass", whole, WHOLE_WITHIN), pace.within("decoding", decoding, DECODED_WITHIN)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
