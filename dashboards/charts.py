"""Charts as data: Vega-Lite specifications, each with a title, a sentence and the numbers it draws.

Colours are written ``var(--name)``: the browser puts in the theme's colour before it draws, so that one specification
serves light, dark and print. Names that users chose stand in data, domains and the description of the whole only: Vega
makes expressions of everything else, the titles of axes and tooltips included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dashboards import formats
from dashboards.standing import Standing

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
MARKS = 5_000
Cell = str | int | float | datetime | None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A specification with what a reader needs who cannot see it: title, sentence, table."""

    id: str
    title: str
    description: str
    spec: dict[str, Any]
    height: int
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        """Refuse a chart of more marks than a browser draws at once."""
        if len(self.rows) > MARKS:
            raise ValueError(f"chart {self.id} has {len(self.rows)} rows, at most {MARKS}")


def specification(chart: dict[str, Any], description: str, height: Any) -> dict[str, Any]:
    """Return a specification as wide as what surrounds it."""
    return {
        "$schema": SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
    } | chart


LABELS = 11
"""How many windows are named along an axis."""


def _windows_axis(starts: Sequence[datetime], length: timedelta | None, padding: float) -> dict[str, Any]:
    """Return the horizontal axis of windows: every so manieth is named by the day, hour or month it begins."""
    form, title = "%d %b", "Window begins (UTC)"
    if length is not None and length < timedelta(days=1):
        form = "%d %b %H:%M"
    elif length is not None and length > timedelta(days=27):
        form, title = "%b %Y", "Month (UTC)"
    known = sorted({formats.iso(start) for start in starts})
    return {
        "field": "start",
        "type": "ordinal",
        "title": title,
        "scale": {"paddingInner": padding},
        "axis": {
            "values": known[:: max(1, -(-len(known) // LABELS))],
            "labelExpr": f"utcFormat(toDate(datum.value), '{form}')",
            "labelOverlap": True,
            "labelAngle": 0,
            "ticks": False,
            "domain": False,
            "labelPadding": 8,
        },
    }


# --- the heatmap ------------------------------------------------------------------------------------------------------

ROW = 24
STEPS = (0.5, 1.0, 2.0, 4.0)
"""Where the colours of the heatmap change: the effect as a multiple of the smallest that counts."""


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One column in one window: its effect as a multiple of the smallest that counts, or why there is none."""

    row: str
    start: datetime
    end: datetime
    strength: float | None
    standing: Standing
    metric: str = ""
    value: float | None = None
    p_value: float | None = None
    n: int = 0
    reason: str = ""
    href: str = ""


def heatmap(cells: Sequence[HeatCell], rows: Sequence[str], length: timedelta | None) -> Chart:
    """Return the heatmap: colour for how far, a triangle for violated, a dot for not measured."""
    windows = len({cell.start for cell in cells})
    values = [
        {
            "column": cell.row,
            "start": formats.iso(cell.start),
            "window": formats.span(cell.start, cell.end),
            "strength": cell.strength,
            "times": "not measured" if cell.strength is None else f"{formats.number(cell.strength, 3)} ×",
            "statistic": f"{cell.metric} {formats.number(cell.value)}" if cell.value is not None else cell.reason,
            "p": formats.probability(cell.p_value),
            "rows": formats.number(cell.n),
            "verdict": cell.standing.words,
            "state": cell.standing.value,
            "href": cell.href,
        }
        for cell in cells
    ]
    description = (
        f"{formats.plural(len(rows), 'column')} by {formats.plural(windows, 'window')}: the effect as a multiple of "
        "the smallest that counts. The warmer the colour the further; a triangle marks a violated verdict, a dot a "
        "cell that was not measured."
    )
    tooltip = [
        {"field": name, "type": "nominal", "title": heading}
        for name, heading in (
            ("column", "column"),
            ("window", "window"),
            ("verdict", "verdict"),
            ("statistic", "statistic"),
            ("times", "of smallest that counts"),
            ("p", "p-value"),
            ("rows", "rows"),
        )
    ]
    glyph = {"type": "text", "aria": False, "tooltip": False}
    spec = {
        "data": {"values": values},
        "encoding": {
            "x": _windows_axis([cell.start for cell in cells], length, 0.06),
            "y": {
                "field": "column",
                "type": "nominal",
                "title": None,
                "sort": None,
                "scale": {"domain": list(rows), "paddingInner": 0.08},
                "axis": {"labelLimit": 190, "ticks": False, "domain": False, "labelPadding": 10, "labelFontSize": 12},
            },
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 2, "cursor": "pointer", "invalid": "show"},
                "encoding": {
                    "color": {
                        "condition": {"test": "datum.strength === null", "value": "var(--heat-none)"},
                        "field": "strength",
                        "type": "quantitative",
                        "legend": None,
                        "scale": {
                            "type": "threshold",
                            "domain": list(STEPS),
                            "range": [f"var(--heat-{i})" for i in range(5)],
                        },
                    },
                    "tooltip": tooltip,
                    "description": {"field": "verdict", "type": "nominal"},
                },
            },
            {
                "transform": [{"filter": "datum.state === 'violated'"}],
                "mark": glyph | {"text": "▲", "fontSize": 10, "color": "var(--heat-mark)"},
            },
            {
                "transform": [{"filter": "datum.strength === null"}],
                "mark": glyph | {"text": "·", "fontSize": 16, "color": "var(--ink-2)"},
            },
        ],
    }
    return Chart(
        id="heatmap",
        title="How far each column has moved, window by window",
        description=description,
        spec=specification(spec, description, {"step": ROW}),
        height=ROW * len(rows) + 48,
        columns=(
            "Column",
            "Window",
            "Verdict",
            "Effect ÷ smallest that counts",
            "Statistic",
            "Value",
            "p-value",
            "Rows",
        ),
        rows=tuple(
            (
                cell.row,
                formats.span(cell.start, cell.end),
                cell.standing.words,
                cell.strength if cell.strength is not None else formats.DASH,
                cell.metric,
                cell.value if cell.value is not None else cell.reason or formats.DASH,
                formats.probability(cell.p_value),
                cell.n,
            )
            for cell in cells
        ),
    )


# --- one column -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A bin of a number and its share of the baseline's and of the window's rows."""

    low: float
    high: float
    baseline: float
    window: float


def overlay(column: str, bins: Sequence[Bin], baseline: str, window: str) -> Chart:
    """Return the distribution of a number: the baseline as a filled shape, the window as a line over it."""
    description = f"Share of rows in each bin of {column}: {baseline} filled, {window} as a line."
    values = [
        {
            "low": one.low,
            "high": one.high,
            "baseline": one.baseline,
            "window": one.window,
            "bin": f"{formats.number(one.low)} to {formats.number(one.high)}",
        }
        for one in bins
    ]
    closed = [*values, values[-1] | {"low": bins[-1].high}] if values else []
    x = {
        "field": "low",
        "type": "quantitative",
        "title": "value",
        "scale": {"zero": False, "nice": False},
        "axis": {"grid": False, "labelOverlap": True},
    }
    spec = {
        "data": {"values": closed},
        "encoding": {"x": x},
        "layer": [
            {
                "mark": {
                    "type": "area",
                    "interpolate": "step-after",
                    "color": "var(--baseline)",
                    "opacity": 0.5,
                    "aria": False,
                },
                "encoding": {
                    "y": {
                        "field": "baseline",
                        "type": "quantitative",
                        "title": "share of rows",
                        "axis": {"format": "%", "tickCount": 5},
                    }
                },
            },
            {
                "mark": {
                    "type": "area",
                    "interpolate": "step-after",
                    "color": "var(--series)",
                    "opacity": 0.12,
                    "aria": False,
                },
                "encoding": {"y": {"field": "window", "type": "quantitative"}},
            },
            {
                "mark": {
                    "type": "line",
                    "interpolate": "step-after",
                    "color": "var(--series)",
                    "strokeWidth": 2,
                    "aria": False,
                },
                "encoding": {"y": {"field": "window", "type": "quantitative"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "rect", "opacity": 0},
                "encoding": {
                    "x2": {"field": "high"},
                    "tooltip": [
                        {"field": "bin", "title": "values"},
                        {"field": "baseline", "type": "quantitative", "format": ".3%", "title": "baseline"},
                        {"field": "window", "type": "quantitative", "format": ".3%", "title": "window"},
                    ],
                },
            },
        ],
    }
    return Chart(
        id="overlay",
        title=f"Distribution of {column}",
        description=description,
        spec=specification(spec, description, 232),
        height=280,
        columns=("From", "To", "Baseline", "Window"),
        rows=tuple((one.low, one.high, formats.percent(one.baseline), formats.percent(one.window)) for one in bins),
    )


@dataclass(frozen=True, kw_only=True)
class CategoryShare:
    """A category and its share of the baseline's and of the window's rows; none where the baseline never had it."""

    name: str
    baseline: float
    window: float
    new: bool = False


def categories(column: str, shares: Sequence[CategoryShare], baseline: str, window: str) -> Chart:
    """Return the shares of a column's categories: a filled bar for the baseline, a thin one for the window."""
    description = f"Share of rows per category of {column}: {baseline} as the wide bar, {window} as the narrow one."
    values = [
        {
            "category": one.name,
            "baseline": one.baseline,
            "window": one.window,
            "change": formats.percent(one.window - one.baseline),
        }
        for one in shares
    ]
    tooltip = [
        {"field": "category", "title": "category"},
        {"field": "baseline", "type": "quantitative", "format": ".3%"},
        {"field": "window", "type": "quantitative", "format": ".3%"},
        {"field": "change", "title": "change, points"},
    ]
    spec = {
        "data": {"values": values},
        "encoding": {
            "y": {
                "field": "category",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 150, "ticks": False, "domain": False, "labelPadding": 8},
            },
            "tooltip": tooltip,
        },
        "layer": [
            {
                "mark": {
                    "type": "bar",
                    "color": "var(--baseline)",
                    "opacity": 0.5,
                    "height": {"band": 0.86},
                    "cornerRadiusEnd": 2,
                },
                "encoding": {
                    "x": {
                        "field": "baseline",
                        "type": "quantitative",
                        "stack": None,
                        "title": "share of rows",
                        "axis": {"format": "%", "tickCount": 5},
                    }
                },
            },
            {
                "mark": {
                    "type": "bar",
                    "color": "var(--series)",
                    "height": {"band": 0.36},
                    "cornerRadiusEnd": 2,
                    "aria": False,
                },
                "encoding": {"x": {"field": "window", "type": "quantitative", "stack": None}},
            },
        ],
    }
    return Chart(
        id="overlay",
        title=f"Distribution of {column}",
        description=description,
        spec=specification(spec, description, {"step": 26}),
        height=26 * len(shares) + 48,
        columns=("Category", "Baseline", "Window", "Change, points"),
        rows=tuple(
            (
                one.name + (" (new)" if one.new else ""),
                formats.percent(one.baseline),
                formats.percent(one.window),
                formats.percent(one.window - one.baseline),
            )
            for one in shares
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Point:
    """A number of one window, with the limit that held then."""

    start: datetime
    end: datetime
    value: float | None
    limit: float | None = None
    standing: Standing = Standing.OK
    n: int = 0
    reason: str = ""


def series(
    identity: str,
    title: str,
    unit: str,
    points: Sequence[Point],
    *,
    limit: str = "limit",
    logarithmic: bool = False,
    below: bool = False,
) -> Chart:
    """Return one number over the windows, its limit dashed, violated windows as triangles; gaps stay gaps.

    ``below`` says that the number is worse under its limit (a p-value under alpha).
    """
    title = f"{title} ({unit})" if unit else title
    limited = any(one.limit is not None for one in points)
    side = "under" if below else "over"
    drawn = f"the {limit} dashed, worse is {side} it" if limited else "without a limit of its own"
    description = f"One point a window, {drawn}; a triangle where the window was violated."
    floor = 1e-6
    values = [
        {
            "start": formats.iso(one.start),
            "window": formats.span(one.start, one.end),
            "value": None if one.value is None else max(one.value, floor) if logarithmic else one.value,
            "shown": formats.probability(one.value) if logarithmic else formats.number(one.value),
            "limit": one.limit,
            "bound": formats.number(one.limit),
            "state": one.standing.value,
            "verdict": one.standing.words,
            "rows": formats.number(one.n),
        }
        for one in points
    ]
    scale: dict[str, Any] = {"type": "log", "domainMax": 1, "clamp": True} if logarithmic else {"zero": True}
    tooltip = [
        {"field": name, "type": "nominal", "title": heading}
        for name, heading in (
            ("window", "window"),
            ("shown", "value"),
            ("bound", "limit"),
            ("verdict", "verdict"),
            ("rows", "rows"),
        )
    ]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "scale": scale,
        "axis": {"tickCount": 4, "format": "~g"},
    }
    bound = {
        "mark": {
            "type": "line",
            "color": "var(--limit)",
            "strokeDash": [5, 4],
            "strokeWidth": 1.5,
            "interpolate": "step-after",
            "aria": False,
        },
        "encoding": {"y": {"field": "limit", "type": "quantitative"}},
    }
    spec = {
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "start",
                "type": "temporal",
                "scale": {"type": "utc"},
                "title": None,
                "axis": {"grid": False, "labelOverlap": True, "tickCount": 6},
            }
        },
        "layer": [
            *([bound] if limited else []),
            {
                "mark": {
                    "type": "line",
                    "color": "var(--series)",
                    "strokeWidth": 1.75,
                    "invalid": "break-paths-show-domains",
                    "aria": False,
                },
                "encoding": {"y": y},
            },
            _verdicts(y, tooltip),
        ],
    }
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(spec, description, 116),
        height=156,
        columns=("Window", title, limit.capitalize(), "Verdict", "Rows"),
        rows=tuple(
            (
                formats.span(one.start, one.end),
                formats.probability(one.value)
                if logarithmic and one.value is not None
                else one.value
                if one.value is not None
                else one.reason or formats.DASH,
                one.limit,
                one.standing.words,
                one.n,
            )
            for one in points
        ),
    )


# --- the overview -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WindowMark:
    """How one monitor stood in one window."""

    monitor: str
    start: datetime
    end: datetime
    standing: Standing
    rows: int
    violated: int
    measured: int
    reason: str = ""
    href: str = ""


def window_strip(
    marks: Sequence[WindowMark],
    monitors: Sequence[str],
    length: timedelta | None,
    *,
    identity: str = "windows",
    title: str = "Window by window",
    what: str = "monitor",
) -> Chart:
    """Return how each monitor (or column) stood, window by window: colour and shape say the same."""
    description = f"How each {what} stood in each window: a triangle is violated, a ring partly or not measured."
    values = [
        {
            "monitor": mark.monitor,
            "start": formats.iso(mark.start),
            "window": formats.span(mark.start, mark.end),
            "state": mark.standing.value,
            "verdict": mark.standing.words,
            "found": f"{mark.violated} of {mark.measured}",
            "rows": formats.number(mark.rows),
            "reason": mark.reason,
            "href": mark.href,
        }
        for mark in marks
    ]
    states = [standing.value for standing in Standing]
    colours = [f"var(--mark-{state.replace('_', '-')})" for state in states]
    spec = {
        "data": {"values": values},
        "encoding": {
            "x": _windows_axis([mark.start for mark in marks], length, 0.08),
            "y": {
                "field": "monitor",
                "type": "nominal",
                "title": None,
                "sort": None,
                "scale": {"domain": list(monitors), "paddingInner": 0.16},
                "axis": {"labelLimit": 170, "ticks": False, "domain": False, "labelPadding": 10, "labelFontSize": 12},
            },
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 3, "cursor": "pointer"},
                "encoding": {
                    "color": {
                        "field": "state",
                        "type": "nominal",
                        "legend": None,
                        "scale": {"domain": states, "range": colours},
                    },
                    "tooltip": [
                        {"field": name, "title": heading}
                        for name, heading in (
                            ("monitor", what),
                            ("window", "window"),
                            ("verdict", "verdict"),
                            ("found", "violated of measured"),
                            ("rows", "rows"),
                            ("reason", "reason"),
                        )
                    ],
                },
            },
            {
                "transform": [{"filter": "datum.state === 'violated'"}],
                "mark": {"type": "text", "text": "▲", "fontSize": 10, "color": "var(--heat-mark)", "aria": False},
            },
            {
                "transform": [{"filter": "datum.state !== 'violated' && datum.state !== 'ok'"}],
                "mark": {"type": "text", "text": "○", "fontSize": 11, "color": "var(--ink)", "aria": False},
            },
        ],
    }
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(spec, description, {"step": 30}),
        height=30 * len(monitors) + 48,
        columns=(what.capitalize(), "Window", "Verdict", "Violated", "Measured", "Rows", "Reason"),
        rows=tuple(
            (
                mark.monitor,
                formats.span(mark.start, mark.end),
                mark.standing.words,
                mark.violated,
                mark.measured,
                mark.rows,
                mark.reason,
            )
            for mark in marks
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a model, at a time or from one to another; an end of none is still going on."""

    lane: str
    what: str
    start: datetime
    end: datetime | None = None
    standing: Standing = Standing.OK


def event_lane(events: Sequence[Event], start: datetime, end: datetime) -> Chart:
    """Return what happened to the model on one line of time: alerts as bars, baselines and versions as marks."""
    description = "Alerts as bars from first to last violated window, baselines and versions as marks when they began."
    lanes = list(dict.fromkeys(event.lane for event in events))
    values = [
        {
            "lane": event.lane,
            "what": event.what,
            "from": formats.iso(max(event.start, start)),
            "to": formats.iso(min(event.end or end, end)),
            "when": formats.moment(event.start) + (f" to {formats.moment(event.end)}" if event.end else ""),
            "lasting": event.lane == "Alerts",
            "state": event.standing.value,
        }
        for event in events
        if event.start <= end and (event.end or end) >= start
    ]
    x = {
        "field": "from",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": None,
        "axis": {"grid": True, "labelOverlap": True, "tickCount": 8},
    }
    tooltip = [
        {"field": "lane", "title": "what"},
        {"field": "what", "title": "which"},
        {"field": "when", "title": "when (UTC)"},
    ]
    colour = {"condition": {"test": "datum.state === 'violated'", "value": "var(--bad)"}, "value": "var(--baseline)"}
    frame = [
        {
            "data": {"values": [{"from": formats.iso(start)}, {"from": formats.iso(end)}]},
            "mark": {"type": "point", "opacity": 0, "aria": False, "tooltip": None},
            "encoding": {"x": x, "y": {"value": 0}, "tooltip": {"value": None}},
        }
    ]
    bars = [
        {
            "transform": [{"filter": "datum.lasting"}],
            "mark": {"type": "bar", "height": 12, "cornerRadius": 3, "minBandSize": 4},
            "encoding": {"x": x, "x2": {"field": "to"}, "color": colour},
        }
    ]
    diamond = {"type": "point", "shape": "diamond", "filled": True, "size": 90, "opacity": 1, "color": "var(--series)"}
    words = {"type": "text", "align": "left", "dx": 9, "fontSize": 11, "limit": 160, "color": "var(--ink-2)"}
    marks = [
        {"transform": [{"filter": "!datum.lasting"}], "mark": diamond, "encoding": {"x": x}},
        {
            "transform": [{"filter": "!datum.lasting"}],
            "mark": words | {"aria": False},
            "encoding": {"x": x, "text": {"field": "what"}},
        },
    ]
    moments = any(not one["lasting"] for one in values)
    spec = {
        "data": {"values": values},
        "encoding": {
            "y": {
                "field": "lane",
                "type": "nominal",
                "sort": None,
                "title": None,
                "scale": {"domain": lanes},
                "axis": {"ticks": False, "domain": False, "labelPadding": 10, "labelFontSize": 12},
            },
            "tooltip": tooltip,
        },
        "layer": [*frame, *(bars if any(one["lasting"] for one in values) else []), *(marks if moments else [])],
    }
    return Chart(
        id="events",
        title="What happened when",
        description=description,
        spec=specification(spec, description, {"step": 30}),
        height=30 * len(lanes) + 40,
        columns=("What", "Which", "From", "To"),
        rows=tuple((event.lane, event.what, event.start, event.end) for event in events),
    )


@dataclass(frozen=True, kw_only=True)
class Volume:
    """How many records a stretch of time had."""

    start: datetime
    end: datetime
    accepted: int
    rejected: int = 0
    late: int = 0
    duplicates: int = 0


def volumes(identity: str, title: str, counts: Sequence[Volume]) -> Chart:
    """Return the records that arrived, one bar for each stretch of time."""
    length = formats.length(counts[0].end - counts[0].start) if counts else "hour"
    description = f"Records accepted, by their event time in UTC; each bar is {length}."
    values = [
        {
            "from": formats.iso(one.start),
            "to": formats.iso(one.end),
            "when": formats.span(one.start, one.end),
            "accepted": one.accepted,
            "shown": formats.number(one.accepted),
        }
        for one in counts
    ]
    gap = 1 if len(counts) <= 130 else 0
    spec = {
        "data": {"values": values},
        "mark": {"type": "rect", "color": "var(--series)", "opacity": 0.8, "x2Offset": -gap},
        "encoding": {
            "x": {
                "field": "from",
                "type": "temporal",
                "scale": {"type": "utc"},
                "title": None,
                "axis": {"grid": False, "labelOverlap": True, "tickCount": 8},
            },
            "x2": {"field": "to"},
            "y2": {"datum": 0},
            "y": {
                "field": "accepted",
                "type": "quantitative",
                "title": "records",
                "axis": {"tickCount": 4, "format": "~s"},
            },
            "tooltip": [{"field": "when", "title": "when (UTC)"}, {"field": "shown", "title": "records"}],
        },
    }
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(spec, description, 120),
        height=160,
        columns=("When (UTC)", "Accepted", "Rejected", "Late", "Duplicates"),
        rows=tuple(
            (formats.span(one.start, one.end), one.accepted, one.rejected, one.late, one.duplicates) for one in counts
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far a subject was past its limit: 1 is just as far as counts."""

    subject: str
    times: float
    metric: str
    value: float | None
    limit: float | None


def strengths(identity: str, title: str, found: Sequence[Strength]) -> Chart:
    """Return how far each subject was past its limit, with the limit as a line at 1."""
    description = (
        "How far each was past the smallest effect that counts, or its threshold; the dashed line is the limit."
    )
    values = [
        {
            "subject": one.subject,
            "times": one.times,
            "shown": f"{formats.number(one.times, 3)} ×",
            "statistic": f"{one.metric} {formats.number(one.value)}",
            "limit": formats.number(one.limit),
        }
        for one in found
    ]
    spec = {
        "data": {"values": values},
        "encoding": {
            "y": {
                "field": "subject",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 190, "ticks": False, "domain": False, "labelPadding": 8},
            },
        },
        "layer": [
            {
                "mark": {"type": "bar", "color": "var(--heat-3)", "cornerRadiusEnd": 3, "height": {"band": 0.62}},
                "encoding": {
                    "x": {
                        "field": "times",
                        "type": "quantitative",
                        "stack": None,
                        "title": "times its limit",
                        "axis": {"tickCount": 6},
                    },
                    "tooltip": [
                        {"field": "subject", "title": "subject"},
                        {"field": "shown", "title": "past its limit"},
                        {"field": "statistic", "title": "statistic"},
                        {"field": "limit", "title": "limit"},
                    ],
                },
            },
            {
                "mark": {
                    "type": "text",
                    "align": "left",
                    "dx": 6,
                    "fontSize": 11,
                    "color": "var(--ink)",
                    "aria": False,
                },
                "encoding": {"x": {"field": "times", "type": "quantitative"}, "text": {"field": "shown"}},
            },
            {
                "data": {"values": [{"limit": 1}]},
                "mark": {
                    "type": "rule",
                    "color": "var(--limit)",
                    "strokeDash": [5, 4],
                    "strokeWidth": 1.5,
                    "aria": False,
                },
                "encoding": {
                    "x": {"field": "limit", "type": "quantitative"},
                    "y": {"value": 0},
                    "y2": {"value": "height"},
                },
            },
        ],
    }
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(spec, description, {"step": 28}),
        height=28 * len(found) + 48,
        columns=("Subject", "Times its limit", "Statistic", "Value", "Limit"),
        rows=tuple((one.subject, one.times, one.metric, one.value, one.limit) for one in found),
    )


