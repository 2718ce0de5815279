"""Pages filled by hand, hostile names included: what the tests of the pages and the browser look at."""

import dataclasses
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dashboards import (
    alerts,
    arrivals,
    charts,
    drift,
    explanation,
    fairness,
    fleet,
    jobs,
    overview,
    performance,
    quality,
    retraining,
    sign_in,
    watches,
    webhooks,
)
from dashboards.model import ModelHead
from dashboards.page import Banner, Command, Empty, Frame, Links, ModelLink, Page, Spark, View
from dashboards.standing import Standing

HOSTILE = "<img src=x onerror=alert(1)>"
PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>alert(1)",
    "]]><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '"><img src=x onerror=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)' autofocus='",
    "`onload=alert(1)`",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "{{7*7}}",
    "{% raw %}",
    "${alert(1)}",
    "#{alert(1)}",
    "datum.value",
    "datum['x']",
    "'+alert(1)+'",
    "'); alert(1); ('",
    '\\"; alert(1); //',
    "\\' + alert(1) + \\'",
    "a.b",
    "a[0]",
    "a\\.b",
    "__proto__",
    "constructor",
    "toString",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=//evil.test>",
    "<base href=//evil.test/>",
    "<meta http-equiv=refresh content='0;url=//evil.test'>",
    "<form action=//evil.test><button>x",
    "<math><mtext></mtext><img src=x onerror=alert(1)></math>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "\u202e<script>alert(1)</script>",
    "\u2028alert(1)",
    "\u2029alert(1)",
    "\ufeff<script>alert(1)</script>",
    "\uff1cscript\uff1ealert(1)",
    "line\nbreak",
    "tab\there",
    "=1+1",
    "@SUM(1)",
    "https://evil.test/x.png",
    "//evil.test/x.js",
    "<x" + "y" * 300 + ">",
)
"""Names that would do something if a page took them for more than text."""
NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
DAY = timedelta(days=1)
START = datetime(2026, 10, 24, tzinfo=UTC)
ASSETS = ("app.css", "app.js", "vega-bundle.js", "favicon.svg")
NAMES = (
    HOSTILE,
    "credit_score",
    "income",
    "debt_to_income",
    "employment_length",
    "age",
    "loan_amount",
    "zip_region",
    "purpose",
    "prediction",
    "score",
)


def frame(path: str = "/", here: str = "", theme: str = "auto") -> Frame:
    return Frame(
        now=NOW,
        public_url="http://127.0.0.1:8000",
        path=path,
        here=here,
        viewer="demo",
        software="0.1.0",
        theme=theme,
        models=(
            ModelLink(name="credit-risk", standing=Standing.VIOLATED),
            ModelLink(name="churn", standing=Standing.PARTIAL),
            ModelLink(name="fraud-eu", standing=Standing.OK),
        ),
        links=Links(),
        assets={name: f"/static/0/{name}" for name in ASSETS},
        csrf="token-of-the-session",
    )


def strength_of(column: int, day: int) -> float:
    base = 0.25 + 0.2 * math.sin(column * 2.3 + day * 0.9) ** 2
    moved = max(0.0, day - 17) * (0.42, 0.3, 0.22, 0.1, 0.05)[column] if column < 5 else 0.0
    return base + moved


def hostile_drift(theme: str = "auto") -> drift.DriftPage:
    """Every payload as a column of the heatmap and of the table, as a category, as model, baseline, note and reason."""
    start, end = windows()[0]
    cells = [
        charts.HeatCell(
            row=name, start=start, end=end, strength=2.0, standing=Standing.VIOLATED, metric=name, reason=name
        )
        for name in PAYLOADS[:50]
    ]
    shares = [charts.CategoryShare(name=name, baseline=0.01, window=0.02) for name in PAYLOADS]
    page = drift_page(theme)
    assert page.panel is not None
    first = PAYLOADS[8]
    return replace(
        page,
        title=first,
        head=replace(page.head, name=first, baseline=PAYLOADS[0], description=PAYLOADS[1]),
        sentence=" ".join(PAYLOADS),
        run_reason=PAYLOADS[2],
        columns=tuple(
            replace(column_drift(0), column=name, metric=name, unit=name, reason=name, note=name, by=name)
            for name in PAYLOADS
        ),
        notes=PAYLOADS[:3],
        heatmap=charts.heatmap(cells, PAYLOADS[:50], DAY),
        quadrant=charts.quadrant(
            [
                charts.Heeded(column=name, importance=0.01, times=2.0, standing=Standing.VIOLATED)
                for name in PAYLOADS[:50]
            ],
            0.02,
        ),
        panel=replace(
            page.panel,
            drift=replace(page.panel.drift, column=PAYLOADS[9], unit=PAYLOADS[11]),
            overlay=charts.categories(PAYLOADS[3], shares, PAYLOADS[4], PAYLOADS[5]),
            series=tuple(
                charts.series(f"series-{i}", name, name[:12], [], limit=name) for i, name in enumerate(PAYLOADS[20:30])
            ),
            also=tuple(drift.Shown(metric=name, value=None, reason=name) for name in PAYLOADS),
        ),
    )


