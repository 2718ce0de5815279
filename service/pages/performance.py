"""The performance page of a model from the database: runs' documents for the figures, outcome tables for the curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dashboards import charts, formats
from dashboards.page import Empty
from dashboards.performance import Confusion, FigureRow, PerformancePage
from dashboards.standing import Standing, standing_of, worst
from monitors import discovery
from monitors.tables import BinaryTable, MulticlassTable, RegressionTable, Table, table_of
from service import baselines
from service.pages.drift import Document, Key, Reading, choices, choose
from service.pages.visit import ModelVisit, Visit
from service.problems import Problem
from service.runs import decode_results
from service.tables import BaselineRow, MonitorRow, RunRow
from service.words import Span

WINDOWS = 90
SERIES = 4
"""Figures drawn over time at most."""
STEPS = 40
"""Points of a curve."""
DIFFERS = "beyond both intervals"


def build(visit: Visit, name: str) -> PerformancePage:
    """Return the figures of the chosen window, and how each fared over the range."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    kinds = {kind.name for kind in discovery.kinds().values() if kind.page == "performance"}
    watching = [monitor for monitor in at.monitors if monitor.kind in kinds]
    chosen = [monitor for monitor in watching if monitor.name == visit.view.monitor]
    if not chosen and watching:
        chosen = [monitor for monitor in watching if monitor.window == watching[0].window]
    by_id = {monitor.id: monitor for monitor in chosen}
    runs = at.runs(chosen, WINDOWS, documents=True)
    reading = Reading({}, {}, {})
    results: dict[Key, list[tuple[MonitorRow, Document]]] = {}
    for run in runs:
        key = (run.starts_at, run.ends_at)
        reading.runs.setdefault(key, []).append(run)
        found = results.setdefault(key, [])
        found += [(by_id[run.monitor_id], one) for one in decode_results(run.document)]
    shown = [window for window in reading.windows if results[window]][-WINDOWS:]
    current = choose(shown, visit.view.window, reading)
    here = reading.runs.get(current, []) if current else []
    figures, concept = _rows(results.get(current, [])) if current else ((), ())
    empty = at.empty()
    if empty is None and not shown:
        empty = Empty(
            title="No window in this range" if watching else "Performance is not watched",
            text="Choose a wider range, or “All”."
            if watching
            else "A monitor of kind performance compares predictions with the labels you send; the default monitors "
            "have one where the baseline has labels. Estimated performance needs none in production.",
        )
    labelled = next((run for run in here if run.labelled_rows is not None), None)
    coverage = None
    if labelled is not None and labelled.labelled_rows is not None and labelled.rows:
        coverage = labelled.labelled_rows / labelled.rows
    curves, confusion, reason = _curves(at, here, current) if current else ((), None, "")
    series, volume = _series(shown, results, reading)
    return PerformancePage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · performance",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="performance",
        start=start,
        end=end,
        empty=empty,
        monitors=tuple(monitor.name for monitor in watching),
        monitor=chosen[0].name if len(chosen) == 1 else "",
        windows=choices(reading, shown, current),
        window_start=current[0] if current else None,
        window_end=current[1] if current else None,
        run_standing=worst([standing_of(run.status) for run in here]) if here else Standing.WAITING,
        run_reason="; ".join(dict.fromkeys(run.reason for run in here if run.reason and run.status != "violations")),
        rows=max((run.rows for run in here), default=0),
        labelled_rows=None if labelled is None else labelled.labelled_rows,
        label_coverage=coverage,
        sentence=_sentence(figures, concept, here),
        disagreement=_disagreement(figures),
        figures=figures,
        concept=concept,
        notes=_common([*figures, *concept]),
        series=series,
        volume=volume,
        curves=curves,
        confusion=confusion,
        curves_reason=reason,
    )


def _rows(found: Sequence[tuple[MonitorRow, Document]]) -> tuple[tuple[FigureRow, ...], tuple[FigureRow, ...]]:
    """Return the figures of a window, realised and expected in one row, and the signs of concept drift."""
    pairs: dict[tuple[str, str], dict[str, Document]] = {}
    concept: list[FigureRow] = []
    for monitor, one in found:
        if monitor.kind == "concept_drift":
            concept.append(_row({"realised": one}))
            continue
        parts = pairs.setdefault((str(one["metric"]), str(one.get("class") or "")), {})
        side = "estimated" if one.get("estimated") else "realised"
        if side not in parts or monitor.kind == "performance":
            parts[side] = one
    rows = sorted((_row(parts) for parts in pairs.values()), key=lambda row: (not row.judged, row.standing.rank))
    return tuple(rows), tuple(sorted(concept, key=lambda row: (not row.judged, row.standing.rank)))


