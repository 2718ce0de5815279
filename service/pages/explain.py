"""The explain page of a model, and the sheet of an explanation, from the database."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dashboards import charts, formats
from dashboards.explanation import (
    Contribution,
    ExplainedText,
    ExplainPage,
    Importance,
    LocalExplanation,
    SheetPage,
    TextPart,
)
from dashboards.standing import Standing, standing_of
from service.access import Scope
from service.api.explanations import ExplainBody, asked_of
from service.explanations import artifact_of, last_global, shown
from service.pages.visit import ModelVisit, Visit
from service.problems import NotFound, Problem
from service.runs import decode_results
from service.tables import ModelRow, RunRow
from service.words import Span, parse_time, text_of

WINDOWS = 90
BARS = 20


def build(visit: Visit, name: str) -> ExplainPage:
    """Return what the last judged window's predictions rested on, and one prediction explained where one is named."""
    at = ModelVisit.to(visit, name)
    _preset, start, end = at.range
    watching = [monitor for monitor in at.monitors if monitor.kind == "attribution_drift"]
    chosen = watching[:1]
    runs = at.runs(chosen, WINDOWS, documents=True)
    told = [(run, decode_results(run.document)) for run in runs]
    last = next(((run, results) for run, results in reversed(told) if _importances(results)), None)
    importances = () if last is None else _importances(last[1])
    window = None if last is None else Span(last[0].starts_at, last[0].ends_at)
    if not watching and at.version is not None and (asked := last_global(at.session, at.version.id)):
        importances = _of_document(asked)
        window = Span(*(parse_time(asked["window"][edge]) for edge in ("from", "to")))
    refusal, explained = "", None
    may_ask = visit.principal.may(Scope.ROWS)
    if visit.view.q and may_ask:
        try:
            explained = _explained(visit, at, visit.view.q)
        except Problem as problem:
            refusal = problem.detail or problem.title
    return ExplainPage(
        frame=visit.frame(at.model.name),
        title=f"{at.model.name} · explanations",
        banners=at.banners(),
        head=at.head(),
        view=at.view,
        section="explain",
        start=start,
        end=end,
        empty=None,
        artifact=_artifact(at),
        monitor=chosen[0].name if chosen else "",
        window_start=None if window is None else window.start,
        window_end=None if window is None else window.end,
        run_standing=Standing.WAITING if last is None else standing_of(last[0].status),
        sentence=_sentence(bool(chosen), last),
        importances=importances,
        bars=charts.importances([(one.feature, one.baseline, one.window) for one in importances[:BARS]])
        if importances
        else None,
        ranks=_series("ranks", "Order of the importances (NDCG)", "ndcg", told, below=True),
        shifts=_series("shifts", "Importance that moved between inputs", "attribution_shift", told, below=False),
        may_ask=may_ask,
        asked=visit.view.q,
        refusal=refusal,
        explained=explained,
    )


def sheet(visit: Visit, uid: str) -> SheetPage:
    """Return an explanation of predictions as a page to print."""
    explanations = visit.parts.explanations
    found = explanations.read(visit.session, uid) if re.fullmatch(r"[0-9a-f]{32}", uid) else None
    model = None if found is None else visit.session.get(ModelRow, found[0].model_id)
    if found is None or model is None or not visit.principal.sees(model.name) or found[1]["kind"] != "local":
        raise NotFound(f"there is no explanation {uid!r} of predictions")
    told = found[1]
    address = visit.links.to(f"/v1/explanations/{uid}")
    favourable = told.get("favourable_outcome")
    return SheetPage(
        frame=visit.frame(model.name),
        title=f"Explanation of {formats.plural(len(told['items']), 'prediction')}",
        uid=uid,
        model=model.name,
        version=told["version"],
        created_at=formats.moment(parse_time(told["created_at"])),
        kept=bool(told["kept"]),
        favourable="" if favourable is None else _words(favourable),
        items=tuple(_local(item) for item in told["items"]),
        software=tuple(f"{name} {number}" for name, number in told["software"].items()),
        json_address=f"{address}?format=json",
        csv_address=f"{address}?format=csv",
    )


def _explained(visit: Visit, at: ModelVisit, prediction_id: str) -> LocalExplanation:
    version = at.version.name if at.version is not None else None
    body = ExplainBody(prediction_ids=[prediction_id], version=version)
    asked = asked_of(visit.parts, visit.principal, at.model.name, body)
    told = visit.parts.explanations.explain(asked)
    return _local(told["items"][0])