@dataclass(frozen=True, kw_only=True)
class Heeded:
    """How much the model heeds a column, as a share of all it heeds, and how far the column moved."""

    column: str
    importance: float
    times: float
    standing: Standing


NAMED_MARKS = 8


def quadrant(found: Sequence[Heeded], equal: float) -> Chart:
    """Return how far each column moved by how much the model heeds it; ``equal`` is the share if all counted alike.

    The few with the most of both are named. What lies above the line and to its right moved and matters.
    """
    description = (
        "How far each column moved, as a multiple of the smallest effect that counts, by how much the model heeds it. "
        "The dashed lines are the limit, and the share that each would have if all counted alike: what is above and to "
        "the right moved and matters."
    )
    shown = sorted(found, key=lambda one: (-one.importance * one.times, one.column))[:MARKS]
    values = [
        {
            "column": one.column,
            "importance": one.importance,
            "times": one.times,
            "state": one.standing.value,
            "share": f"{100 * one.importance:.1f} %",
            "moved": f"{formats.number(one.times, 3)} ×",
            "name": one.column if place < NAMED_MARKS else "",
        }
        for place, one in enumerate(shown)
    ]
    x = {
        "field": "importance",
        "type": "quantitative",
        "title": "share of what the model heeds",
        "axis": {"format": ".0%", "tickCount": 6},
        "scale": {"type": "sqrt", "zero": True},
    }
    y = {
        "field": "times",
        "type": "quantitative",
        "title": "times the smallest effect that counts",
        "axis": {"tickCount": 6},
        "scale": {"type": "sqrt", "zero": True},
    }
    rule = {"type": "rule", "color": "var(--limit)", "strokeDash": [5, 4], "strokeWidth": 1.5, "aria": False}
    tooltip = [
        {"field": "column", "title": "column"},
        {"field": "moved", "title": "moved"},
        {"field": "share", "title": "heeded"},
    ]
    marks = _verdicts(y, tooltip)
    spec = {
        "data": {"values": values},
        "layer": [
            {
                "data": {"values": [{"times": 1}]},
                "mark": rule,
                "encoding": {
                    "y": {"field": "times", "type": "quantitative"},
                    "x": {"value": 0},
                    "x2": {"value": "width"},
                },
            },
            {
                "data": {"values": [{"importance": equal}]},
                "mark": rule,
                "encoding": {
                    "x": {"field": "importance", "type": "quantitative"},
                    "y": {"value": 0},
                    "y2": {"value": "height"},
                },
            },
            {**marks, "transform": [], "encoding": {**marks["encoding"], "x": x}},
            {
                "mark": {
                    "type": "text",
                    "align": "left",
                    "dx": 8,
                    "fontSize": 11,
                    "limit": 140,
                    "color": "var(--ink)",
                    "aria": False,
                },
                "encoding": {"x": x, "y": y, "text": {"field": "name"}},
            },
        ],
    }
    return Chart(
        id="quadrant",
        title="What moved, and whether it matters",
        description=description,
        spec=specification(spec, description, 260),
        height=320,
        columns=("Column", "Heeded", "Times the smallest effect that counts"),
        rows=tuple((one.column, one.importance, one.times) for one in shown),
    )


