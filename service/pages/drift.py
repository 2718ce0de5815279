"""The drift page of a model from the database: runs' documents for the numbers, profiles for the distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from dashboards import charts, formats
from dashboards.drift import (
    ColumnDrift,
    ColumnPanel,
    DriftPage,
    Shown,
    WindowChoice,
    common_notes,
    ordered,
    quadrant,
    strength,
)
from dashboards.page import Empty, Spark
from dashboards.standing import Standing, standing_of, worst
from monitors import discovery
from service import baselines
from service.api.results import slice_of
from service.causes import importances
from service.pages import columns
from service.pages.visit import ModelVisit, Visit
from service.problems import Problem
from service.runs import decode_results
from service.tables import BaselineRow, MonitorRow, RunRow
from service.windows import LENGTHS
from service.words import DAY, Span

WINDOWS = 90
ROWS = 50
"""The largest heatmap: 90 windows by 50 columns, under the 5,000 marks of a chart."""
Document = Mapping[str, Any]
Key = tuple[datetime, datetime]


@dataclass(frozen=True)
class Found:
    """The deciding result of a column in a window, with the run it belongs to."""

    run: RunRow
    result: Document
    role: str

    @property
    def standing(self) -> Standing:
        """How it was judged."""
        return standing_of(self.result.get("verdict"))

    @property
    def strength(self) -> float | None:
        """How far it is, as a multiple of its limit."""
        one = self.result
        return strength(one.get("value"), one.get("effect"), one.get("min_effect"), one.get("threshold"))


@dataclass
class Reading:
    """What the runs of some monitors say: by window and column, the deciding results, and all others."""

    runs: dict[Key, list[RunRow]]
    found: dict[Key, dict[str, Found]]
    others: dict[Key, dict[str, list[Document]]]
    slices: set[str] = field(default_factory=set)

    @property
    def windows(self) -> list[Key]:
        """The windows, oldest first."""
        return sorted(self.runs)


def read(runs: Sequence[RunRow], kinds: Mapping[int, str], part: str = "") -> Reading:
    """Sort the results of runs about all rows, or one slice, by window and column.

    Of several time scales the one that stands worst counts.
    """
    reading = Reading({}, {}, {})
    for run in runs:
        key = (run.starts_at, run.ends_at)
        reading.runs.setdefault(key, []).append(run)
        cells, others = reading.found.setdefault(key, {}), reading.others.setdefault(key, {})
        for result in decode_results(run.document):
            if result.get("slice"):
                reading.slices.add(str(result["slice"]))
            if result.get("feature") is None or (result.get("slice") or "") != part:
                continue
            role = _role(str(result["feature"]), kinds.get(run.monitor_id, ""))
            column = _row_name(str(result["feature"]), role)
            if not result.get("decides", True) or result.get("verdict") is None:
                others.setdefault(column, []).append(result)
                continue
            fresh = Found(run, result, role)
            known = cells.get(column)
            if known is None or _place(fresh) < _place(known):
                cells[column] = fresh
    return reading


def _place(found: Found) -> tuple[int, int]:
    """Order the results of one column: violated before measured before not measured, then the shortest scale."""
    ranks = {Standing.VIOLATED: 0, Standing.OK: 1}
    return ranks.get(found.standing, 2), int(found.result.get("scale", 1))


def _role(column: str, kind: str) -> str:
    if kind != "prediction_drift":
        return "feature"
    return "score" if column == "score" or column.startswith("scores.") else "prediction"


def _row_name(label: str, role: str) -> str:
    """Return what a column is called here: a feature that has the name of a column of the prediction says so."""
    taken = label in ("prediction", "score") or label.startswith("scores.")
    return f"{label} (feature)" if taken and role == "feature" else label


def drift_monitors(at: ModelVisit) -> list[MonitorRow]:
    """Return the monitors whose results are about columns and their distributions."""
    kinds = {name for name, kind in discovery.kinds().items() if kind.page == "drift"}
    return [monitor for monitor in at.monitors if monitor.kind in kinds]


def build(visit: Visit, name: str) -> DriftPage:
    """Return how far each column is from the baseline, in the chosen window and over all of the range."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    watching = drift_monitors(at)
    chosen = [monitor for monitor in watching if monitor.name == visit.view.monitor]
    if not chosen and watching:
        chosen = [monitor for monitor in watching if monitor.window == watching[0].window]
    runs = at.runs(chosen, WINDOWS, documents=True)
    reading = read(runs, {monitor.id: monitor.kind for monitor in watching}, visit.view.slice_)
    shown = reading.windows[-WINDOWS:]
    current = choose(shown, visit.view.window, reading)
    cells = reading.found.get(current, {}) if current else {}
    here = reading.runs.get(current, []) if current else []
    series = {
        column: [reading.found[window].get(column) for window in shown]
        for column in dict.fromkeys(column for window in reversed(shown) for column in reading.found[window])
    }
    shares = importances(visit.session, visit.parts.lake, at.version)[0] if at.version is not None and cells else {}
    drifts = [
        replace(
            _drift(column, found, series[column]), importance=shares.get(column) if found.role == "feature" else None
        )
        for column, found in cells.items()
    ]
    columns_shown = ordered(drifts, visit.view.sort)
    length = min((LENGTHS.get(monitor.window, DAY) for monitor in chosen), default=DAY)
    heat, note = heatmap(at, series, shown, length, columns_shown)
    standing = worst([standing_of(run.status) for run in here]) if here else Standing.WAITING
    empty = at.empty()
    if empty is None and not shown:
        empty = _nothing(watching)
    alphas = {run.alpha for run in here if run.alpha is not None}
    return DriftPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · drift",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="drift",
        start=start,
        end=end,
        empty=empty,
        monitors=("", *(monitor.name for monitor in watching)),
        monitor=visit.view.monitor if any(m.name == visit.view.monitor for m in watching) else "",
        windows=choices(reading, shown, current),
        window_start=current[0] if current else None,
        window_end=current[1] if current else None,
        run_uid=here[0].uid if here else "",
        run_standing=standing,
        run_reason="; ".join(dict.fromkeys(run.reason for run in here if run.reason and run.status != "violations")),
        rows=max((run.rows for run in here), default=0),
        alpha=min(alphas) if len(alphas) == 1 else None,
        policy="; ".join(dict.fromkeys(policy_words(monitor) for monitor in chosen)),
        sentence=sentence(drifts, here),
        columns=columns_shown,
        slices=tuple(sorted(reading.slices)),
        notes=common_notes(columns_shown),
        heatmap=heat,
        heatmap_note=note,
        quadrant=quadrant(columns_shown),
        panel=_panel(at, current, columns_shown, series, shown, reading) if current else None,
    )