def _local(item: Mapping[str, Any]) -> LocalExplanation:
    features = item.get("features") or {}
    errors = item["error"] or {}
    ranked = sorted(item["attributions"].items(), key=lambda pair: (-abs(pair[1] or 0.0), pair[0]))
    background = item["background"]
    prediction = item["prediction"]
    return LocalExplanation(
        prediction_id=item["prediction_id"] or "",
        version=item["version"],
        method=item["method"],
        why=item["why"],
        exact=item["exact"],
        output=item["output"] or "",
        class_="" if item["class"] is None else text_of(item["class"]),
        base_value=item["base_value"],
        prediction=formats.number(prediction) if isinstance(prediction, int | float) else text_of(prediction or "—"),
        artifact_digest=item["artifact_digest"] or "",
        background=_background(background),
        seed=item["seed"],
        contributions=tuple(
            Contribution(
                feature=name,
                value=shown(features[name]) if features.get(name) is not None else "—",
                attribution=float(value or 0.0),
                error=errors.get(name),
            )
            for name, value in ranked
        ),
        note=item.get("note") or "",
        texts=tuple(
            _text(name, text_of(features.get(name) or ""), parts) for name, parts in (item.get("tokens") or {}).items()
        ),
        reasons=tuple(reason["sentence"] for reason in item["reasons"]),
    )


def _background(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return ""
    return f"{told['rows']} rows of baseline {told['baseline']}" if "baseline" in told else f"against {told['note']}"


def _text(name: str, text: str, parts: Sequence[Mapping[str, Any]]) -> ExplainedText:
    most = max((abs(part["attribution"]) for part in parts), default=0.0) or 1.0
    ends = [part["start"] for part in parts[1:]] + [len(text)]
    told = tuple(
        TextPart(
            text=part["text"],
            gap=text[part["end"] : end],
            attribution=part["attribution"],
            error=part["error"],
            step=round(4 * part["attribution"] / most),
        )
        for part, end in zip(parts, ends, strict=True)
    )
    strongest = sorted((part for part in told if part.attribution), key=lambda part: -abs(part.attribution))[:BARS]
    return ExplainedText(feature=name, parts=told, strongest=tuple(strongest))


def _importances(results: Sequence[Mapping[str, Any]]) -> tuple[Importance, ...]:
    found = [one for one in results if one["metric"] == "attribution_importance" and one.get("value") is not None]
    return _shared([(one["feature"], one["value"], one.get("baseline_value")) for one in found])


def _of_document(told: Mapping[str, Any]) -> tuple[Importance, ...]:
    return _shared([(one["feature"], one["importance"], one.get("baseline_importance")) for one in told["features"]])


def _shared(found: Sequence[tuple[str, float, float | None]]) -> tuple[Importance, ...]:
    """Return importances of a window and its baseline with their shares of all, the greatest first."""
    now, then = sum(window for _, window, _ in found), sum(before or 0.0 for _, _, before in found)
    return tuple(
        Importance(
            feature=feature,
            window=window,
            baseline=before,
            window_share=window / now if now else None,
            baseline_share=(before or 0.0) / then if then else None,
        )
        for feature, window, before in sorted(found, key=lambda one: (-one[1], one[0]))
    )


def _series(
    identity: str, title: str, metric: str, told: Sequence[tuple[RunRow, Sequence[Mapping[str, Any]]]], *, below: bool
) -> charts.Chart | None:
    points = []
    for run, results in told:
        one = next((each for each in results if each["metric"] == metric), None)
        if one is None:
            continue
        points.append(
            charts.Point(
                start=run.starts_at,
                end=run.ends_at,
                value=one.get("value"),
                limit=one.get("threshold"),
                standing=standing_of(one.get("verdict")),
                n=int(one.get("n_window", 0)),
                reason=str(one.get("reason", "")),
            )
        )
    return charts.series(identity, title, "", points, below=below) if points else None


def _sentence(watched: bool, last: tuple[RunRow, Sequence[Mapping[str, Any]]] | None) -> str:
    if not watched:
        return "Attribution drift is not watched: make a monitor of the kind attribution_drift."
    if last is None:
        return "No window in this range has attributions yet."
    bad = [one for one in last[1] if one.get("verdict") == "violated"]
    if bad:
        return "What the predictions rest on has changed since the baseline."
    return "The predictions rest on the same inputs as in the baseline."


def _artifact(at: ModelVisit) -> str:
    row = None if at.version is None else artifact_of(at.session, at.version.id)
    if row is None:
        return "no artifact: attributions that were posted with predictions are shown"
    if row.endpoint is not None:
        return f"explained by asking its endpoint ({row.endpoint['protocol']})"
    return f"explained with its {row.kind} file, {row.digest[:12]}"


def _words(favourable: Any) -> str:
    if isinstance(favourable, Mapping):
        return " ".join(f"{name} {value}" for name, value in favourable.items())
    return text_of(favourable)