# --- performance ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FigurePoint:
    """A figure of one window: realised and expected, each with its interval, and where a deterioration counts."""

    start: datetime
    end: datetime
    value: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: float | None = None
    estimated_low: float | None = None
    estimated_high: float | None = None
    limit_low: float | None = None
    limit_high: float | None = None
    standing: Standing = Standing.OK
    n: int = 0
    reason: str = ""


def figure_series(identity: str, title: str, unit: str, points: Sequence[FigurePoint]) -> Chart:
    """Return a figure over the windows: realised solid with its interval, expected dashed, the limits dotted."""
    title = f"{title} ({unit})" if unit else title
    description = (
        "One point a window: realised solid with its interval, expected without labels dashed, dotted where a "
        "deterioration counts; a triangle where the window was violated."
    )
    values = [
        {
            "start": formats.iso(one.start),
            "window": formats.span(one.start, one.end),
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "estimated": one.estimated,
            "limitLow": one.limit_low,
            "limitHigh": one.limit_high,
            "shown": formats.number(one.value),
            "expected": formats.number(one.estimated),
            "state": one.standing.value,
            "verdict": one.standing.words,
            "rows": formats.number(one.n),
        }
        for one in points
    ]
    tooltip = [
        {"field": name, "type": "nominal", "title": heading}
        for name, heading in (
            ("window", "window"),
            ("shown", "realised"),
            ("expected", "expected"),
            ("verdict", "verdict"),
            ("rows", "labels"),
        )
    ]

    def y(name: str) -> dict[str, Any]:
        return {
            "field": name,
            "type": "quantitative",
            "title": None,
            "scale": {"zero": False},
            "axis": {"tickCount": 4, "format": "~g"},
        }

    def line(name: str, colour: str, dash: list[int] | None, width: float) -> dict[str, Any]:
        mark: dict[str, Any] = {
            "type": "line",
            "color": colour,
            "strokeWidth": width,
            "invalid": "break-paths-show-domains",
            "aria": False,
        }
        return {"mark": mark | ({"strokeDash": dash} if dash else {}), "encoding": {"y": y(name)}}

    spec = {
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "start",
                "type": "temporal",
                "scale": {"type": "utc"},
                "title": None,
                "axis": {"grid": False, "labelOverlap": True, "tickCount": 6},
            }
        },
        "layer": [
            {
                "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
                "mark": {"type": "rule", "color": "var(--series)", "opacity": 0.35, "strokeWidth": 3, "aria": False},
                "encoding": {"y": y("low"), "y2": {"field": "high"}},
            },
            line("limitLow", "var(--limit)", [2, 3], 1.5),
            line("limitHigh", "var(--limit)", [2, 3], 1.5),
            line("estimated", "var(--baseline)", [6, 4], 1.75),
            line("value", "var(--series)", None, 1.75),
            _verdicts(y("value"), tooltip),
        ],
    }
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification(spec, description, 132),
        height=172,
        columns=("Window", "Realised", "From", "To", "Expected", "Verdict", "Labels"),
        rows=tuple(
            (
                formats.span(one.start, one.end),
                one.value if one.value is not None else one.reason or formats.DASH,
                one.low,
                one.high,
                one.estimated,
                one.standing.words,
                one.n,
            )
            for one in points
        ),
    )


