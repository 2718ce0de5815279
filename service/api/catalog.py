"""The catalogue: what the installed packages contain, read off the code and listed nowhere else."""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from math import isinf
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from catalogue.discovery import Refused
from explainers import discovery as found
from explainers.contract import Artifact, Endpoint, Method
from monitors import discovery
from monitors.contract import BiasMetric, BinnedStatistic, Kind, Metric, RowStatistic
from service import webhooks
from service.api.depends import Reader, listed
from service.api.monitors import MonitorBody
from service.webhook_kinds import discovery as discovered
from service.webhook_kinds.contract import WebhookKind

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])

CALL: Mapping[str, Any] = {
    "type": "object",
    "required": ["type", "timestamp", "version", "sequence", "data"],
    "properties": {
        "type": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "version": {"const": 1},
        "sequence": {"type": "integer"},
        "data": {"type": "object"},
    },
}
"""What every event carries, and what a signed call is."""


def _told(thing: object) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _kind(name: str, kind: Kind) -> dict[str, Any]:
    return {
        "name": name,
        "title": kind.title,
        "description": _told(type(kind)),
        "parameters": kind.parameters.model_json_schema(by_alias=True),
        "needs_labels": kind.needs_labels,
        "default": kind.default,
        "source": kind.source,
        "by": discovery.by(name) or None,
        "example": MonitorBody.model_validate({"name": name, "kind": name}).model_dump(exclude_defaults=True),
    }


def _options(thing: BinnedStatistic | RowStatistic | Metric | BiasMetric) -> dict[str, Any]:
    options = {
        field.name: {**TypeAdapter(type(field.default)).json_schema(), "default": field.default}
        for field in dataclasses.fields(thing)
        if field.default is not dataclasses.MISSING
    }
    return {"type": "object", "properties": options, "additionalProperties": False}


def _statistic(name: str, statistic: BinnedStatistic) -> dict[str, Any]:
    return {
        "name": name,
        "description": _told(type(statistic)),
        "unit": statistic.unit,
        "unchanged": statistic.unchanged,
        "direction": statistic.direction.value,
        "types": sorted(kind.value for kind in statistic.types),
        "ordered": statistic.ordered,
        "parameters": _options(statistic),
        "source": statistic.source,
        "by": discovery.by(name) or None,
        "example": {"policy": {"threshold": {name: 0.2}}, "parameters": {"also": [name]}},
    }


def _row_statistic(name: str, statistic: RowStatistic) -> dict[str, Any]:
    return {
        "name": name,
        "description": _told(type(statistic)),
        "unit": statistic.unit,
        "direction": statistic.direction.value,
        "types": sorted(kind.value for kind in statistic.types),
        "threshold": statistic.threshold,
        "rows": statistic.most_rows,
        "parameters": _options(statistic),
        "source": statistic.source,
        "by": discovery.by(name) or None,
        "example": {"policy": {"threshold": {name: statistic.threshold}}, "parameters": {"also": [name]}},
    }


def _metric(name: str, metric: Metric) -> dict[str, Any]:
    least, most = (None if isinf(end) else end for end in metric.range)
    return {
        "name": name,
        "title": metric.title,
        "description": _told(type(metric)),
        "unit": metric.unit,
        "direction": metric.direction.value,
        "range": [least, most],
        "tasks": sorted(metric.tasks),
        "decides": sorted(metric.decides),
        "needs_scores": metric.needs_scores,
        "needs_labels": True,
        "parameters": _options(metric),
        "source": metric.source,
        "by": discovery.by(name) or None,
        "example": {"policy": {"threshold": {name: 0.5}}},
    }


