"""A visit to a page: who looks at what, over which stretch of time, and what all pages of a model show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from dashboards import formats
from dashboards.model import ModelHead
from dashboards.page import Banner, Empty, Frame, Links, ModelLink, View
from dashboards.standing import Standing
from service import baselines
from service.access import Principal, Scope
from service.api.depends import model_named, version_named, visible
from service.assembly import Assembly
from service.pages import commands
from service.pages.assets import assets
from service.pages.standings import OPEN_STATES, Stand, fleet_stands, is_stale, model_standing, stand_of
from service.posted import METRICS
from service.runs import arriving
from service.tables import AlertRow, ModelRow, ModelStatusRow, MonitorRow, RunRow, VersionRow
from service.windows import LENGTHS
from service.words import DAY, UNFINISHED, parse_time

RAIL = 14
"""How many models the rail names."""
PRESETS = {"7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY}


@dataclass
class Visit:
    """One request for a page: the parts of the service, who asks, and one consistent state of the database."""

    request: Request
    parts: Assembly
    principal: Principal
    session: Session

    @cached_property
    def now(self) -> datetime:
        """The moment of the visit."""
        return self.parts.clock.now()

    @cached_property
    def path(self) -> str:
        """The path of the page, whichever of its two forms was asked for."""
        path = self.request.url.path.removesuffix(".json")
        root = self.request.scope.get("root_path", "")
        path = path.removeprefix(root) if root else path
        return "/" if path in ("", "/fleet") else path

    @cached_property
    def view(self) -> View:
        """What the reader has chosen; what is not understood is a problem that names it."""
        given = {name: value for name, value in self.request.query_params.items() if value}
        return View(
            from_=_moment(given.get("from"), "from"),
            to=_moment(given.get("to"), "to", whole_day=True),
            range_=given["range"] if given.get("range") in (*PRESETS, "all") else "",
            version=given.get("version", ""),
            window=given.get("window", ""),
            monitor=given.get("monitor", ""),
            feature=given.get("feature", ""),
            sort=given.get("sort", ""),
            state=given.get("state", ""),
            q=given.get("q", ""),
            slice_=given.get("slice", ""),
        )

    @cached_property
    def links(self) -> Links:
        """Addresses under the public address's path prefix."""
        return Links(urlsplit(self.parts.settings.public_url).path.rstrip("/"))

    def frame(self, here: str = "", models: Sequence[ModelLink] | None = None) -> Frame:
        """Return what surrounds the page."""
        query = self.request.url.query
        return Frame(
            now=self.now,
            public_url=self.parts.settings.public_url,
            path=self.path,
            here=here,
            viewer=self.principal.name,
            software=self.parts.software,
            models=tuple(self._rail(here) if models is None else models[:RAIL]),
            theme=theme_of(self.request),
            links=self.links,
            assets=addresses(self.links),
            csrf=self.principal.csrf or "",
            query=f"?{query}" if query else "",
        )

    def _rail(self, here: str) -> list[ModelLink]:
        rows = self.session.scalars(
            visible(self.principal, select(ModelRow).where(ModelRow.archived_at.is_(None)))
        ).all()
        stands = fleet_stands(self.session, rows, self.now)
        links = sorted(
            (ModelLink(name=row.name, standing=stands[row.id].standing) for row in rows),
            key=lambda link: (link.standing.rank, link.name),
        )
        shown = links[:RAIL]
        if here and here not in (link.name for link in shown):
            shown = [*(link for link in links if link.name == here), *shown[: RAIL - 1]]
        return shown