def hostile_overlay(theme: str = "auto") -> drift.DriftPage:
    """Return a column of numbers with a name that ends strings, objects and expressions."""
    page = drift_page(theme)
    assert page.panel is not None
    bins = [charts.Bin(low=i, high=i + 1, baseline=0.1, window=0.1) for i in range(10)]
    name = """a'b"c\\d]e.f{g}<h>"""
    return replace(page, panel=replace(page.panel, overlay=charts.overlay(name, bins, name, name)))


def windows() -> list[tuple[datetime, datetime]]:
    return [(START + i * DAY, START + (i + 1) * DAY) for i in range(29)]


def head() -> ModelHead:
    return ModelHead(
        name="credit-risk",
        task="binary",
        standing=Standing.VIOLATED,
        version="v3",
        versions=("v3", "v2"),
        open_alerts=1,
        baseline="train-v3",
        last_record=NOW - timedelta(minutes=7),
    )


def spark(column: int = 0) -> Spark:
    values: list[float | None] = [strength_of(column, day) for day in range(29)]
    standings = [Standing.VIOLATED if (v or 0) > 1 else Standing.OK for v in values]
    return Spark.of(values, standings, "last 29 windows")


SHARES = (0.02, 0.31, 0.22, 0.16, 0.11, 0.07, 0.05, 0.03, 0.02, 0.01, 0.0)
"""What the model heeds of each name, as shares."""


def column_drift(index: int, day: int = 28) -> drift.ColumnDrift:
    far = strength_of(index, day)
    numeric = index % 3 != 1
    unmeasured = NAMES[index] == "purpose"
    return drift.ColumnDrift(
        column=NAMES[index],
        role="feature" if NAMES[index] not in ("prediction", "score") else NAMES[index],
        standing=Standing.NOT_MEASURED if unmeasured else Standing.VIOLATED if far > 1 else Standing.OK,
        metric="wasserstein" if numeric else "jensenshannon",
        unit="sd" if numeric else "",
        direction="higher_is_worse",
        value=None if unmeasured else far * 0.1 + 0.03,
        effect=None if unmeasured else far * 0.1,
        min_effect=0.1,
        p_value=None if unmeasured else 3e-7 if far > 1 else 0.2 + index / 30,
        alpha=0.0017,
        rule="budget",
        n_window=4_812,
        n_baseline=50_000,
        reason="142 of 500 rows needed; at this pace in about 3 h" if unmeasured else "",
        note="calibrating: assumes independent rows (11 of 20 blocks)" if index == 3 else "",
        recent=spark(min(index, 4)),
        violated_windows=sum(strength_of(index, day) > 1 for day in range(29)),
        windows=29,
        importance=SHARES[index] if NAMES[index] not in ("prediction", "score") else None,
    )


def heatmap() -> charts.Chart:
    cells = [
        charts.HeatCell(
            row=name,
            start=start,
            end=end,
            strength=None if name == "purpose" and day % 4 == 0 else strength_of(index, day),
            standing=Standing.VIOLATED if strength_of(index, day) > 1 else Standing.OK,
            metric="wasserstein",
            value=strength_of(index, day) * 0.1,
            p_value=0.3,
            n=4_800 + day,
            href=f"?feature={index}",
        )
        for index, name in enumerate(NAMES)
        for day, (start, end) in enumerate(windows())
    ]
    return charts.heatmap(cells, NAMES, DAY)


def panel(category: bool = False) -> drift.ColumnPanel:
    def bell(x: float, middle: float) -> float:
        return math.exp(-(((x - middle) / 60) ** 2) / 2) / 7.5

    bins = [
        charts.Bin(
            low=400 + 12 * i, high=412 + 12 * i, baseline=bell(406 + 12 * i, 680), window=bell(406 + 12 * i, 640)
        )
        for i in range(40)
    ]
    shares = [
        charts.CategoryShare(name=name, baseline=0.2, window=0.1 + 0.05 * i, new=i == 3)
        for i, name in enumerate(("north", "south", HOSTILE, "west", "other"))
    ]
    points = [
        charts.Point(
            start=s,
            end=e,
            value=strength_of(0, i) * 0.1,
            limit=0.1,
            standing=Standing.VIOLATED if strength_of(0, i) > 1 else Standing.OK,
            n=4_800,
        )
        for i, (s, e) in enumerate(windows())
    ]
    ps = [
        charts.Point(
            start=s,
            end=e,
            value=1e-9 if strength_of(0, i) > 1 else 0.4,
            limit=0.0017,
            standing=Standing.VIOLATED if strength_of(0, i) > 1 else Standing.OK,
            n=4_800,
        )
        for i, (s, e) in enumerate(windows())
    ]
    return drift.ColumnPanel(
        drift=column_drift(0),
        type="categorical" if category else "numeric",
        missing_baseline=0.0012,
        missing_window=0.034,
        overlay=charts.categories(HOSTILE, shares, "baseline", "window")
        if category
        else charts.overlay(HOSTILE, bins, "baseline", "window"),
        overlay_reason="",
        series=(
            charts.series("statistic", "wasserstein", "sd", points, limit="threshold"),
            charts.series("effect", "Effect, chance subtracted", "sd", points, limit="smallest that counts"),
            charts.series("p-values", "p-value", "", ps, limit="alpha", logarithmic=True, below=True),
        ),
        also=(drift.Shown(metric="psi", value=0.214), drift.Shown(metric="ks", value=None, reason="under 500 rows")),
    )