def choose(windows: Sequence[Key], wanted: str, reading: Reading) -> Key | None:
    """Return the window that was asked for, else the newest that measured something, else the newest."""
    for window in windows:
        if wanted and formats.iso(window[0]) == wanted:
            return window
    measured = [w for w in windows if any(run.ok + run.violated for run in reading.runs[w])]
    return (measured or list(windows) or [None])[-1]  # type: ignore[list-item]


def choices(reading: Reading, windows: Sequence[Key], current: Key | None) -> tuple[WindowChoice, ...]:
    """Return the windows to choose from, newest first."""
    return tuple(
        WindowChoice(
            start=window[0],
            end=window[1],
            label=formats.span(*window),
            standing=worst([standing_of(run.status) for run in reading.runs[window]]),
            current=window == current,
        )
        for window in reversed(windows)
    )


def policy_words(monitor: MonitorRow) -> str:
    """Return how a monitor judges, in a few words."""
    if "threshold" in monitor.policy:
        limits = monitor.policy["threshold"]
        return "judged by fixed thresholds: " + ", ".join(f"{key} {value}" for key, value in sorted(limits.items()))
    return "judged by the alarm budget" if "sagemaker" not in monitor.policy else "judged by SageMaker’s rules"


def sentence(drifts: Sequence[ColumnDrift], runs: Sequence[RunRow]) -> str:
    """Return what the window says, in one sentence."""
    violated = [one.column for one in ordered(drifts, "") if one.standing is Standing.VIOLATED]
    measured = sum(one.standing in (Standing.VIOLATED, Standing.OK) for one in drifts)
    if violated:
        return f"{len(violated)} of {formats.plural(measured, 'column')} moved: {formats.listed(violated, 4)}."
    if measured:
        silent = len(drifts) - measured
        missing = f" {formats.plural(silent, 'column')} not measured." if silent else ""
        return f"No column moved beyond its limit: {formats.plural(measured, 'column')} measured.{missing}"
    reasons = [run.reason for run in runs if run.reason]
    return f"Not measured: {reasons[0]}." if reasons else "Nothing was measured in this window."


