"""A shop that is watched: a baseline in order of time, monitors, and a scheduler that is woken by hand."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from service import baselines, uploads
from service.assembly import Assembly
from service.clock import SetClock
from service.database import Database
from service.explanations import Explanations
from service.ingest.hashing import hash_ids, hash_key
from service.runs import CRASHES
from service.scheduler import Scheduler
from service.tables import AlertRow, DeliveryRow, ModelRow, MonitorRow, ReplayRow, RunRow
from service.webhooks import Sender
from service.words import UNFINISHED, Span, new_id
from service.worker import Worker
from tests.service.records import HOUR, MOMENT, SECRET, START, Shop, hours

BASELINE_DAYS = 40
PER_HOUR = 3
TEMPLATES: dict[tuple[object, ...], Path] = {}
"""What shops begin with, by what they are made of."""


def stream(first: int, last: int, *, shift: float = 0.0, per_hour: int = PER_HOUR, name: str = "r") -> pa.Table:
    """Return rows of some hours, counted from the start of the stream; the same hours give the same rows."""
    count = (last - first) * per_hour
    generator = np.random.default_rng([last, first + 10_000, int(1000 * shift) + 1])
    moments = START + first * HOUR + (np.arange(count) * HOUR) // per_hour
    ages = generator.normal(40 + 10 * shift, 10, count)
    scores = 1 / (1 + np.exp(-(ages - 40) / 10 + generator.normal(0, 1, count)))
    ids = pa.array([f"{name}{moment}" for moment in moments])
    return pa.table(
        {
            "prediction_id": ids,
            "id_hash": pa.array(hash_ids(ids, hash_key(SECRET))),
            "timestamp": pa.array(moments).cast(MOMENT),
            "received_at": pa.array(moments + HOUR // 2).cast(MOMENT),
            "version": pa.array(["a"] * count),
            "features.age": pa.array(ages),
            "features.job": pa.array(generator.choice(["clerk", "nurse", "smith"], count, p=[0.5, 0.3, 0.2])),
            "prediction": pa.array(np.where(scores > 0.5, "1", "0")),
            "score": pa.array(scores),
        }
    )


def begun_often(url: str) -> bool:
    """Return whether a window that is not over was begun so often that more kills would end it: see `runs.CRASHES`."""
    database = Database(url)  # opened anew: no connection is there when a process is forked
    often = select(RunRow.id).where(RunRow.status.in_(UNFINISHED), RunRow.attempt >= CRASHES - 2)
    try:
        with database.reading() as session:
            return session.scalar(often.limit(1)) is not None
    finally:
        database.close()


def truth_of(table: pa.Table, flip: float = 0.0) -> list[str]:
    """Return labels that meet the score, some of them turned over; the same rows give the same labels."""
    scores = table["score"].to_numpy()
    generator = np.random.default_rng(len(scores))
    label = generator.random(len(scores)) < 1 / (1 + np.exp(-6 * (scores - 0.5)))
    turned = label ^ (generator.random(len(scores)) < flip)
    return ["1" if one else "0" for one in turned.tolist()]


@dataclass
class Watched(Shop):
    """The shop with 40 days of baseline before the stream's start, and one monitor of each kind asked for."""

    versions: Sequence[str] = ("a",)
    kinds: Sequence[str] = ("data_drift",)
    schedule: str = "daily"
    window: str = "1d"
    ordered: bool = True
    labelled: bool = False
    """Whether the baseline's rows have labels, and ground truth is sent with `label`."""
    labels: dict[str, Any] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    worker: Worker = field(default_factory=Worker)
    prepared: bool = False
    """Whether this is the one that others like it are copied from."""

    def __post_init__(self) -> None:
        if self.url is None and not self.made and not self.prepared:
            self.made = True
            shutil.copytree(self._template(), self.folder, dirs_exist_ok=True)
        super().__post_init__()
        self.scheduler = self.another()
        if self.made:
            return
        table = stream(-24 * BASELINE_DAYS, 0, name="b")
        if self.labelled:
            table = table.append_column("ground_truth", pa.array(truth_of(table)))
        table = table.drop_columns(["id_hash", "received_at", "version"])
        with self.database.reading() as session:
            model = session.get_one(ModelRow, self.model_id)
            meaning = baselines.meaning_of(session, model, None)
        sheet = uploads.sheet_of(table, uploads.Roles(), meaning)
        wanted = baselines.Wanted(model_id=self.model_id, name="reference", version="a", ordered=self.ordered)
        baselines.create(self.database, self.lake, self.clock, wanted, sheet)
        with self.database.writing() as session:
            session.get_one(ModelRow, self.model_id).alarm_budget = {"per": "30d", "at_most": 1}
            for kind in self.kinds:
                session.add(
                    MonitorRow(
                        uid=f"{kind:_<32}",
                        model_id=self.model_id,
                        name=kind,
                        kind=kind,
                        schedule=self.schedule,
                        window=self.window,
                        starts_at=hours(0, 1).start,
                        parameters=self.parameters,
                        labels=self.labels,
                        created_at=hours(0, 1).start,
                    )
                )

    def _template(self) -> Path:
        """Return a folder with what all shops like this one begin with, made where this is the first of them."""
        alike = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("folder", "url", "clock", "made", "worker", "prepared")
        }
        key = (repr((sorted(alike.items()), self.clock.at)), BASELINE_DAYS, stream)
        if key not in TEMPLATES:
            folder = Path(tempfile.mkdtemp(prefix="plumbline-watched-"))
            Watched(folder, clock=SetClock(self.clock.at), prepared=True, **alike).database.close()
            TEMPLATES[key] = folder
        return TEMPLATES[key]

    def another(self) -> Scheduler:
        """Return a further scheduler on the same database."""
        sender = Sender(self.database, self.clock, self.settings, SECRET)
        return Scheduler(Parts(self, sender))  # type: ignore[arg-type]  # the parts a scheduler uses

    def stream(self, first: int, last: int, **how: Any) -> None:
        """Acknowledge the rows of some hours."""
        table = stream(first, last, **how)
        self.put_table("predictions", table, START + first * HOUR)

    def label(self, first: int, last: int, arrival: int, *, share: float = 1.0, flip: float = 0.0) -> None:
        """Acknowledge the labels of a share of some hours' rows, of which some are turned over, at an hour."""
        table = stream(first, last)
        kept = max(1, round(share * table.num_rows))
        arrived = START + arrival * HOUR
        self.put_table(
            "ground_truth",
            pa.table(
                {
                    "prediction_id": table["prediction_id"],
                    "id_hash": table["id_hash"],
                    "ground_truth": pa.array(truth_of(table, flip)),
                    "timestamp": pa.array([arrived] * table.num_rows).cast(MOMENT),
                    "received_at": pa.array([arrived] * table.num_rows).cast(MOMENT),
                }
            ).take(np.random.default_rng(first).permutation(table.num_rows)[:kept]),
            arrived,
        )

    def at_hour(self, hour: int) -> datetime:
        """Move the clock to an hour of the stream."""
        self.clock.at = hours(hour, hour + 1).start
        return self.clock.at

    def run(self) -> int:
        """Do what is due."""
        return self.scheduler.run_model(self.model_id) + self.scheduler.work_model(self.model_id)

    def runs(self, kind: str | None = None, **having: Any) -> list[RunRow]:
        """Return the runs in order of their windows and revisions."""
        with self.database.reading() as session:
            statement = select(RunRow).order_by(RunRow.ends_at, RunRow.monitor_id, RunRow.revision)
            if kind is not None:
                statement = statement.where(RunRow.monitor_id.in_(select(MonitorRow.id).where(MonitorRow.kind == kind)))
            for name, value in having.items():
                statement = statement.where(getattr(RunRow, name) == value)
            return list(session.scalars(statement))

    def alerts(self, kind: str = "episode") -> list[AlertRow]:
        """Return the alerts of a kind."""
        with self.database.reading() as session:
            return list(session.scalars(select(AlertRow).where(AlertRow.kind == kind).order_by(AlertRow.id)))

    def events(self) -> list[str]:
        """Return the events that calls are owed for."""
        with self.database.reading() as session:
            return list(session.scalars(select(DeliveryRow.event).order_by(DeliveryRow.id)))

    def open_replay(self, first: int, last: int, webhooks: Sequence[str] = ()) -> int:
        """Open a replay of some hours and return its row's id."""
        span = hours(first, last)
        with self.database.writing() as session:
            row = ReplayRow(
                uid=new_id(),
                model_id=self.model_id,
                starts_at=span.start,
                ends_at=span.end,
                webhooks=list(webhooks),
                opened_at=self.clock.now(),
            )
            session.add(row)
            session.flush()
            return row.id


class Parts:
    """The parts of the service that a scheduler uses, of a shop."""

    def __init__(self, shop: Watched, sender: Sender) -> None:
        self.settings, self.clock, self.database = shop.settings, shop.clock, shop.database
        self.lake, self.sealer, self.profiles, self.sender = shop.lake, shop.sealer, shop.profiles, sender
        self.software = "test"
        self.worker = shop.worker
        self.explanations = Explanations(
            shop.database, shop.lake, shop.clock, shop.settings, shop.profiles, shop.worker, sender.vault
        )


def day(number: int, length: int = 1) -> Span:
    """Return so many days of the stream."""
    return hours(24 * number, 24 * (number + length))


__all__ = ["Assembly", "Parts", "Watched", "day", "hours", "stream"]