def choices() -> tuple[drift.WindowChoice, ...]:
    return tuple(
        drift.WindowChoice(
            start=s,
            end=e,
            label=s.strftime("%Y-%m-%d"),
            standing=Standing.VIOLATED if i > 19 else Standing.OK,
            current=i == 28,
        )
        for i, (s, e) in reversed(list(enumerate(windows())))
    )


def fleet_page(theme: str = "auto") -> fleet.FleetPage:
    def row(name: str, standing: Standing, reason: str, opened: int, share: fleet.Share | None) -> fleet.FleetRow:
        return fleet.FleetRow(
            model=name,
            task="binary",
            version="v3",
            registered=name != "churn",
            standing=standing,
            reason=reason,
            open_alerts=opened,
            last_record=NOW - timedelta(minutes=7),
            rows=48_120,
            volume=Spark.of([40 + 10 * math.sin(i) for i in range(30)], None, "records of the last 30 windows"),
            windows=spark(0),
            drift=share,
            coverage=fleet.Coverage(measured=3, total=3)
            if standing is not Standing.PARTIAL
            else fleet.Coverage(measured=1, total=3, blind=1, failing=1),
            tags=("team: lending",),
        )

    rows = [
        row("fraud-eu", Standing.OK, "Nothing moved: 41 checks in 3 monitors", 0, fleet.Share(violated=0, measured=14)),
        row(
            "credit-risk",
            Standing.VIOLATED,
            f"{HOSTILE}, credit_score and income moved since 2026-11-12",
            1,
            fleet.Share(violated=4, measured=10, unmeasured=1),
        ),
        row("churn", Standing.PARTIAL, "monitor data_drift measured 6 of 11 columns", 0, None),
    ]
    return fleet.FleetPage(
        frame=frame(theme=theme),
        title="Fleet",
        view=View(),
        tallies=(
            fleet.Tally(label="Models", value="3"),
            fleet.Tally(label="Need attention", value="2", of="of 3", standing=Standing.VIOLATED),
            fleet.Tally(label="Open alerts", value="1", standing=Standing.VIOLATED),
            fleet.Tally(label="Monitors measured", value="7", of="of 9", standing=Standing.PARTIAL),
            fleet.Tally(label="Columns drifted", value="4", of="of 24"),
        ),
        rows=fleet.worst_first(rows),
    )


def empty_fleet(theme: str = "auto") -> fleet.FleetPage:
    return fleet.FleetPage(
        frame=frame(theme=theme),
        title="Fleet",
        view=View(),
        tallies=(),
        rows=(),
        empty=Empty(
            title="No model yet",
            text="Name a model and post its predictions; everything else is learnt from them.",
            commands=(
                Command(
                    label="Name a model",
                    code="curl -X POST 'http://127.0.0.1:8000/v1/models'",
                ),
            ),
        ),
    )


def overview_page(theme: str = "auto") -> overview.OverviewPage:
    def tile(monitor: str, title: str, standing: Standing, violated: int, ok: int, unmeasured: int) -> overview.Tile:
        return overview.Tile(
            monitor=monitor,
            kind=monitor,
            title=title,
            standing=standing,
            value=str(violated),
            of=f"of {violated + ok} columns violated",
            limit="α 0.0017, shared by Holm",
            reason=f"{HOSTILE}, credit_score and income moved furthest" if violated else "nothing beyond its limit",
            rows=4_812,
            start=windows()[-1][0],
            end=windows()[-1][1],
            measured_at=NOW - timedelta(hours=3),
            violated=violated,
            ok=ok,
            not_measured=unmeasured,
            spark=spark(0 if violated else 9 % 5),
            page="drift",
        )

    marks = [
        charts.WindowMark(
            monitor=monitor,
            start=s,
            end=e,
            standing=Standing.VIOLATED if i > 19 and m == 1 else Standing.PARTIAL if i == 5 else Standing.OK,
            rows=4_800,
            violated=4 if i > 19 and m == 1 else 0,
            measured=11,
            href="?monitor=x",
        )
        for m, monitor in enumerate(("data_quality", "data_drift", "prediction_drift"))
        for i, (s, e) in enumerate(windows())
    ]
    events = [
        charts.Event(lane="Alerts", what="data_drift", start=windows()[20][0], standing=Standing.VIOLATED),
        charts.Event(lane="Baselines", what="train-v3", start=windows()[2][0]),
        charts.Event(lane="Versions", what="v3", start=windows()[3][0]),
    ]
    return overview.OverviewPage(
        frame=frame("/models/credit-risk", "credit-risk", theme),
        title="credit-risk",
        banners=(
            Banner(text="No record for 26 h; the last window is complete, the next is not.", standing=Standing.STALE),
        ),
        head=head(),
        view=View(range_="30d"),
        section="",
        start=START,
        end=START + 29 * DAY,
        verdict=f"Data drift: {HOSTILE}, credit_score and 2 more moved beyond their limits.",
        since="Violated since 2026-11-13, 9 windows in a row.",
        note=f"What was injected: on day 40 the exchange rate moved by 12 %; {HOSTILE}",
        tiles=(
            tile("data_drift", "Data drift", Standing.VIOLATED, 4, 6, 1),
            tile("prediction_drift", "Prediction drift", Standing.OK, 0, 2, 0),
            tile("data_quality", "Data quality", Standing.PARTIAL, 0, 20, 9),
        ),
        alerts=(
            overview.OpenAlert(
                uid="a" * 32,
                sentence=f"{HOSTILE} and 3 more moved",
                severity="warning",
                state="open",
                opened_at=NOW - 3 * DAY,
                replayed=True,
            ),
        ),
        charts=(
            charts.event_lane(events, START, START + 29 * DAY),
            charts.window_strip(marks, ("data_quality", "data_drift", "prediction_drift"), DAY),
            charts.volumes(
                "volume",
                "Records",
                [
                    charts.Volume(start=s, end=s + DAY, accepted=4_800 + 300 * (i % 7))
                    for i, (s, _) in enumerate(windows())
                ],
            ),
        ),
    )