def _nothing(watching: Sequence[MonitorRow]) -> Empty:
    if not watching:
        return Empty(
            title="Drift is not watched", text="This model has no monitor of drift. The default monitors add two."
        )
    return Empty(
        title="No window in this range",
        text="No monitored window lies between the two days. Choose a wider range, or “All”.",
    )


def _drift(column: str, found: Found, series: Sequence[Found | None]) -> ColumnDrift:
    one = found.result
    known = [each for each in series if each is not None]
    recent = series[-30:]
    return ColumnDrift(
        column=column,
        role=found.role,
        standing=found.standing,
        metric=str(one["metric"]),
        unit=str(one.get("unit", "")),
        direction=str(one.get("direction", "")),
        value=one.get("value"),
        baseline_value=one.get("baseline_value"),
        effect=one.get("effect"),
        min_effect=one.get("min_effect"),
        p_value=one.get("p_value"),
        alpha=one.get("alpha"),
        threshold=one.get("threshold"),
        rule=str(one.get("rule", "")),
        scale=int(one.get("scale", 1)),
        n_window=int(one.get("n_window", 0)),
        n_baseline=int(one.get("n_baseline", 0)),
        reason=str(one.get("reason", "")),
        note=str(one.get("note", "")),
        by=str(one.get("by", "")),
        recent=Spark.of(
            [each.strength if each is not None else None for each in recent],
            [each.standing if each is not None else Standing.NOT_MEASURED for each in recent],
            f"effect in the last {len(recent)} windows",
        ),
        violated_windows=sum(each.standing is Standing.VIOLATED for each in known),
        windows=len(known),
    )


def heatmap(
    at: ModelVisit,
    series: Mapping[str, Sequence[Found | None]],
    windows: Sequence[Key],
    length: timedelta,
    shown: Sequence[ColumnDrift],
) -> tuple[charts.Chart | None, str]:
    """Return the heatmap and what it leaves out; rows in the order of the table, columns that are gone below."""
    if not series or not windows:
        return None, ""
    known = [one.column for one in shown]
    rows = [*known, *(column for column in series if column not in set(known))]
    cells = [
        charts.HeatCell(
            row=column,
            start=window[0],
            end=window[1],
            strength=found.strength,
            standing=found.standing,
            metric=str(found.result["metric"]),
            value=found.result.get("value"),
            p_value=found.result.get("p_value"),
            n=int(found.result.get("n_window", 0)),
            reason=str(found.result.get("reason", "")),
            href=at.view.query(feature=column, window=window[0]) + "#column",
        )
        for column in rows[:ROWS]
        for window, found in zip(windows, series[column], strict=True)
        if found is not None
    ]
    left_out = len(rows) - ROWS
    note = (
        f"The first {ROWS} of {len(rows)} columns in the chosen order; the table below has all." if left_out > 0 else ""
    )
    return charts.heatmap(cells, rows[:ROWS], length), note


