"""The fairness page of a model from the database: what the bias monitors found in the chosen window."""

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards import charts, formats
from dashboards.fairness import RATIO, FairnessPage, Figure, Gap, Group, dots
from dashboards.page import Empty
from dashboards.standing import Standing, standing_of, worst
from monitors import discovery
from service.baselines import task_of
from service.pages import commands
from service.pages.drift import Document, Key, Reading, choices, choose
from service.pages.visit import ModelVisit, Visit
from service.runs import decode_results

WINDOWS = 90
PAGE = "fairness"
SHARE = "group_share"


def build(visit: Visit, name: str) -> FairnessPage:
    """Return how the groups of an attribute fare in the chosen window, and over the range."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    kinds = {kind for kind, found in discovery.kinds().items() if found.page == PAGE}
    watching = [monitor for monitor in at.monitors if monitor.kind in kinds]
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
    found = results.get(current, []) if current else []
    attributes = tuple(dict.fromkeys(str(one["attribute"]) for one in found if one.get("attribute")))
    wanted = visit.view.feature
    attribute = wanted if wanted in attributes else _worst(found) or (attributes[0] if attributes else "")
    gaps = [gap(one) for one in found if one.get("attribute") == attribute and one.get("reference_group")]
    told = [one for one in gaps if one.value is not None]
    notes = [one.note for one in told if one.judged and one.note]
    groups = _groups(found, attribute, {one.group for one in told})
    favourable = task_of(at.model).favourable_outcome
    return FairnessPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · fairness",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section=PAGE,
        start=start,
        end=end,
        empty=_empty(at, watching, shown),
        monitors=tuple(monitor.name for monitor in watching),
        monitor=chosen[0].name if chosen else "",
        windows=choices(reading, shown, current),
        window_start=current[0] if current else None,
        window_end=current[1] if current else None,
        run_standing=worst([standing_of(run.status) for run in here]) if here else Standing.WAITING,
        run_reason="; ".join(run.reason for run in here if run.reason and run.status != "violations"),
        rows=max((run.rows for run in here), default=0),
        favourable=_spelled(favourable),
        sentence=_sentence(found),
        attributes=attributes,
        attribute=attribute,
        against=told[0].reference if told else "",
        groups=groups,
        gaps=tuple(told),
        silent=tuple(one for one in gaps if one.value is None),
        figures=_figures(found, attribute),
        notes=tuple(dict.fromkeys(notes)),
        differences=_dots("differences", "Differences between groups", told, ratio=False),
        ratios=_dots("ratios", "How often a group is favoured, as a ratio", told, ratio=True),
        over_time=_over_time(results, shown, attribute),
    )


def gap(one: Document) -> Gap:
    """Return a result about a group as the page shows it."""
    metric = discovery.bias_metrics().get(str(one["metric"]))
    judged = bool(one.get("decides", True) and one.get("verdict") is not None)
    interval = one.get("interval") or (None, None)
    return Gap(
        group=str(one.get("group", "")),
        reference=str(one.get("reference_group", "")),
        metric=str(one["metric"]),
        title=metric.title if metric is not None else str(one["metric"]),
        meaning=metric.meaning if metric is not None else "",
        standing=standing_of(one.get("verdict")) if judged else Standing.OK,
        judged=judged,
        value=one.get("value"),
        low=interval[0],
        high=interval[1],
        baseline_value=one.get("baseline_value"),
        unit=str(one.get("unit", "")),
        p_value=one.get("p_value"),
        n=int(one.get("n_window", 0)),
        reason=str(one.get("reason", "")),
        note=str(one.get("note", "")),
    )


def worst_gap(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the largest judged gap of a run in a few words, "" where none was measured."""
    judged = [one for one in results if one.get("decides") and one.get("value") is not None and one.get("group")]
    if not judged:
        return ""
    one = max(judged, key=lambda each: (each.get("verdict") == "violated", _size(each)))
    return f"{one['metric']} {formats.number(one['value'])} ({one['attribute']}: {one['group']})"


def _size(one: Document) -> float:
    value = float(one["value"])
    return abs(value - 1.0) if one.get("direction") == "distance_from_one" else abs(value)


def _worst(found: Sequence[Document]) -> str:
    judged = [one for one in found if one.get("decides") and one.get("value") is not None and one.get("attribute")]
    if not judged:
        return ""
    one = max(judged, key=lambda each: (each.get("verdict") == "violated", _size(each)))
    return str(one["attribute"])