def drift_page(theme: str = "auto", category: bool = False) -> drift.DriftPage:
    return drift.DriftPage(
        frame=frame("/models/credit-risk/drift", "credit-risk", theme),
        title="credit-risk · drift",
        head=head(),
        view=View(range_="30d", feature=HOSTILE),
        section="drift",
        start=START,
        end=START + 29 * DAY,
        monitors=("data_drift", "prediction_drift"),
        monitor="data_drift",
        windows=choices(),
        window_start=windows()[-1][0],
        window_end=windows()[-1][1],
        run_uid="b" * 32,
        run_standing=Standing.VIOLATED,
        run_reason="",
        rows=4_812,
        alpha=0.0167,
        policy="judged by the alarm budget",
        sentence=f"4 of 10 columns moved: {HOSTILE}, credit_score, income and debt_to_income.",
        columns=drift.ordered([column_drift(i) for i in range(len(NAMES))], ""),
        notes=("calibrating: assumes independent rows (11 of 20 blocks)",),
        heatmap=heatmap(),
        heatmap_note="",
        quadrant=drift.quadrant([column_drift(i) for i in range(len(NAMES))]),
        panel=panel(category),
    )


def alert_line(state: str = "open") -> alerts.AlertLine:
    return alerts.AlertLine(
        uid="a" * 32,
        state=state,
        kind="episode",
        severity="warning",
        sentence=f"data_drift: {HOSTILE}, credit_score and 2 more moved in credit-risk v3",
        version="v3",
        starts_at=windows()[20][0],
        last_violated_at=windows()[28][1],
        opened_at=NOW - 8 * DAY,
        resolved_at=NOW if state == "resolved" else None,
        resolution="recovered" if state == "resolved" else None,
        acknowledged_by=None,
        muted_until=None,
        replayed=False,
        deliveries=2,
        delivered=1,
        failed=1,
    )


def alerts_page(theme: str = "auto") -> alerts.AlertsPage:
    return alerts.AlertsPage(
        frame=frame("/models/credit-risk/alerts", "credit-risk", theme),
        title="credit-risk · alerts",
        head=head(),
        view=View(),
        section="alerts",
        alerts=(alert_line(), alert_line("acknowledged"), alert_line("resolved")),
        states=(("open", 1), ("acknowledged", 1), ("resolved", 1)),
        webhooks=1,
        timeline=charts.event_lane(
            [
                charts.Event(lane="Alerts", what=HOSTILE, start=START, end=START + 3 * DAY),
                charts.Event(lane="Alerts", what="open", start=START + 9 * DAY, standing=Standing.VIOLATED),
            ],
            START,
            START + 20 * DAY,
        ),
    )


def alert_page(theme: str = "auto") -> alerts.AlertPage:
    attempts = (
        alerts.Attempt(at=NOW - DAY, status=500, error="", milliseconds=41.3, answer=HOSTILE),
        alerts.Attempt(at=NOW - DAY, status=None, error="connection refused", milliseconds=None, answer=""),
        alerts.Attempt(at=NOW, status=204, error="", milliseconds=12.0, answer=""),
    )
    return alerts.AlertPage(
        frame=frame("/alerts/" + "a" * 32, "credit-risk", theme),
        title="credit-risk · alert",
        head=head(),
        view=View(),
        section="alerts",
        alert=alert_line(),
        updated_at=NOW,
        acknowledged_at=None,
        members=(
            alerts.Member(
                monitor="data_drift",
                kind="data_drift",
                columns=(HOSTILE, "income"),
                quiet_windows=0,
                last_window="2026-11-22",
            ),
        ),
        evidence=tuple(
            alerts.Evidence(
                subject=NAMES[i],
                metric="wasserstein",
                value=0.4 / (i + 1),
                baseline_value=None,
                effect=0.3 / (i + 1),
                min_effect=0.1,
                p_value=1e-7,
                alpha=0.0017,
                threshold=None,
                n_window=4_812,
                n_baseline=50_000,
                standing=Standing.VIOLATED,
                reason="",
            )
            for i in range(4)
        ),
        evidence_monitor="data_drift",
        evidence_run="b" * 32,
        evidence_start=windows()[20][0],
        evidence_end=windows()[20][1],
        evidence_page="drift",
        evidence_view=View(version="v3"),
        chart=charts.strengths(
            "evidence-chart",
            "How far past the limit",
            [charts.Strength(subject=HOSTILE, times=3.0, metric="wasserstein", value=0.4, limit=0.1)],
        ),
        causes=(
            alerts.Cause(subject=HOSTILE, monitor="data_drift", metric="wasserstein", value=0.4, times=3.0),
            alerts.Cause(subject="income", monitor="data_drift", metric="wasserstein", value=0.2, times=1.5),
        ),
        planned=(alerts.Planned(title=HOSTILE, effect="annotate", start=NOW - DAY, end=NOW),),
        comments=(alerts.Comment(author=HOSTILE, text=f"{HOSTILE}\nsecond line", at=NOW),),
        deliveries=(
            alerts.DeliveryLine(
                uid="msg_1",
                webhook="pager",
                url="https://hooks.example.com/…",
                event="alert.opened",
                state="delivered",
                attempts=3,
                next_at=None,
                created_at=NOW - DAY,
                delivered_at=NOW,
                log=attempts,
                body='{"type": "alert.opened"}',
            ),
        ),
        may_operate=True,
    )


