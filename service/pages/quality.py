"""The data quality page of a model, and its page of other results, from the database."""

from collections.abc import Sequence
from dataclasses import dataclass

from dashboards import charts, formats
from dashboards.page import Empty
from dashboards.quality import Check, QualityPage, ResultsPage, worst_first
from dashboards.standing import Standing, standing_of, worst
from monitors import discovery
from service.pages.drift import Document, Key, Reading, choices, choose
from service.pages.visit import ModelVisit, Visit
from service.runs import decode_results
from service.tables import MonitorRow
from service.windows import LENGTHS
from service.words import DAY

WINDOWS = 90
ROWS = 50
STREAM = "records"
"""What checks of the stream as a whole are about."""


@dataclass(frozen=True)
class Section:
    """Which of the two pages is built, for which monitors, and what it says where there are none."""

    name: str
    words: str
    page: type[QualityPage]
    title: str
    text: str
    whole: str = ""
    """What a result is about that is of no column or group; empty: its own metric."""

    def subject(self, one: Document) -> str:
        """Return what a result is about, in one word or two."""
        parts = [str(one[key]) for key in ("feature", "slice", "attribute", "group", "class") if one.get(key)]
        return " ".join(parts) or self.whole or str(one["metric"]).replace("_", " ")

    def shows(self, monitor: MonitorRow) -> bool:
        """Whether the page shows what a monitor found."""
        found = discovery.kinds().get(monitor.kind)
        return (found.page if found is not None else "results") == self.name


QUALITY = Section(
    "quality",
    "data quality",
    QualityPage,
    "Data quality is not watched",
    "The default monitors check completeness, type, range, new categories, volume and freshness.",
    STREAM,
)
RESULTS = Section(
    "results",
    "results",
    ResultsPage,
    "No other monitor",
    "Every monitor of this model has a page of its own. Kinds without one show here what they find, plug-ins included.",
)


def build(visit: Visit, name: str, section: Section = QUALITY) -> QualityPage:
    """Return the checks of the chosen window, and how each column fared over the range."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    watching = [monitor for monitor in at.monitors if section.shows(monitor)]
    chosen = [monitor for monitor in watching if monitor.name == visit.view.monitor] or watching[:1]
    runs = at.runs(chosen, WINDOWS, documents=True)
    reading = Reading({}, {}, {})
    results: dict[Key, list[Document]] = {}
    for run in runs:
        key = (run.starts_at, run.ends_at)
        reading.runs.setdefault(key, []).append(run)
        results.setdefault(key, []).extend(decode_results(run.document))
    shown = reading.windows[-WINDOWS:]
    current = choose(shown, visit.view.window, reading)
    here = reading.runs.get(current, []) if current else []
    checks = worst_first([check(one, section) for one in results.get(current, [])]) if current else ()
    empty = at.empty()
    if empty is None and not shown:
        empty = Empty(
            title="No window in this range" if watching else section.title,
            text="Choose a wider range, or “All”." if watching else section.text,
        )
    grid, note = _grid(at, section, shown, results, reading, [one.subject for one in checks])
    return section.page(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · {section.words}",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section=section.name,
        start=start,
        end=end,
        empty=empty,
        monitors=tuple(monitor.name for monitor in watching),
        monitor=chosen[0].name if chosen else "",
        windows=choices(reading, shown, current),
        window_start=current[0] if current else None,
        window_end=current[1] if current else None,
        run_standing=worst([standing_of(run.status) for run in here]),
        run_reason="; ".join(run.reason for run in here if run.reason and run.status != "violations"),
        rows=max((run.rows for run in here), default=0),
        sentence=_sentence(checks),
        checks=checks,
        grid=grid,
        grid_note=note,
    )


def check(one: Document, section: Section) -> Check:
    """Return a result as a check."""
    judged = one.get("decides", True) and one.get("verdict") is not None
    return Check(
        subject=section.subject(one),
        metric=str(one["metric"]),
        standing=standing_of(one.get("verdict")) if judged else Standing.OK,
        judged=bool(judged),
        value=one.get("value"),
        unit=str(one.get("unit", "")),
        threshold=one.get("threshold"),
        p_value=one.get("p_value"),
        baseline_value=one.get("baseline_value"),
        rule=str(one.get("rule", "")),
        n_window=int(one.get("n_window", 0)),
        n_baseline=int(one.get("n_baseline", 0)),
        reason=str(one.get("reason", "")),
        note=str(one.get("note", "")),
        by=str(one.get("by", "")),
    )


def _sentence(checks: Sequence[Check]) -> str:
    judged = [one for one in checks if one.judged]
    bad = [one for one in judged if one.standing is Standing.VIOLATED]
    silent = sum(one.standing is Standing.NOT_MEASURED for one in judged)
    measured = len(judged) - silent
    missing = f" {formats.plural(silent, 'check')} not measured." if silent else ""
    if bad:
        names = formats.listed(list(dict.fromkeys(f"{one.subject} ({one.metric.replace('_', ' ')})" for one in bad)), 4)
        return f"{len(bad)} of {formats.plural(measured, 'check')} failed: {names}.{missing}"
    if measured:
        return f"All {formats.plural(measured, 'check')} passed.{missing}"
    return "Nothing was checked in this window."


def _grid(
    at: ModelVisit,
    section: Section,
    windows: Sequence[Key],
    results: dict[Key, list[Document]],
    reading: Reading,
    order: Sequence[str],
) -> tuple[charts.Chart | None, str]:
    """Return how each column stood in each window, as the worst of its checks."""
    marks = []
    rows = list(dict.fromkeys(order))
    for window in windows:
        by_subject: dict[str, list[Document]] = {}
        for one in results[window]:
            if one.get("decides", True) and one.get("verdict") is not None:
                by_subject.setdefault(section.subject(one), []).append(one)
        rows += [subject for subject in by_subject if subject not in rows]
        for subject, found in by_subject.items():
            bad = [one for one in found if one["verdict"] == "violated"]
            measured = [one for one in found if one["verdict"] != "not_measured"]
            standing = (
                Standing.VIOLATED if bad else Standing.OK if len(measured) == len(found) else Standing.NOT_MEASURED
            )
            reasons = [str(one["metric"]).replace("_", " ") for one in bad] or [
                str(one.get("reason", "")) for one in found if one["verdict"] == "not_measured"
            ]
            marks.append(
                charts.WindowMark(
                    monitor=subject,
                    start=window[0],
                    end=window[1],
                    standing=standing,
                    rows=max(run.rows for run in reading.runs[window]),
                    violated=len(bad),
                    measured=len(measured),
                    reason=formats.listed(list(dict.fromkeys(reasons))) if reasons else "",
                    href=at.view.query(window=window[0]),
                )
            )
    if not marks:
        return None, ""
    seen = {mark.monitor for mark in marks}
    rows = [row for row in rows if row in seen]
    shown = rows[:ROWS]
    kept = [mark for mark in marks if mark.monitor in set(shown)]
    length = min((LENGTHS.get(monitor.window, DAY) for monitor in at.monitors), default=DAY)
    grid = charts.window_strip(
        kept, shown, length, identity="grid", title="Checks by column, window by window", what="column"
    )
    return grid, f"The first {ROWS} of {len(rows)} columns, worst first." if len(rows) > ROWS else ""