def _sentence(found: Sequence[Document]) -> str:
    judged = [one for one in found if one.get("decides", True) and one.get("verdict") is not None]
    bad = [one for one in judged if one["verdict"] == "violated"]
    silent = sum(one["verdict"] == "not_measured" for one in judged)
    missing = f" {formats.plural(silent, 'comparison')} not measured." if silent else ""
    measured = len(judged) - silent
    if bad:
        names = formats.listed([f"{one.get('attribute')} {one.get('group')} ({one['metric']})" for one in bad], 4)
        return f"{len(bad)} of {formats.plural(measured, 'comparison')} beyond what is accepted: {names}.{missing}"
    if measured:
        return f"No group of {formats.plural(measured, 'comparison')} fares differently than accepted.{missing}"
    return "Nothing was judged in this window." + missing


def _groups(found: Sequence[Document], attribute: str, told: set[str]) -> tuple[Group, ...]:
    mine = [one for one in found if one.get("attribute") == attribute]
    rates: dict[str, list[tuple[str, float]]] = {}
    for one in mine:
        alone = one.get("group") and not one.get("reference_group")
        if alone and one["metric"] != SHARE and one.get("value") is not None:
            rates.setdefault(str(one["group"]), []).append((str(one["metric"]), float(one["value"])))
    return tuple(
        Group(
            name=str(one["group"]),
            n=int(one["n_window"]),
            share=float(one["value"]),
            told=str(one["group"]) in told or str(one["group"]) in rates,
            rates=tuple(rates.get(str(one["group"]), ())),
        )
        for one in mine
        if one["metric"] == SHARE
    )


def _figures(found: Sequence[Document], attribute: str) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=str(one["metric"]),
            value=one.get("value"),
            n=int(one.get("n_window", 0)),
            reason=str(one.get("reason", "")),
            note=str(one.get("note", "")),
        )
        for one in found
        if one.get("attribute") in (attribute, None) and not one.get("group") and one["metric"] != "bias"
    )


def _dots(identity: str, title: str, gaps: Sequence[Gap], *, ratio: bool) -> charts.Chart | None:
    metrics = discovery.bias_metrics()
    bounded = [
        one for one in gaps if (one.unit == RATIO) is ratio and (ratio or max(map(abs, metrics[one.metric].range)) <= 2)
    ]
    return dots(identity, title, bounded, ratio=ratio) if bounded else None


def _over_time(
    results: Mapping[Key, Sequence[Document]], windows: Sequence[Key], attribute: str
) -> tuple[charts.Chart, ...]:
    """Return the judged metrics of each group over the windows, at most six."""
    lines: dict[tuple[str, str], list[charts.Point]] = {}
    for window in windows:
        for one in results[window]:
            if one.get("attribute") != attribute or not one.get("group") or not one.get("reference_group"):
                continue
            if not (one.get("decides") and one.get("verdict") is not None):
                continue
            lines.setdefault((str(one["metric"]), str(one["group"])), []).append(
                charts.Point(
                    start=window[0],
                    end=window[1],
                    value=one.get("value"),
                    limit=one.get("baseline_value"),
                    standing=standing_of(one["verdict"]),
                    n=int(one.get("n_window", 0)),
                    reason=str(one.get("reason", "")),
                )
            )
    return tuple(
        charts.series(f"over-{place}", f"{metric} of {group}", "", points, limit="baseline")
        for place, ((metric, group), points) in enumerate(list(lines.items())[:6])
    )


def _spelled(favourable: object) -> str:
    if isinstance(favourable, Mapping):
        return ", ".join(f"{side} {bound:g}" for side, bound in favourable.items())
    return "" if favourable is None else str(favourable)


def _empty(at: ModelVisit, watching: Sequence[object], shown: Sequence[Key]) -> Empty | None:
    if shown:
        return None
    if watching:
        return at.empty() or Empty(title="No window in this range", text="Choose a wider range, or “All”.")
    base = f"{at.visit.parts.settings.public_url.rstrip('/')}/v1/models/{at.model.name}"
    return Empty(
        title="Fairness is not watched",
        text="Say which outcome is good for the person and which attributes are protected, then make a bias monitor. "
        "The attributes are kept apart from features and are only counted by group.",
        commands=(
            commands.post("Watch it every day", f"{base}/monitors", {"name": "bias", "kind": "bias"}),
            commands.post(
                "Send protected attributes", f"{base}/protected", {"prediction_id": "a-1", "protected": {"sex": "F"}}
            ),
        ),
    )