def webhooks_page(theme: str = "auto") -> webhooks.WebhooksPage:
    on = webhooks.WebhookLine(
        name="pager",
        kind="pagerduty",
        url="https://events.pagerduty.com/…",
        events=("alert.opened", HOSTILE),
        models=None,
        disabled_reason=None,
        pending=1,
        delivered=12,
        failed=1,
        last_delivered=NOW,
    )
    off = replace(on, name="old", models=(HOSTILE,), disabled_reason="The receiver answered 410 Gone.", failed=0)
    lost = replace(alert_page(theme).deliveries[0], state="failed", event=HOSTILE, delivered_at=None)
    return webhooks.WebhooksPage(
        frame=frame("/webhooks", "", theme), title="Webhooks", webhooks=(on, off), dead=(lost,), may_operate=True
    )


def jobs_page(theme: str = "auto") -> jobs.JobsPage:
    going = jobs.JobLine(
        uid="e" * 32,
        kind="backfill",
        model="churn",
        about=HOSTILE,
        state="running",
        done=12,
        total=30,
        unit="windows",
        created_at=NOW - DAY,
        finished_at=None,
        eta=NOW,
        error=None,
        may_cancel=True,
    )
    lost = replace(going, uid="f" * 32, state="failed", total=None, error=HOSTILE, eta=None, may_cancel=False)
    replay = jobs.ReplayLine(model=HOSTILE, start=NOW - DAY, end=NOW, reached=NOW - DAY / 2, done=12, total=24)
    return jobs.JobsPage(frame=frame("/jobs", "", theme), title="Jobs", jobs=(going, lost), replays=(replay,))


def retraining_page(theme: str = "auto") -> retraining.RetrainingPage:
    asked = retraining.Attempt(
        uid="c" * 32,
        alert="a" * 32,
        attempt=2,
        state="succeeded",
        standing=Standing.OK,
        version="v3",
        reason=f"performance of {HOSTILE} v3 was violated in 2 of its last 3 windows",
        moment=NOW - DAY,
        replayed=False,
        deadline_at=None,
        training=f"Rows of 2026-08-24 to 2026-11-21: {HOSTILE}",
        candidate=HOSTILE,
        verdict="It is better on 512 labelled rows that both predicted.",
        contests=(
            retraining.Contest(
                metric="log_loss",
                champion=0.61,
                challenger=0.34,
                difference=-0.27,
                lower=-0.31,
                upper=-0.22,
                less_is_better=True,
                decides=True,
                better=True,
                worse=False,
            ),
            retraining.Contest(
                metric="lift",
                champion=1.1,
                challenger=1.2,
                difference=0.1,
                lower=None,
                upper=None,
                less_is_better=False,
                decides=False,
                better=False,
                worse=False,
            ),
        ),
        promoted_at=None,
        promoted_by=None,
        rolled_back_at=None,
        steps=(
            retraining.Step(at=NOW - DAY, state="requested", by="policy", detail=""),
            retraining.Step(at=NOW, state="succeeded", by="receiver", detail=HOSTILE),
        ),
        actions=("promote",),
    )
    waiting = replace(
        asked,
        uid="d" * 32,
        attempt=1,
        state="awaiting_approval",
        standing=Standing.WAITING,
        candidate=None,
        contests=(),
        actions=("approve", "reject"),
    )
    return retraining.RetrainingPage(
        frame=frame("/models/credit-risk/retraining", "credit-risk", theme),
        title="credit-risk · retraining",
        head=head(),
        view=View(),
        section="retraining",
        rules=(retraining.Rule(name="When", words=f"{HOSTILE} violated in 2 of 3 windows"),),
        held="60 of at least 100 labelled rows are there",
        attempts=(asked, waiting),
        listeners=0,
        may_operate=True,
    )


def results_page(theme: str = "auto") -> quality.ResultsPage:
    found = quality_page(theme)
    held = {one.name: getattr(found, one.name) for one in dataclasses.fields(found)}
    return quality.ResultsPage(**(held | {"title": "credit-risk · results", "section": "results"}))