@dataclass
class ModelVisit:
    """A visit to one of a model's pages, in one version."""

    visit: Visit
    model: ModelRow
    version: VersionRow | None
    versions: list[VersionRow]

    @classmethod
    def to(cls, visit: Visit, name: str, version: str | None = None) -> "ModelVisit":
        """Open the model of that name in the chosen version, else its active one, else the one that moved last."""
        session = visit.session
        model = model_named(session, visit.principal, name)
        versions = list(
            session.scalars(select(VersionRow).where(VersionRow.model_id == model.id).order_by(VersionRow.id.desc()))
        )
        wanted = version or visit.view.version
        if wanted:
            chosen: VersionRow | None = version_named(session, model, wanted)
        else:
            chosen = next(
                (row for row in versions if row.id == model.active_version_id), versions[0] if versions else None
            )
        return cls(visit, model, chosen, versions)

    @property
    def session(self) -> Session:
        """The state of the database that the page shows."""
        return self.visit.session

    @cached_property
    def monitors(self) -> list[MonitorRow]:
        """The model's monitors, by name."""
        return list(
            self.session.scalars(select(MonitorRow).where(MonitorRow.model_id == self.model.id).order_by(MonitorRow.id))
        )

    @cached_property
    def statuses(self) -> list[tuple[Stand, MonitorRow]]:
        """How each monitor of the version stands, worst first."""
        by_id = {monitor.id: monitor for monitor in self.monitors}
        if self.version is None:
            return []
        rows = self.session.scalars(select(ModelStatusRow).where(ModelStatusRow.version_id == self.version.id))
        watching = [(row, by_id[row.monitor_id]) for row in rows if row.monitor_id in by_id]
        found = [(stand_of(row, monitor.window), monitor) for row, monitor in watching]
        return sorted(found, key=lambda pair: (pair[0].standing.rank, pair[1].name))

    @cached_property
    def stale(self) -> bool:
        """Whether the newest record is older than it should be."""
        last = self.version.last_event_at if self.version is not None else None
        return is_stale([stand for stand, _ in self.statuses], last, self.visit.now)

    @cached_property
    def alerts(self) -> list[AlertRow]:
        """The model's alerts that are not over, newest first."""
        return list(
            self.session.scalars(
                select(AlertRow)
                .where(AlertRow.model_id == self.model.id, AlertRow.state.in_(OPEN_STATES))
                .order_by(AlertRow.id.desc())
                .limit(20)
            )
        )

    @cached_property
    def standing(self) -> Standing:
        """How the version stands."""
        enabled = sum(monitor.enabled for monitor in self.monitors)
        mine = [stand for stand, _ in self.statuses]
        alerts = [alert for alert in self.alerts if self.version is not None and alert.version_id == self.version.id]
        return model_standing(mine, len(alerts), enabled, self.stale)

    def head(self) -> ModelHead:
        """Return the head of the page."""
        baseline = baselines.newest(self.session, self.version) if self.version is not None else None
        return ModelHead(
            name=self.model.name,
            task=self.model.task,
            standing=self.standing,
            version=self.version.name if self.version is not None else None,
            versions=tuple(row.name for row in self.versions),
            open_alerts=len(self.alerts),
            baseline=baseline.name if baseline is not None else None,
            last_record=self.version.last_event_at if self.version is not None else None,
            description=self.model.description,
        )

    @cached_property
    def range(self) -> tuple[str, datetime, datetime]:
        """The preset in use (empty where from and to say), and the half-open stretch of time."""
        view, now = self.visit.view, self.visit.now
        newest = self._newest() or now
        if view.from_ or view.to:
            end = view.to or max(newest, view.from_ or newest)
            return "", view.from_ or end - PRESETS["30d"], end
        preset = view.range_ or self._usual_range()
        if preset == "all":
            return preset, self._oldest() or newest - PRESETS["90d"], newest
        start = newest - PRESETS[preset]
        return preset, max(start, self._oldest() or start), newest

    @property
    def view(self) -> View:
        """What the reader chose, with the range that was taken where none was."""
        chosen = {name: getattr(self.visit.view, name) for name in View.__dataclass_fields__}
        return View(**(chosen | {"range_": self.range[0]}))

    def _usual_range(self) -> str:
        lengths = [LENGTHS.get(monitor.window, DAY) for monitor in self.monitors]
        shortest = min(lengths, default=DAY)
        if shortest < DAY:
            return "7d"
        return "90d" if shortest == DAY else "all"

    def _newest(self) -> datetime | None:
        if self.version is None:
            return None
        end: datetime | None = self.session.scalar(
            select(func.max(RunRow.ends_at)).where(RunRow.version_id == self.version.id, RunRow.current.is_(True))
        )
        if end is not None or self.version.last_event_at is None:
            return end
        return self.version.last_event_at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    def _oldest(self) -> datetime | None:
        if self.version is None:
            return None
        start: datetime | None = self.session.scalar(
            select(func.min(RunRow.starts_at)).where(RunRow.version_id == self.version.id, RunRow.current.is_(True))
        )
        return start or self.version.first_event_at

    def runs(self, monitors: Sequence[MonitorRow], at_most: int, *, documents: bool) -> list[Any]:
        """Return the current runs of some monitors inside the range, oldest first, at most so many windows."""
        if self.version is None or not monitors:
            return []
        _, start, end = self.range
        statement = (
            select(RunRow)
            .where(
                RunRow.version_id == self.version.id,
                RunRow.monitor_id.in_([monitor.id for monitor in monitors]),
                RunRow.current.is_(True),
                RunRow.ends_at > start,
                RunRow.starts_at < end,
                RunRow.status.not_in(UNFINISHED),
            )
            .order_by(RunRow.ends_at.desc(), RunRow.id.desc())
            .limit(at_most * len(monitors))
        )
        if not documents:
            statement = statement.options(defer(RunRow.document))
        return list(reversed(self.session.scalars(statement).all()))

    def banners(self) -> tuple[Banner, ...]:
        """Return what a reader must know before he believes the page."""
        found = []
        replay = any(alert.replayed for alert in self.alerts)
        last = self.version.last_event_at if self.version is not None else None
        if last is not None and self.stale:
            ago = formats.age(last, self.visit.now)
            text = f"The last record is of {formats.moment(last)} UTC, {ago}: this is how it stood then."
            found.append(Banner(text=text + (" Replayed history." if replay else "")))
        if self.version is not None and not self.version.registered:
            found.append(
                Banner(
                    text=f"Version {self.version.name} was never registered: it was made by its first record.",
                    standing=Standing.WAITING,
                )
            )
        return tuple(found)

    def empty(self) -> Empty | None:
        """Return what to do next where the model cannot show anything yet: records, a baseline, monitors, patience."""
        if self.statuses:
            return None
        base = f"{self.visit.parts.settings.public_url.rstrip('/')}/v1/models/{self.model.name}"
        baseline = commands.post_file(
            "Store a baseline: the rows it was trained or tested on",
            f"{base}/baselines?name=training&timestamp=time&prediction=prediction",
            "training.parquet",
            "application/vnd.apache.parquet",
        )
        record = {"prediction_id": "a-1", "features": {"age": 41}, "prediction": 1, "score": 0.83}
        predictions = commands.post("Post predictions", f"{base}/predictions", record)
        monitors = commands.post("Watch it every day", f"{base}/monitors/defaults", {"window": "1d"})
        if self.version is None:
            return Empty(
                title="Nothing has arrived yet",
                text="A model is compared with a baseline. Store one, post predictions, and switch the monitors on.",
                commands=(baseline, predictions, monitors),
            )
        needs_none = any(arriving(monitor) == METRICS for monitor in self.monitors)
        if not needs_none and baselines.newest(self.session, self.version) is None:
            return Empty(
                title="Records arrive, but there is nothing to compare them with",
                text="Store a baseline: the rows that it was trained or tested on, in order of time if you can.",
                commands=(baseline,),
            )
        if not self.monitors:
            return Empty(
                title="Nothing is watched yet",
                text="Records and a baseline are there. The default monitors check data quality and drift.",
                commands=(monitors,),
            )
        first = self.version.first_event_at
        since = f"The first record is of {formats.moment(first)} UTC." if first else "No record has arrived yet."
        patience = "look once a window has ended and its late records have had an hour to arrive."
        return Empty(
            title="Waiting for the first whole window",
            text=f"{formats.plural(len(self.monitors), 'monitor')} will {patience} {since}",
            commands=() if first else (predictions,),
        )


def theme_of(request: Request) -> str:
    """Return the theme that the browser keeps."""
    theme = request.cookies.get("plumbline_theme", "auto")
    return theme if theme in ("light", "dark") else "auto"


def addresses(links: Links) -> Mapping[str, str]:
    """Return the address of each static file."""
    return {name: links.to(f"/static/{asset.name}") for name, asset in assets().items()}


def may_operate(principal: Principal) -> bool:
    """Return whether the reader may acknowledge and resend from a browser."""
    return principal.may(Scope.OPERATE) and principal.csrf is not None


def _moment(text: str | None, name: str, *, whole_day: bool = False) -> datetime | None:
    if not text:
        return None
    if len(text) == 10:  # a date of the form's fields; the last day is meant to be inside
        return parse_time(f"{text}T00:00:00Z", f"query:{name}") + (DAY if whole_day else timedelta())
    return parse_time(text, f"query:{name}")