def _row(parts: Mapping[str, Document]) -> FigureRow:
    realised: Document = parts.get("realised", {})
    expected: Document = parts.get("estimated", {})
    both = [one for one in (realised, expected) if one]
    heeded = [one for one in both if one.get("decides", True) and one.get("verdict") is not None]
    main = heeded[0] if heeded else both[0]
    low, high = realised.get("interval") or (None, None)
    estimated_low, estimated_high = expected.get("interval") or (None, None)
    return FigureRow(
        metric=str(main["metric"]),
        class_=str(main.get("class") or ""),
        standing=worst([standing_of(one.get("verdict")) for one in heeded]) if heeded else Standing.OK,
        judged=bool(heeded),
        value=realised.get("value"),
        low=low,
        high=high,
        estimated=expected.get("value"),
        estimated_low=estimated_low,
        estimated_high=estimated_high,
        baseline_value=main.get("baseline_value"),
        constant_value=realised.get("constant_value"),
        effect=main.get("effect"),
        min_effect=main.get("min_effect"),
        p_value=main.get("p_value"),
        alpha=main.get("alpha"),
        threshold=main.get("threshold"),
        unit=str(main.get("unit", "")),
        direction=str(main.get("direction", "")),
        n_window=int(realised.get("n_window", 0)),
        reason=str(main.get("reason", "")),
        note="; ".join(dict.fromkeys(str(one["note"]) for one in both if one.get("note"))),
        by=str(main.get("by", "")),
    )


def _sentence(figures: Sequence[FigureRow], concept: Sequence[FigureRow], here: Sequence[RunRow]) -> str:
    bad = [row for row in (*figures, *concept) if row.judged and row.standing is Standing.VIOLATED]
    measured = [row for row in figures if row.judged and row.standing is Standing.OK]
    if bad:
        names = list(dict.fromkeys(row.metric.replace("_", " ") for row in bad))
        return f"Worse than in the baseline: {formats.listed(names, 4)}."
    if measured:
        return f"All {formats.plural(len(measured), 'judged figure')} are as good as in the baseline."
    if any(run.status == "waiting_for_labels" for run in here):
        return "The window waits for its labels; nothing is judged yet."
    return "Nothing was measured in this window."


def _disagreement(figures: Sequence[FigureRow]) -> str:
    names = [row.metric.replace("_", " ") for row in figures if DIFFERS in row.note and not row.class_]
    if not names:
        return ""
    return (
        f"The labels contradict what was expected of {formats.listed(names, 4)}, beyond both intervals: what scores "
        "mean has changed, so the estimate is wrong."
    )


def _common(rows: Sequence[FigureRow]) -> tuple[str, ...]:
    notes = [row.note for row in rows if row.note]
    return tuple(note for note in dict.fromkeys(notes) if notes.count(note) >= 3)


# --- over time --------------------------------------------------------------------------------------------------------


def _series(
    windows: Sequence[Key], results: Mapping[Key, Sequence[tuple[MonitorRow, Document]]], reading: Reading
) -> tuple[tuple[charts.Chart, ...], charts.Chart | None]:
    rows = {window: {(row.metric, row.class_): row for row in _rows(results[window])[0]} for window in windows}
    # Windows that wait carry no verdict, and what decides there says so all the same.
    wanted = dict.fromkeys(
        str(one["metric"])
        for window in windows
        for monitor, one in results[window]
        if one.get("decides", True) and not one.get("class") and monitor.kind != "concept_drift" and "value" in one
    )
    drawn = []
    for metric in list(wanted)[:SERIES]:
        points, unit = [], ""
        for window in windows:
            row = rows[window].get((metric, ""))
            if row is None:
                points.append(charts.FigurePoint(start=window[0], end=window[1], reason="not measured"))
                continue
            unit = row.unit or unit
            low, high = _limits(row)
            points.append(
                charts.FigurePoint(
                    start=window[0],
                    end=window[1],
                    value=row.value,
                    low=row.low,
                    high=row.high,
                    estimated=row.estimated,
                    estimated_low=row.estimated_low,
                    estimated_high=row.estimated_high,
                    limit_low=low,
                    limit_high=high,
                    standing=row.standing,
                    n=row.n_window,
                    reason=row.reason,
                )
            )
        drawn.append(charts.figure_series(f"figure-{metric}", metric.replace("_", " "), unit, points))
    if not drawn:
        return (), None
    counts = [
        charts.Volume(
            start=window[0], end=window[1], accepted=max((run.rows for run in reading.runs[window]), default=0)
        )
        for window in windows
    ]
    return tuple(drawn), charts.volumes("volume", "Records", counts)


def _limits(row: FigureRow) -> tuple[float | None, float | None]:
    """Return from where on a value is worse: below, above, or on either side."""
    if row.threshold is not None:
        return (row.threshold, None) if row.direction == "lower_is_worse" else (None, row.threshold)
    if row.baseline_value is None or row.min_effect is None:
        return None, None
    low, high = row.baseline_value - row.min_effect, row.baseline_value + row.min_effect
    if row.direction == "lower_is_worse":
        return low, None
    return (None, high) if row.direction == "higher_is_worse" else (low, high)