def performance_page(theme: str = "auto") -> performance.PerformancePage:
    row = performance.FigureRow(
        metric="accuracy",
        class_="",
        standing=Standing.VIOLATED,
        judged=True,
        value=0.71,
        low=0.69,
        high=0.73,
        estimated=0.78,
        estimated_low=0.76,
        estimated_high=0.8,
        baseline_value=0.79,
        constant_value=0.6,
        effect=0.08,
        min_effect=0.01,
        p_value=0.0001,
        alpha=0.002,
        direction="lower_is_worse",
        n_window=4_200,
        note="the labels say 0.71, beyond both intervals",
    )
    shown = replace(row, metric="recall", class_=HOSTILE, judged=False, standing=Standing.OK, reason="")
    points = [
        charts.FigurePoint(
            start=s,
            end=e,
            value=None if i == 3 else 0.8 - 0.004 * i,
            low=0.77 - 0.004 * i,
            high=0.82 - 0.004 * i,
            estimated=0.79,
            limit_low=0.76,
            standing=Standing.VIOLATED if i > 20 else Standing.OK,
            n=4_000,
        )
        for i, (s, e) in enumerate(windows())
    ]
    lines = {"baseline": [(0.1, 0.1), (0.9, 0.9)], "window": [(0.1, 0.2), (0.9, 0.7)]}
    return performance.PerformancePage(
        frame=frame("/models/credit-risk/performance", "credit-risk", theme),
        title="credit-risk · performance",
        head=head(),
        view=View(range_="30d"),
        section="performance",
        start=START,
        end=START + 29 * DAY,
        monitors=("performance", "concept_drift"),
        monitor="",
        windows=choices(),
        window_start=windows()[-1][0],
        window_end=windows()[-1][1],
        run_standing=Standing.VIOLATED,
        run_reason="",
        rows=4_812,
        labelled_rows=4_200,
        label_coverage=0.873,
        sentence="Worse than in the baseline: accuracy.",
        disagreement="The labels contradict what was expected of accuracy, beyond both intervals.",
        figures=(row, shown),
        concept=(replace(row, metric="accuracy_concept_part", estimated=None),),
        notes=(),
        series=(charts.figure_series("figure-accuracy", "accuracy", "", points),),
        volume=charts.volumes(
            "volume", "Records", [charts.Volume(start=s, end=e, accepted=4_800) for s, e in windows()]
        ),
        curves=(
            charts.curves("calibration", "Calibration", ("Mean score", "Share of positives"), lines, diagonal=True),
        ),
        confusion=performance.Confusion(
            names=("0", HOSTILE),
            baseline=((0.8, 0.2), (0.3, 0.7)),
            window=((0.7, 0.3), (None, None)),
            rows=(4_200, 0),
        ),
        curves_reason="",
    )


def quality_page(theme: str = "auto") -> quality.QualityPage:
    checks = [
        quality.Check(
            subject=HOSTILE,
            metric="completeness",
            standing=Standing.VIOLATED,
            value=0.931,
            threshold=0.99,
            rule="schema",
            n_window=4_812,
            n_baseline=50_000,
        ),
        quality.Check(
            subject="age",
            metric="range",
            standing=Standing.OK,
            value=0.0,
            threshold=0.01,
            rule="schema",
            n_window=4_812,
        ),
        quality.Check(
            subject="records", metric="volume", standing=Standing.NOT_MEASURED, reason="under 4 weeks of history"
        ),
    ]
    marks = [
        charts.WindowMark(
            monitor=name,
            start=s,
            end=e,
            standing=Standing.VIOLATED if name == HOSTILE and i > 20 else Standing.OK,
            rows=4_800,
            violated=1,
            measured=3,
        )
        for name in (HOSTILE, "age", "records")
        for i, (s, e) in enumerate(windows())
    ]
    return quality.QualityPage(
        frame=frame("/models/credit-risk/quality", "credit-risk", theme),
        title="credit-risk · quality",
        head=head(),
        view=View(range_="30d"),
        section="quality",
        start=START,
        end=START + 29 * DAY,
        monitors=("data_quality",),
        monitor="data_quality",
        windows=choices(),
        window_start=windows()[-1][0],
        window_end=windows()[-1][1],
        run_standing=Standing.VIOLATED,
        run_reason="",
        rows=4_812,
        sentence=f"1 of 2 checks failed: {HOSTILE}.",
        checks=quality.worst_first(checks),
        grid=charts.window_strip(marks, (HOSTILE, "age", "records"), DAY),
        grid_note="",
    )


def gaps() -> list[fairness.Gap]:
    found = []
    for place, (metric, value, unit) in enumerate(
        (("DPPL", 0.14, ""), ("DI", 0.71, "ratio"), ("RD", -0.05, ""), ("SD", 0.02, ""), ("AD", 0.03, ""))
    ):
        for shift, group in enumerate((HOSTILE, "F", "X")):
            off = 0.04 * shift * (1 if place % 2 else -1)
            found.append(
                fairness.Gap(
                    group=group,
                    reference="M",
                    metric=metric,
                    title="Difference in proportions of predictions",
                    meaning="Above 0 the model gives the group the favourable outcome less often.",
                    standing=Standing.VIOLATED if metric == "DPPL" and shift == 0 else Standing.OK,
                    judged=metric == "DPPL",
                    value=value + off,
                    low=value + off - 0.06,
                    high=value + off + 0.07,
                    baseline_value=0.02,
                    unit=unit,
                    p_value=0.0004 if metric == "DPPL" else None,
                    n=812 - 200 * shift,
                )
            )
    return found


