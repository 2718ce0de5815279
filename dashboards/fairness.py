"""The fairness page: how differently groups fare, by every metric, and since when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from dashboards import formats
from dashboards.charts import Chart, specification
from dashboards.drift import WindowChoice
from dashboards.model import ModelPage
from dashboards.standing import Standing

FOUR_FIFTHS = (0.8, 1.25)
RATIO = "ratio"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One metric of one group against a reference or the rest, or the reason why it is not told."""

    group: str
    reference: str
    metric: str
    title: str
    meaning: str
    standing: Standing
    judged: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    baseline_value: float | None = None
    unit: str = ""
    p_value: float | None = None
    n: int = 0
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of an attribute: how many rows it has, and whether anything else is told of it."""

    name: str
    n: int
    share: float
    told: bool
    rates: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of the whole attribute: fairlearn's differences and ratios."""

    name: str
    value: float | None
    n: int
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class FairnessPage(ModelPage):
    """Each group of an attribute by every metric, with intervals, and the judged ones window by window."""

    template: ClassVar[str] = "fairness.html"
    monitors: tuple[str, ...]
    monitor: str
    windows: tuple[WindowChoice, ...]
    window_start: datetime | None
    window_end: datetime | None
    run_standing: Standing
    run_reason: str
    rows: int
    favourable: str
    sentence: str
    attributes: tuple[str, ...]
    attribute: str
    against: str
    groups: tuple[Group, ...]
    gaps: tuple[Gap, ...]
    """The metrics with a value, those that are judged first."""
    silent: tuple[Gap, ...]
    """The metrics that are withheld or not defined."""
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]
    differences: Chart | None
    ratios: Chart | None
    over_time: tuple[Chart, ...]


def dots(identity: str, title: str, gaps: Sequence[Gap], *, ratio: bool) -> Chart:
    """Return each metric by group, its interval as a line, the value of equal treatment as a dashed one.

    Ratios have a logarithmic axis and a band from four fifths to five quarters.
    """
    neutral = 1.0 if ratio else 0.0
    band = " The band is the four-fifths rule, 0.8 to 1.25." if ratio else ""
    description = f"A dot for each group, its 95 % interval a line; at {neutral:g} both are treated alike.{band}"
    kept = [gap for gap in gaps if gap.value is not None and (not ratio or gap.value > 0)]
    values = [
        {
            "metric": gap.metric,
            "group": gap.group,
            "value": gap.value,
            "low": gap.low if not ratio or (gap.low or 0) > 0 else None,
            "high": gap.high,
            "end": gap.high if gap.high is not None else gap.value,
            "shown": formats.number(gap.value),
            "interval": f"{formats.number(gap.low)} to {formats.number(gap.high)}",
            "rows": formats.number(gap.n),
            "state": gap.standing.value if gap.judged else "shown",
        }
        for gap in kept
    ]
    groups = list(dict.fromkeys(gap.group for gap in kept))
    metrics = list(dict.fromkeys(gap.metric for gap in kept))
    scale: dict[str, Any] = {"type": "log", "nice": False} if ratio else {"zero": True}
    x = {"type": "quantitative", "title": "times as often" if ratio else "difference", "scale": scale}
    y: dict[str, Any] = {
        "field": "metric",
        "type": "nominal",
        "scale": {"domain": metrics},
        "title": None,
        "axis": {"ticks": False, "domain": False, "labelPadding": 8},
    }
    offset = {"field": "group", "type": "nominal", "scale": {"domain": groups}}
    tooltip = [
        {"field": name, "type": "nominal", "title": heading}
        for name, heading in (
            ("metric", "metric"),
            ("group", "group"),
            ("shown", "value"),
            ("interval", "95 % interval"),
            ("rows", "rows"),
        )
    ]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": [{"at": neutral}]},
            "mark": {"type": "rule", "color": "var(--limit)", "strokeDash": [5, 4], "aria": False},
            "encoding": {"x": {**x, "field": "at"}, "y": {"value": 0}, "y2": {"value": "height"}},
        },
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "color": "var(--series)", "strokeWidth": 2, "aria": False},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "yOffset": offset},
        },
        {
            "mark": {"type": "point", "filled": True, "opacity": 1, "size": 60},
            "encoding": {
                "x": {**x, "field": "value"},
                "y": y,
                "yOffset": offset,
                "shape": {
                    "condition": {"test": "datum.state === 'violated'", "value": "triangle-up"},
                    "value": "circle",
                },
                "color": {
                    "condition": {"test": "datum.state === 'violated'", "value": "var(--bad)"},
                    "value": "var(--series)",
                },
                "tooltip": tooltip,
            },
        },
    ]
    layers.append(
        {
            "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, "color": "var(--ink)", "aria": False},
            "encoding": {"x": {**x, "field": "end"}, "y": y, "yOffset": offset, "text": {"field": "group"}},
        }
    )
    if ratio:
        low, high = FOUR_FIFTHS
        layers.insert(
            0,
            {
                "data": {"values": [{"low": low, "high": high}]},
                "mark": {"type": "rect", "color": "var(--good)", "opacity": 0.14, "aria": False},
                "encoding": {
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    "y": {"value": 0},
                    "y2": {"value": "height"},
                },
            },
        )
    step = max(16 * len(groups) + 8, 26)
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(
            {"data": {"values": values}, "layer": layers}, description, {"step": step, "for": "position"}
        ),
        height=step * len(metrics) + 56,
        columns=("Metric", "Group", "Value", "From", "To", "Rows"),
        rows=tuple((gap.metric, gap.group, gap.value, gap.low, gap.high, gap.n) for gap in kept),
    )
