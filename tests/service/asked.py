"""A model with a policy of retraining, whose hourly windows are judged as fast as they can be written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import alerts, retraining
from service.alerts import Finding
from service.clock import SetClock
from service.database import Database
from service.schema import migrate
from service.settings import Settings
from service.tables import (
    AlertRow,
    ArrivalRow,
    DeliveryRow,
    ModelRow,
    MonitorRow,
    RetrainingPolicyRow,
    RetrainingRow,
    RunRow,
    VersionRow,
    WebhookRow,
)
from service.vault import Vault
from service.words import HOUR, bucket_of, new_id
from tests.service.empty import copy_empty

START = datetime(2026, 3, 2, tzinfo=UTC)
SECRET = b"0123456789abcdef0123456789abcdef"
POLICY: dict[str, Any] = {
    "when": {"monitors": ["performance"], "windows": "2 of 3"},
    "not_while": ["data_quality"],
    "min_labelled_rows": 0,
    "cooldown": "7d",
    "at_most": {"per": "1d", "times": 1},
    "approval": "auto",
    "promote": "manual",
    "deadline": "24h",
    "training_data": {"span": "90d", "include_baseline": True},
}


def result(verdict: str) -> dict[str, Any]:
    """Return the deciding result of a window."""
    return {"metric": "accuracy", "scale": 1, "verdict": verdict, "value": 0.5, "effect": 0.3, "min_effect": 0.1}


@dataclass
class Asked:
    """One model, its versions, two monitors and a policy."""

    folder: Path
    url: str | None = None
    policy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = Settings(data_dir=self.folder, public_url="https://plumbline.test", database_url=self.url)
        self.database = Database(self.settings.database)
        if self.url is None:
            copy_empty(self.folder / "plumbline.db")
        else:
            migrate(self.database)
        self.clock = SetClock(START)
        with self.database.writing() as session:
            model = ModelRow(uid=new_id(), name="loans", task="binary", alarm_budget={}, created_at=START)
            session.add(model)
            session.flush()
            for name in ("data_quality", "performance"):
                session.add(
                    MonitorRow(
                        uid=new_id(),
                        model_id=model.id,
                        name=name,
                        kind=name,
                        schedule="hourly",
                        window="1h",
                        created_at=START,
                    )
                )
            session.add(
                RetrainingPolicyRow(
                    model_id=model.id, policy={**POLICY, **self.policy}, created_at=START, updated_at=START
                )
            )
            session.add(
                WebhookRow(
                    uid=new_id(),
                    name="trainer",
                    url="https://trainer.test/",
                    events=["retraining.requested"],
                    secret=Vault(SECRET).lock("whsec_c2VjcmV0"),
                    created_at=START,
                )
            )
        self.activate("v1")

    def activate(self, name: str) -> None:
        """Register a version and make it the active one."""
        with self.database.writing() as session:
            model = session.scalars(select(ModelRow)).one()
            version = VersionRow(model_id=model.id, name=name, created_at=START)
            session.add(version)
            session.flush()
            model.active_version_id = version.id

    def judge(
        self,
        hours: Sequence[int],
        *,
        performance: str | None = "violated",
        quality: str | None = "ok",
        quality_first: bool = True,
        reported: str | None = None,
        expiring: bool = True,
    ) -> None:
        """Judge both monitors' windows of some hours, each an hour after its end, in few transactions.

        ``reported`` is what the receiver says at once about whatever is asked for.
        """
        for start in range(0, len(hours), 100):
            with self.database.writing() as session:
                for hour in hours[start : start + 100]:
                    self.clock.at = START + (hour + 2) * HOUR
                    order = [("data_quality", quality), ("performance", performance)]
                    for name, verdict in order if quality_first else reversed(order):
                        if verdict is not None:
                            self.judge_one(session, name, hour, verdict)
                    if reported is not None:
                        self.report(session, reported)
                    if expiring:
                        retraining.expire(session, self.settings, self.clock.now())

    def judge_one(
        self,
        session: Session,
        name: str,
        hour: int,
        verdict: str,
        version: VersionRow | None = None,
        *,
        ahead: bool = False,
    ) -> RetrainingRow | None:
        """Record a run of a monitor over an hour and do what follows, as a run's transaction does.

        ``ahead`` is one that somebody asked for before the window's own look: it is not judged.
        """
        model = session.scalars(select(ModelRow)).one()
        version = version or session.get_one(VersionRow, model.active_version_id)
        monitor = session.scalars(select(MonitorRow).where(MonitorRow.name == name)).one()
        run = RunRow(
            uid=new_id(),
            model_id=model.id,
            monitor_id=monitor.id,
            version_id=version.id,
            starts_at=START + hour * HOUR,
            ends_at=START + (hour + 1) * HOUR,
            status={"violated": "violations", "ok": "ok", "not_measured": "insufficient_data"}[verdict],
            violated=int(verdict == "violated"),
            ok=int(verdict == "ok"),
            judged=verdict != "not_measured" and not ahead,
            backfill=ahead,
            rows=100,
            baseline_id=1,
        )
        session.add(run)
        session.flush()
        finding = Finding(
            model=model, version=version, monitor=monitor, run=run, results=[result(verdict)], baseline="reference"
        )
        if not run.judged:
            return None
        alerts.update(session, finding, self.settings, self.clock.now())
        return retraining.consider(session, finding, self.settings, self.clock.now())

    def report(self, session: Session, state: str) -> None:
        """Report a state of all that is asked for and not over."""
        for row in session.scalars(select(RetrainingRow).where(RetrainingRow.state == "requested")):
            retraining.report(session, row, state, self.settings, self.clock.now())

    def label(self, hour: int, rows: int) -> None:
        """Count labels of predictions of an hour."""
        with self.database.writing() as session:
            version = session.scalars(select(VersionRow).order_by(VersionRow.id.desc()).limit(1)).one()
            session.add(
                ArrivalRow(
                    model_id=version.model_id,
                    version_id=version.id,
                    kind="ground_truth",
                    bucket=bucket_of(START + hour * HOUR),
                    accepted=rows,
                    reasons={},
                )
            )

    def asked(self) -> list[RetrainingRow]:
        """Return what was asked for, in order."""
        with self.database.reading() as session:
            return list(session.scalars(select(RetrainingRow).order_by(RetrainingRow.id)))

    def calls(self) -> list[DeliveryRow]:
        """Return the calls that are owed to the trainer."""
        with self.database.reading() as session:
            return list(session.scalars(select(DeliveryRow).order_by(DeliveryRow.id)))

    def held(self) -> str:
        """Return why nothing is asked for, as far as it was said."""
        with self.database.reading() as session:
            row = session.scalars(select(RetrainingPolicyRow)).one()
            return "" if row.held is None else str(row.held["reason"])

    def episodes(self) -> list[AlertRow]:
        """Return the episodes."""
        with self.database.reading() as session:
            return list(session.scalars(select(AlertRow).order_by(AlertRow.id)))

    def most_within(self, length: timedelta) -> int:
        """Return the most requests within a stretch of time."""
        moments = [row.moment for row in self.asked()]
        return max((sum(one <= other < one + length for other in moments) for one in moments), default=0)