def _panel(
    at: ModelVisit,
    window: Key,
    shown: Sequence[ColumnDrift],
    series: Mapping[str, Sequence[Found | None]],
    windows: Sequence[Key],
    reading: Reading,
) -> ColumnPanel | None:
    wanted = at.visit.view.feature
    drift = next((one for one in shown if one.column == wanted), shown[0] if shown else None)
    if drift is None:
        return None
    run = reading.found[window][drift.column].run
    chart, reason, missing, kind = distribution(at, drift, run, window)
    return ColumnPanel(
        drift=drift,
        type=kind,
        missing_baseline=missing[0],
        missing_window=missing[1],
        overlay=chart,
        overlay_reason=reason,
        series=panel_series(drift, windows, series[drift.column]),
        also=tuple(
            Shown(metric=str(one["metric"]), value=one.get("value"), reason=str(one.get("reason", "")))
            for one in reading.others[window].get(drift.column, [])
            if int(one.get("scale", 1)) == 1
        ),
    )


def panel_series(drift: ColumnDrift, windows: Sequence[Key], found: Sequence[Found | None]) -> tuple[charts.Chart, ...]:
    """Return the column's statistic, effect and p-value over the windows, each with the limit that held then."""

    def points(value: str, limit: str) -> list[charts.Point]:
        return [
            charts.Point(
                start=window[0],
                end=window[1],
                value=one.result.get(value) if one is not None else None,
                limit=one.result.get(limit) if one is not None else None,
                standing=one.standing if one is not None else Standing.NOT_MEASURED,
                n=int(one.result.get("n_window", 0)) if one is not None else 0,
                reason=str(one.result.get("reason", "")) if one is not None else "no run",
            )
            for window, one in zip(windows, found, strict=True)
        ]

    unit = drift.unit
    made = [
        charts.series("statistic", f"{drift.metric} over time", unit, points("value", "threshold"), limit="threshold")
    ]
    if any(one is not None and one.result.get("min_effect") is not None for one in found):
        made.append(
            charts.series(
                "effect",
                "Effect over time, chance subtracted",
                "",
                points("effect", "min_effect"),
                limit="smallest effect that counts",
            )
        )
    if any(one is not None and one.result.get("p_value") is not None for one in found):
        made.append(
            charts.series(
                "p-values",
                "p-value over time",
                "",
                points("p_value", "alpha"),
                limit="alpha",
                logarithmic=True,
                below=True,
            )
        )
    return tuple(made)


def distribution(
    at: ModelVisit, drift: ColumnDrift, run: RunRow, window: Key
) -> tuple[charts.Chart | None, str, tuple[float | None, float | None], str]:
    """Return the overlay, or why there is none; the missing shares of baseline and window; the column's type."""
    parts, session = at.visit.parts, at.session
    baseline = session.get(BaselineRow, run.baseline_id) if run.baseline_id is not None else None
    if at.version is None or baseline is None or run.layout is None:
        return None, "the run compared with no stored baseline.", (None, None), ""
    try:
        layout = parts.profiles.layout(session, at.version.id, run.layout)
        chosen = at.view.slice_
        part = slice_of(session, at.model, chosen) if chosen else None
        profiles = parts.profiles if part is None else parts.profiles.of(part)
        before = baselines.profile(session, parts.lake, baseline, layout, part)
        after = profiles.window(session, at.version, run.layout, Span(*window))
    except Problem as problem:
        return None, problem.detail or problem.title, (None, None), ""
    label = drift.column.removesuffix(" (feature)") if drift.role == "feature" else drift.column
    name = f"features.{label}" if drift.role == "feature" else label
    if name not in layout.columns:
        name = f"features.{drift.column}" if f"features.{drift.column}" in layout.columns else drift.column
    chart, reason = columns.overlay(
        drift.column, name, layout, before, after, (f"baseline {baseline.name}", f"window {formats.span(*window)}")
    )
    types = {column.name: column.type.value for column in baselines.columns(session, at.version)}
    shares = [
        one.missing / (one.count + one.missing) if one is not None and one.count + one.missing else None
        for one in (before.columns.get(name), after.columns.get(name))
    ]
    return chart, reason, (shares[0], shares[1]), types.get(name, "")