def curves(
    identity: str,
    title: str,
    axes: tuple[str, str],
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    diagonal: bool = False,
) -> Chart:
    """Return a curve of the baseline and one of the window, with the diagonal where it says what is ideal."""
    across, up = axes
    description = f"{up} by {across.lower()}, of the baseline and of the window."
    drawn = [
        (which, round(x, 6), round(y, 6), place)
        for which, points in lines.items()
        for place, (x, y) in enumerate(points)
    ]
    values = [{"which": which, "x": x, "y": y, "place": place} for which, x, y, place in drawn]
    layer: list[dict[str, Any]] = [
        {
            "mark": {"type": "line", "strokeWidth": 1.75, "point": {"size": 14}},
            "encoding": {
                "x": {"field": "x", "type": "quantitative", "title": across},
                "y": {"field": "y", "type": "quantitative", "title": up},
                "order": {"field": "place", "type": "quantitative"},
                "color": {
                    "field": "which",
                    "type": "nominal",
                    "legend": None,
                    "scale": {"domain": ["baseline", "window"], "range": ["var(--baseline)", "var(--series)"]},
                },
                "tooltip": [
                    {"field": "which", "title": "rows of the"},
                    {"field": "x", "title": across, "format": ".3f"},
                    {"field": "y", "title": up, "format": ".3f"},
                ],
            },
        }
    ]
    if diagonal:
        ideal = {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}
        mark = {"type": "line", "color": "var(--limit)", "strokeDash": [2, 3], "aria": False}
        encoding = {name: {"field": name, "type": "quantitative"} for name in ("x", "y")}
        layer.insert(0, {"data": ideal, "mark": mark, "encoding": encoding})
    return Chart(
        id=identity,
        title=title,
        description=description,
        spec=specification({"data": {"values": values}, "layer": layer}, description, 220),
        height=270,
        columns=("Rows of the", across, up),
        rows=tuple((which, x, y) for which, x, y, _place in drawn),
    )