# --- curves of the window ---------------------------------------------------------------------------------------------


def _curves(
    at: ModelVisit, here: Sequence[RunRow], window: Key
) -> tuple[tuple[charts.Chart, ...], Confusion | None, str]:
    run = next((run for run in here if run.layout is not None and run.baseline_id is not None), None)
    if run is None or at.version is None or run.layout is None:
        return (), None, "the window has no baseline to draw beside"
    parts, session = at.visit.parts, at.session
    try:
        baseline = session.get_one(BaselineRow, run.baseline_id)
        layout = parts.profiles.layout(session, at.version.id, run.layout)
        before = table_of(baselines.profile(session, parts.lake, baseline, layout))
        after = table_of(parts.profiles.window(session, at.version, run.layout, Span(*window), labels=True))
    except Problem as problem:
        return (), None, problem.detail or problem.title
    if before is None or after is None or not float(after.labelled):
        return (), None, "no row of the window has a label"
    tables = {"baseline": before, "window": after}
    return tuple(_drawn(tables)), _confusion(before, after), ""


def _drawn(tables: Mapping[str, Table]) -> list[charts.Chart]:
    binary = {name: table for name, table in tables.items() if isinstance(table, BinaryTable) and table.has_scores}
    if binary:
        found = []
        if all(table.probabilities for table in binary.values()):
            lines = {name: _calibration(table) for name, table in binary.items()}
            axes = ("Mean score", "Share of positives")
            found.append(charts.curves("calibration", "Calibration", axes, lines, diagonal=True))
        rates = {name: _roc(table) for name, table in binary.items()}
        axes = ("False positive rate", "True positive rate")
        found.append(charts.curves("roc", "ROC", axes, rates, diagonal=True))
        precision = {name: _precision_recall(table) for name, table in binary.items()}
        found.append(charts.curves("precision-recall", "Precision and recall", ("Recall", "Precision"), precision))
        return found
    numbers = {name: table for name, table in tables.items() if isinstance(table, RegressionTable)}
    if numbers:
        lines = {name: _residuals(table) for name, table in numbers.items()}
        axes = ("Prediction less label", "Share of rows up to it")
        return [charts.curves("residuals", "Residuals", axes, lines)]
    return []


def _calibration(table: BinaryTable) -> list[tuple[float, float]]:
    coarse = table.coarse(15)
    rows = coarse.scored.sum(axis=0)
    used = np.flatnonzero(rows > 0)
    return [(float(coarse.scores[cell]), float(coarse.scored[1, cell] / rows[cell])) for cell in used]


def _roc(table: BinaryTable) -> list[tuple[float, float]]:
    negatives, positives = (np.cumsum(table.scored[label, ::-1]) for label in (0, 1))
    if not (negatives[-1] and positives[-1]):
        return []
    return _thinned(negatives / negatives[-1], positives / positives[-1], first=(0.0, 0.0))


def _precision_recall(table: BinaryTable) -> list[tuple[float, float]]:
    negatives, positives = (np.cumsum(table.scored[label, ::-1]) for label in (0, 1))
    called = negatives + positives
    used = called > 0
    if not positives[-1]:
        return []
    return _thinned(positives[used] / positives[-1], positives[used] / called[used])


def _residuals(table: RegressionTable) -> list[tuple[float, float]]:
    total = table.residuals.sum()
    running = np.cumsum(table.residuals)[:-1] / max(total, 1.0)
    inside = (running > 0) & (running < 1)
    return _thinned(table.edges[inside], running[inside])


def _thinned(x: Any, y: Any, first: tuple[float, float] | None = None) -> list[tuple[float, float]]:
    """Return so many points of a curve, its ends among them."""
    if not len(x):
        return []
    places = np.unique(np.linspace(0, len(x) - 1, STEPS).round().astype(np.int64)).tolist()
    points = [(float(x[place]), float(y[place])) for place in places]
    return [first, *points] if first is not None else points


def _confusion(before: Table, after: Table) -> Confusion | None:
    if isinstance(before, BinaryTable) and isinstance(after, BinaryTable):
        names: tuple[str, ...] = after.names
        pair = before.confusion, after.confusion
    elif isinstance(before, MulticlassTable) and isinstance(after, MulticlassTable) and len(after.classes) <= 12:
        names = after.classes
        pair = before.confusion[:-1, :-1], after.confusion[:-1, :-1]
    else:
        return None

    def shares(matrix: Any) -> tuple[tuple[float | None, ...], ...]:
        return tuple(
            tuple(float(cell / row.sum()) if row.sum() else None for cell in row) for row in np.asarray(matrix)
        )

    rows = tuple(int(count) for count in pair[1].sum(axis=1))
    return Confusion(names=names, baseline=shares(pair[0]), window=shares(pair[1]), rows=rows)