def _bias(name: str, metric: BiasMetric) -> dict[str, Any]:
    least, most = (None if isinf(end) else end for end in metric.range)
    return {
        "name": name,
        "title": metric.title,
        "description": _told(type(metric)),
        "meaning": metric.meaning,
        "stage": metric.stage.value,
        "unit": metric.unit,
        "unchanged": metric.neutral,
        "direction": metric.direction.value,
        "range": [least, most],
        "needs": sorted(metric.needs),
        "needs_labels": metric.needs_labels,
        "parameters": _options(metric),
        "source": metric.source,
        "by": discovery.by(name) or None,
        "example": {"kind": "bias", "parameters": {"also": [name]}},
    }


def _refused(plug_ins: Iterable[Refused]) -> dict[str, object]:
    return {"refused": [{"entry_point": one.entry_point, "by": one.by, "reason": one.reason} for one in plug_ins]}


def _of(group: str) -> Iterator[Refused]:
    return (one for one in discovery.refused() if one.group == group)


def _webhook(name: str, kind: WebhookKind) -> dict[str, Any]:
    return {
        "name": name,
        "description": _told(type(kind)),
        "options": kind.options.model_json_schema(),
        "credentials": kind.credentials.model_json_schema(),
        "signed": kind.signed,
        "body": CALL if kind.signed else None,
        "source": kind.source,
        "by": discovered.by(name) or None,
        "example": {"name": name, "kind": name, **kind.example},
    }


def _explainer(what: str, thing: Method | Artifact | Endpoint, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": thing.name,
        "what": what,
        "title": thing.title,
        "description": _told(type(thing)),
        **({"parameters": options, "additive": thing.additive} if isinstance(thing, Method) else {}),
        "source": thing.source,
        "by": found.by(thing) or None,
        "example": {"method": thing.name} if what == "method" else {what: thing.name},
    }


@router.get("/monitors", operation_id="catalog_monitors", summary="What can be watched")
def monitors(principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """List the kinds of monitors, plug-ins included; `refused` are those that cannot be used, and why."""
    return listed([_kind(name, kind) for name, kind in discovery.kinds().items()], None) | _refused(
        _of(discovery.MONITORS)
    )


@router.get("/metrics", operation_id="catalog_metrics", summary="What can be measured")
def metrics(principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """List the statistics of columns and the metrics against ground truth; `refused` cannot be used, and why."""
    found = {name: _statistic(name, statistic) for name, statistic in discovery.statistics().items()}
    found |= {name: _row_statistic(name, statistic) for name, statistic in discovery.row_statistics().items()}
    found |= {name: _metric(name, metric) for name, metric in discovery.metrics().items()}
    found |= {name: _bias(name, metric) for name, metric in discovery.bias_metrics().items()}
    return listed([entry for _, entry in sorted(found.items())], None) | _refused(_of(discovery.METRICS))


@router.get("/explainers", operation_id="catalog_explainers", summary="How predictions can be explained")
def explainers(principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """List methods, formats of model files and protocols of endpoints, with plug-ins; `refused`: which not, and why."""
    items = listed(
        [
            *(_explainer("method", each, each.options.model_json_schema()) for each in found.methods().values()),
            *(_explainer("artifact", each, {}) for each in found.artifacts().values()),
            *(_explainer("endpoint", each, {}) for each in found.endpoints().values()),
        ],
        None,
    )
    return items | _refused(found.refused())


@router.get("/webhooks", operation_id="catalog_webhooks", summary="Where events can be delivered")
def webhook_kinds(principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """List the kinds of webhooks, plug-ins included; `refused` are those that cannot be used, and why."""
    items = [_webhook(name, kind) for name, kind in discovered.kinds().items()]
    return listed(items, None) | _refused(discovered.refused())


@router.get("/events", operation_id="catalog_events", summary="What can be told")
def events(principal: Reader) -> dict[str, object]:  # noqa: ARG001 - the scope is declared by it
    """List the events that webhooks can ask for."""
    return listed(
        [
            {
                "name": name,
                "description": description,
                "body": {**CALL, "properties": {**CALL["properties"], "type": {"const": name}}},
            }
            for name, description in webhooks.EVENTS.items()
        ],
        None,
    )