def importances(found: Sequence[tuple[str, float | None, float]]) -> Chart:
    """Return how much each input counts: the baseline's mean absolute attribution beside the window's."""
    description = "Two bars an input: its mean absolute attribution in the baseline and in the window."
    values = [
        {"feature": feature, "side": side, "value": value, "shown": formats.number(value)}
        for feature, baseline, window in found
        for side, value in (("baseline", baseline), ("window", window))
    ]
    spec = {
        "data": {"values": values},
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": {
                "field": "feature",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"labelLimit": 190, "ticks": False, "domain": False, "labelPadding": 8},
            },
            "yOffset": {"field": "side", "sort": ["baseline", "window"]},
            "x": {"field": "value", "type": "quantitative", "title": "mean absolute attribution"},
            "color": {
                "field": "side",
                "type": "nominal",
                "title": None,
                "scale": {"domain": ["baseline", "window"], "range": ["var(--baseline)", "var(--series)"]},
                "legend": {"orient": "top"},
            },
            "tooltip": [
                {"field": "feature", "title": "input"},
                {"field": "side", "title": "of"},
                {"field": "shown", "title": "mean absolute attribution"},
            ],
        },
    }
    return Chart(
        id="importances",
        title="What predictions rest on",
        description=description,
        spec=specification(spec, description, {"step": 16}),
        height=34 * len(found) + 80,
        columns=("Input", "Baseline", "Window"),
        rows=tuple(found),
    )


def _verdicts(y: object, tooltip: object) -> dict[str, Any]:
    """Return the layer that marks each window that was measured: a circle, a larger triangle where it was violated."""
    violated = "datum.state === 'violated'"
    return {
        "transform": [{"filter": "isValid(datum.value)"}],
        "mark": {"type": "point", "filled": True, "opacity": 1},
        "encoding": {
            "y": y,
            "shape": {"condition": {"test": violated, "value": "triangle-up"}, "value": "circle"},
            "size": {"condition": {"test": violated, "value": 80}, "value": 28},
            "color": {"condition": {"test": violated, "value": "var(--bad)"}, "value": "var(--series)"},
            "tooltip": tooltip,
        },
    }