def fairness_page(theme: str = "auto") -> fairness.FairnessPage:
    points = [
        charts.Point(start=s, end=e, value=0.02 + 0.004 * i, limit=0.02, standing=Standing.OK, n=812)
        for i, (s, e) in enumerate(windows())
    ]
    return fairness.FairnessPage(
        frame=frame("/models/credit-risk/fairness", "credit-risk", theme),
        title="credit-risk · fairness",
        head=head(),
        view=View(range_="30d"),
        section="fairness",
        start=START,
        end=START + 29 * DAY,
        monitors=("bias",),
        monitor="bias",
        windows=choices(),
        window_start=windows()[-1][0],
        window_end=windows()[-1][1],
        run_standing=Standing.VIOLATED,
        run_reason="",
        rows=4_812,
        favourable="0",
        sentence=f"1 of 3 comparisons beyond what is accepted: sex {HOSTILE} (DPPL).",
        attributes=("sex", "sex*age", HOSTILE),
        attribute="sex",
        against="M",
        groups=(
            fairness.Group(name="M", n=2_800, share=0.58, told=True, rates=(("selection_rate", 0.61),)),
            fairness.Group(name=HOSTILE, n=812, share=0.17, told=True, rates=(("selection_rate", 0.47),)),
            fairness.Group(name="nonbinary", n=12, share=0.0025, told=False),
            fairness.Group(name="unknown", n=300, share=0.06, told=False),
        ),
        gaps=tuple(gaps()),
        silent=(dataclasses.replace(gaps()[0], group="nonbinary", value=None, reason="withheld: 12 of 30 rows", n=12),),
        figures=(fairness.Figure(name="equalized_odds_difference", value=0.08, n=4_500, note="computed by fairlearn"),),
        notes=("calibrating: assumes independent rows",),
        differences=fairness.dots("differences", "Differences between groups", gaps()[:3] + gaps()[6:], ratio=False),
        ratios=fairness.dots("ratios", "How often a group is favoured, as a ratio", gaps()[3:6], ratio=True),
        over_time=(charts.series("over-0", f"DPPL of {HOSTILE}", "", points, limit="baseline"),),
    )


def monitors_page(theme: str = "auto") -> watches.MonitorsPage:
    return watches.MonitorsPage(
        frame=frame("/models/credit-risk/monitors", "credit-risk", theme),
        title="credit-risk · monitors",
        head=head(),
        view=View(),
        section="monitors",
        monitors=(
            watches.MonitorLine(
                name="data_drift",
                kind="data_drift",
                schedule="daily",
                window="1d",
                baseline="active",
                policy="alarm budget, equal share",
                enabled=True,
                standing=Standing.VIOLATED,
                reason=HOSTILE,
                last_end=NOW,
                next_due=NOW + DAY,
                rows=4_812,
                ok=6,
                violated=4,
                not_measured=1,
                recent=spark(0),
                configuration='{"kind": "data_drift"}',
            ),
        ),
        runs=(
            watches.RunLine(
                uid="b" * 32,
                monitor="data_drift",
                start=windows()[-1][0],
                end=windows()[-1][1],
                standing=Standing.VIOLATED,
                status="violations",
                reason="",
                revision=1,
                rows=4_812,
                ok=6,
                violated=4,
                not_measured=1,
                finished_at=NOW,
                seconds=0.21,
            ),
        ),
        budget="At most 1 false alarm in 30 days is accepted for this model, shared by 3 monitors.",
    )


def data_page(theme: str = "auto") -> arrivals.DataPage:
    return arrivals.DataPage(
        frame=frame("/models/credit-risk/data", "credit-risk", theme),
        title="credit-risk · data",
        head=head(),
        view=View(range_="30d"),
        section="data",
        start=START,
        end=START + 29 * DAY,
        tallies=(
            fleet.Tally(label="Accepted", value="139\u202f200"),
            fleet.Tally(label="Duplicates", value="12"),
            fleet.Tally(label="Rejected", value="3", standing=Standing.PARTIAL),
        ),
        charts=(
            charts.volumes(
                "volume", "Records", [charts.Volume(start=s, end=s + DAY, accepted=4_800) for s, _ in windows()]
            ),
        ),
        reasons=(
            arrivals.Reason(code="timestamp_in_future", count=3, rejects=True),
            arrivals.Reason(code="wrong_type", count=7, rejects=False),
        ),
        rejections=(
            arrivals.Rejection(
                at=NOW,
                kind="predictions",
                code="timestamp_in_future",
                pointer="/timestamp",
                detail=HOSTILE,
                position=17,
            ),
        ),
        baselines=(
            arrivals.BaselineLine(
                name="train-v3",
                version="v3",
                state="ready",
                rows=50_000,
                ordered=True,
                active_from=datetime(1970, 1, 1, tzinfo=UTC),
                in_force=True,
                created_at=NOW,
                warnings=("shuffled?",),
            ),
        ),
        features=(
            arrivals.FeatureLine(
                name=HOSTILE, type="numeric", status="confirmed", required=True, range="0 to 1", categories=""
            ),
        ),
    )


def sign_in_page(theme: str = "auto") -> sign_in.SignInPage:
    return sign_in.SignInPage(
        frame=frame(theme=theme), title="Sign in", error="This key is not known.", next_path="/models/x?a=b&c=d"
    )


def link_page(theme: str = "auto") -> sign_in.LinkPage:
    return sign_in.LinkPage(frame=frame(theme=theme), title="Sign in with this link?", action="/sign-in/abc")


def problem_page(theme: str = "auto") -> sign_in.ProblemPage:
    return sign_in.ProblemPage(
        frame=frame(theme=theme),
        title="There is no such thing",
        status=404,
        detail=f"No model {HOSTILE}",
        request_id="r" * 8,
    )


def explained() -> explanation.LocalExplanation:
    parts = tuple(
        explanation.TextPart(text=text, gap=" ", attribution=value, error=0.01, step=round(4 * value))
        for text, value in ((HOSTILE, 1.0), ("not", -0.75), ("great", 0.25), ("film", 0.0))
    )
    return explanation.LocalExplanation(
        prediction_id=HOSTILE,
        version="3",
        method="native",
        why="the booster's own contributions are exact and fastest for 1 row(s)",
        exact=True,
        output="margin",
        class_="1",
        base_value=-0.4,
        prediction="0.85",
        artifact_digest="ab" * 32,
        background="100 rows of baseline training",
        seed=0,
        contributions=(
            explanation.Contribution(feature=HOSTILE, value=HOSTILE, attribution=0.75, error=0.01),
            explanation.Contribution(feature="age", value="—", attribution=0.5),
        ),
        note="47 antithetic pairs of orders",
        texts=(explanation.ExplainedText(feature=HOSTILE, parts=parts, strongest=parts[:3]),),
        reasons=(f"{HOSTILE} = 3 spoke against the outcome 0", "age = missing spoke against the outcome 0"),
    )


def explain_page(theme: str = "auto") -> explanation.ExplainPage:
    points = [
        charts.Point(start=s, end=e, value=0.99 if i < 20 else 0.8, limit=0.9, standing=Standing.OK, n=200)
        for i, (s, e) in enumerate(windows())
    ]
    return explanation.ExplainPage(
        frame=frame("/models/credit-risk/explain", "credit-risk", theme),
        title="credit-risk · explanations",
        head=head(),
        view=View(q=HOSTILE),
        section="explain",
        start=windows()[0][0],
        end=windows()[-1][1],
        artifact="explained with its lightgbm file, abababababab",
        monitor="attribution_drift",
        window_start=windows()[-1][0],
        window_end=windows()[-1][1],
        run_standing=Standing.VIOLATED,
        sentence="What the predictions rest on has changed since the baseline.",
        importances=(
            explanation.Importance(feature=HOSTILE, window=0.75, baseline=0.5, window_share=0.6, baseline_share=0.4),
            explanation.Importance(feature="age", window=0.5, baseline=0.75, window_share=0.4, baseline_share=0.6),
        ),
        bars=charts.importances([(HOSTILE, 0.5, 0.75), ("age", 0.75, 0.5)]),
        ranks=charts.series("ranks", "Order of the importances (NDCG)", "", points, below=True),
        shifts=charts.series("shifts", "Importance that moved between inputs", "", points),
        may_ask=True,
        asked=HOSTILE,
        refusal="there is no prediction",
        explained=explained(),
    )


def explanation_page(theme: str = "auto") -> explanation.SheetPage:
    return explanation.SheetPage(
        frame=frame("/explanations/0123", "credit-risk", theme),
        title="Explanation of 1 prediction",
        uid="0123",
        model="credit-risk",
        version="3",
        created_at="2026-03-01T00:00:00Z",
        kept=True,
        favourable="0",
        items=(explained(),),
        software=("plumbline-server 0.1.0", "shap 0.51.0"),
        json_address="/v1/explanations/0123?format=json",
        csv_address="/v1/explanations/0123?format=csv",
    )


def every_page(theme: str = "auto") -> dict[str, Page]:
    return {
        "fleet": fleet_page(theme),
        "empty": empty_fleet(theme),
        "overview": overview_page(theme),
        "drift": drift_page(theme),
        "drift-category": drift_page(theme, category=True),
        "performance": performance_page(theme),
        "quality": quality_page(theme),
        "results": results_page(theme),
        "fairness": fairness_page(theme),
        "explain": explain_page(theme),
        "explanation": explanation_page(theme),
        "alerts": alerts_page(theme),
        "alert": alert_page(theme),
        "retraining": retraining_page(theme),
        "monitors": monitors_page(theme),
        "data": data_page(theme),
        "webhooks": webhooks_page(theme),
        "jobs": jobs_page(theme),
        "sign-in": sign_in_page(theme),
        "link": link_page(theme),
        "problem": problem_page(theme),
    }
