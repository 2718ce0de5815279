"""Load on an installation under faults: clients that write down what was acknowledged, and the count at the end."""

import itertools
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow.parquet as pq
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from service import windows
from service.assembly import Assembly
from service.clock import SetClock
from service.lake import reader
from service.scheduler import Scheduler
from service.tables import (
    AlertRow,
    ArrivalRow,
    DeliveryRow,
    IngestBatchRow,
    JobRow,
    ModelRow,
    MonitorRow,
    ResultRow,
    RetrainingRow,
    RunRow,
    SegmentRow,
    VersionRow,
)
from service.words import Span, bucket_of, bucket_start, format_time
from tests.faults.processes import MODEL, SharedClock, Site, declare, wait_until

ROWS, MANY, SELDOM = 40, 2_500, 20
"""So many rows in a batch, and in one of twenty so many that they go into a file of the buffer."""
LABELLED = 10
DRIFT = timedelta(hours=4)
"""Two hours as always, two hours older, and again."""
NEAR = timedelta(hours=1)
"""Two seconds of the processes' time lie at most between what a run found and what follows from it."""
REFUSALS = {"409", "429", "503", "507"}
"""What a client may be told under faults, besides that all is well."""


# --- who sends and who is called --------------------------------------------------------------------------------------


def records(name: str, turn: int, now: datetime, shift: float, random: np.random.Generator) -> list[dict[str, Any]]:
    count = MANY if turn % SELDOM == SELDOM // 2 else ROWS
    ages = random.normal(40 + 25 * shift, 10, count).round(2)
    return [
        {
            "prediction_id": f"{name}-{turn}-{i}",
            "timestamp": format_time(now - timedelta(seconds=float(random.uniform(0, 900)))),
            "features": {"age": float(ages[i]), "job": str(random.choice(["clerk", "nurse"]))},
            "prediction": int(ages[i] > 40),
            "score": 0.5,
        }
        for i in range(count)
    ]


def post(site: Site, name: str, pause: float = 0.1) -> None:
    """Post batches and their labels, each until it is acknowledged; write down what was, and any answer but 200."""
    clock = site.clock or SetClock(datetime.now(UTC))
    random = np.random.default_rng([*name.encode()])
    with (
        site.client() as client,
        (site.folder / f"acked-{name}").open("a", buffering=1) as acked,
        (site.folder / f"odd-{name}").open("a", buffering=1) as odd,
    ):
        for turn in itertools.count():
            now = clock.now()
            drifted = float((now - bucket_start(0)) % DRIFT >= DRIFT / 2)
            sent = records(name, turn, now, drifted, random)
            told = [{"prediction_id": row["prediction_id"], "ground_truth": 1} for row in sent[:LABELLED]]
            bodies: list[tuple[str, Any]] = [("predictions", sent), ("ground-truth", told)]
            for path, body in bodies if random.random() < 0.7 else reversed(bodies):
                while True:
                    with suppress(httpx2.HTTPError):
                        key = {"Idempotency-Key": f"{name}-{turn}-{path}"}
                        answer = client.post(f"{MODEL}/{path}", json=body, headers=key)
                        if answer.status_code == 200:
                            break
                        odd.write(f"{answer.status_code} {time.time():.3f} {answer.text[:300]}\n")
                    time.sleep(0.05)
            acked.write("".join(f"{row['prediction_id']}\n" for row in sent))
            time.sleep(pause)


def ask(site: Site, name: str = "operator") -> None:
    """Ask, over and over, for the last hours to be run again; write down what was accepted."""
    assert site.clock is not None
    with (
        site.client() as client,
        (site.folder / f"jobs-{name}").open("a", buffering=1) as jobs,
        (site.folder / f"odd-{name}").open("a", buffering=1) as odd,
    ):
        for turn in itertools.count():
            end = bucket_start(bucket_of(site.clock.now()) - 1)
            body = {"from": format_time(end - timedelta(hours=3)), "to": format_time(end), "each": "1h"}
            with suppress(httpx2.HTTPError):
                key = {"Idempotency-Key": f"{name}-{turn}"}
                answer = client.post(f"{MODEL}/monitors/inputs/runs", json=body, headers=key)
                if answer.status_code == 202:
                    jobs.write(f"{answer.json()['job'].rpartition('/')[2]}\n")
                else:
                    odd.write(f"{answer.status_code} {time.time():.3f} {answer.text[:300]}\n")
            time.sleep(1.5)


def receive(folder: str, port: Connection) -> None:
    """Be a receiver that answers 503 to every fifth call, and write down the ids of those it took.

    A retraining is begun at the first call of an id, and at none that repeats it; then it is reported that it worked.
    """
    turn = itertools.count(1)
    file = (Path(folder) / "received").open("a", buffering=1)
    trained = (Path(folder) / "begun").open("a", buffering=1)
    known: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length).decode()
            if len(body.encode()) < length:
                return  # the sender was killed between head and end of the call, which it will make again
            takes = next(turn) % 5 != 0
            if takes:
                said = {name: self.headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
                file.write(json.dumps([said, body]) + "\n")
                told = json.loads(body)
                if told["type"] == "retraining.requested" and said["id"] not in known:
                    known.add(said["id"])
                    trained.write(json.dumps([told["data"]["episode"], told["data"]["retraining"]]) + "\n")
                    threading.Thread(target=report, args=(told["data"]["callback_url"],), daemon=True).start()
            self.send_response(204 if takes else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_address[1])
    server.serve_forever()


def report(url: str) -> None:
    """Report that a retraining worked, until the service has heard of it."""
    while True:
        with suppress(Exception):  # whatever a killed service does to a call, it is made again
            if httpx2.post(url, json={"state": "succeeded"}, timeout=10.0).status_code in (200, 409):
                return
        time.sleep(0.1)


def received(site: Site, secret: str) -> Counter[str]:
    """Return how often each webhook id was received; each call's signature is verified."""
    webhook, found = Webhook(secret), Counter[str]()
    for line in (site.folder / "received").read_text().splitlines() if (site.folder / "received").exists() else ():
        said, body = json.loads(line)
        at = datetime.fromtimestamp(int(said["timestamp"]), UTC)
        assert webhook.sign(said["id"], at, body) in said["signature"].split(" ")
        found[said["id"]] += 1
    return found


# --- what is watched --------------------------------------------------------------------------------------------------


def prepare(site: Site, receiver_port: int) -> str:
    """Make what is watched, a policy of retraining and a webhook; return the webhook's secret."""
    assert site.clock is not None
    with site.client() as client:
        declare(client, bucket_start(bucket_of(site.clock.now())))
        policy = {"when": {"monitors": ["inputs"], "windows": "1 of 1"}, "not_while": [], "min_labelled_rows": 0}
        often = {"cooldown": "1s", "at_most": {"per": "1s", "times": 1000}, "deadline": "30d"}
        client.put(f"{MODEL}/retraining", json=policy | often).raise_for_status()
        hook = {"name": "hook", "url": f"http://127.0.0.1:{receiver_port}/hook", "events": ["*"]}
        return str(client.post("/v1/webhooks", json=hook).raise_for_status().json()["secret"])


def acknowledged(folder: Path) -> set[str]:
    """Return the ids of the records that were answered with 200."""
    return {name for file in folder.glob("acked-*") for name in file.read_text().split("\n")[:-1]}


def goes_on(folder: Path) -> None:
    """Wait until a record more is acknowledged: the load reached whatever was killed or stopped before."""

    def written() -> int:
        return sum(file.stat().st_size for file in folder.glob("acked-*"))

    before = written()
    wait_until(lambda: written() > before, "the load")


def begun(folder: Path) -> list[tuple[str, str]]:
    """Return the episodes for which the receiver began to train, each with the id of its retraining."""
    return [(episode, uid) for episode, uid in map(json.loads, (folder / "begun").read_text().splitlines())]


def refusals(folder: Path) -> list[str]:
    """Return what clients were answered that was not 200."""
    return [line for file in folder.glob("odd-*") for line in file.read_text().splitlines()]


# --- the count at the end ---------------------------------------------------------------------------------------------


@dataclass
class Count:
    """What was found at the end, for whoever reads the log."""

    acknowledged: int
    stored: int
    windows: int
    retaken: int
    revisions: int
    alerts: int
    deliveries: int
    calls: int
    retrainings: int
    jobs: int


def settle(site: Site) -> Assembly:
    """Finish in this process what the killed ones left: seal, run, send, until nothing is due."""
    assert isinstance(site.clock, SharedClock)
    clock = SetClock(site.clock.now())
    parts = site.assembly(clock=clock)
    scheduler = Scheduler(parts)
    with parts.database.reading() as session:
        models = session.scalars(select(ModelRow.id)).all()
    for _ in range(400):
        for model_id in models:
            parts.sealer.seal(model_id)
        done = scheduler.tick()
        with parts.database.reading() as session:
            owed = session.scalar(select(func.count()).select_from(DeliveryRow).where(DeliveryRow.state == "pending"))
        if not done and not owed:
            return parts
        if not done:
            clock.move(timedelta(minutes=10))  # the next attempt of a call, and revisions of what came late
    raise AssertionError("work is left after four hundred rounds")


def check(site: Site, secret: str, *, each_episode: bool = False) -> Count:
    """Count what is stored by another way than the service's own: nothing lost, nothing double, nothing missing.

    With `each_episode` an episode for which nothing was asked has to have a reason too.
    """
    assert {line[:3] for line in refusals(site.folder)} <= REFUSALS, refusals(site.folder)[:5]
    parts = settle(site)
    with parts.database.reading() as session:
        stored = check_records(site, parts, session)
        scheduled = check_windows(parts, session)
        calls = check_calls(site, session, secret)
        retrainings = check_retrainings(site, session, each_episode)
        jobs = check_jobs(site, session)
        count = Count(
            acknowledged=len(acknowledged(site.folder)),
            stored=stored,
            windows=scheduled,
            retaken=total(session, select(RunRow.id).where(RunRow.attempt > 1)),
            revisions=total(session, select(RunRow.id).where(RunRow.revision > 1)),
            alerts=total(session, select(AlertRow.id)),
            deliveries=total(session, select(DeliveryRow.id)),
            calls=calls,
            retrainings=retrainings,
            jobs=jobs,
        )
    parts.database.close()
    return count


def total(session: Session, statement: Any) -> int:
    """Return how many rows a statement has."""
    return int(session.scalar(select(func.count()).select_from(statement.subquery())) or 0)


def check_records(site: Site, parts: Assembly, session: Session) -> int:
    """Read every segment of the manifest and compare with what was acknowledged."""
    acked = acknowledged(site.folder)
    assert total(session, select(IngestBatchRow.id)) == 0
    paths = session.scalars(select(SegmentRow.path).where(SegmentRow.kind == "predictions")).all()
    stored = [name for path in paths for name in pq.read_table(parts.lake.path(path))["prediction_id"].to_pylist()]
    assert acked - set(stored) == set(), "acknowledged and lost"
    assert len(stored) == len(set(stored)), "stored twice"
    assert session.scalar(select(func.sum(ArrivalRow.accepted)).where(ArrivalRow.kind == "predictions")) == len(stored)
    model, version = session.scalars(select(ModelRow)).one(), session.scalars(select(VersionRow)).one()
    assert version.first_event_at is not None
    assert version.last_event_at is not None
    span = Span(version.first_event_at - timedelta(hours=1), version.last_event_at + timedelta(hours=1))
    labelled = {
        row["prediction_id"]: row["ground_truth"]
        for batch in reader.batches(session, parts.lake, model.id, version.id, span, ["prediction_id"], labels=True)
        for row in batch.to_pylist()
    }
    # Of what was acknowledged the first ten of a batch are labelled, and nothing else is.
    told = {name for name in acked if int(name.rpartition("-")[2]) < LABELLED}
    assert {name for name in acked if labelled[name] is not None} == told
    return len(stored)


def check_windows(parts: Assembly, session: Session) -> int:
    """Walk over each monitor's runs: every hour of its grid is in exactly one current run, and judged at most once."""
    version = session.scalars(select(VersionRow)).one()
    walked = 0
    for monitor in session.scalars(select(MonitorRow)).all():
        grid = windows.grid_of(monitor.schedule, monitor.window, monitor.offset)
        runs = session.scalars(
            select(RunRow)
            .where(RunRow.monitor_id == monitor.id, RunRow.current.is_(True))
            .order_by(RunRow.starts_at, RunRow.ends_at)
        ).all()
        assert {run.status for run in runs} <= {
            "ok",
            "violations",
            "partial",
            "insufficient_data",
            "no_data",
        }, Counter(run.status for run in runs)
        first = next(windows.due(grid, monitor.created_at, None, parts.clock.now()))
        last = grid.last_end(first.start, parts.clock.now() - timedelta(seconds=parts.settings.lateness_seconds))
        early = [run for run in runs if run.starts_at < first.start]  # asked for, of hours before the monitor was there
        assert all(run.backfill and run.ends_at <= first.start for run in early), story(session, early[-1])
        at = first.start
        for run in runs[len(early) :]:
            assert run.starts_at == at, f"{monitor.name}: a window is missing or double at {at}: {story(session, run)}"
            at = run.ends_at
        assert at == last, f"{monitor.name}: windows end at {at}, not {last}"
        walked += len(runs)
        judged = (
            select(RunRow.starts_at, RunRow.ends_at, func.count())
            .where(RunRow.monitor_id == monitor.id, RunRow.version_id == version.id, RunRow.judged.is_(True))
            .group_by(RunRow.starts_at, RunRow.ends_at)
            .having(func.count() > 1)
        )
        assert session.execute(judged).all() == []
    halves = session.execute(
        select(RunRow.id, RunRow.ok + RunRow.violated + RunRow.not_measured, func.count(ResultRow.id))
        .outerjoin(ResultRow, ResultRow.run_id == RunRow.id)
        .group_by(RunRow.id, RunRow.ok, RunRow.violated, RunRow.not_measured)
    ).all()
    assert [row for row in halves if row[1] != row[2]] == [], "results stored in part"
    return walked


def story(session: Session, at: RunRow) -> str:
    """Return every run of a monitor that touches a window, for whoever finds a gap or an overlap."""
    near = (RunRow.starts_at <= at.ends_at, RunRow.ends_at >= at.starts_at)
    rows = session.scalars(select(RunRow).where(RunRow.monitor_id == at.monitor_id, *near).order_by(RunRow.id)).all()
    told = (
        f"{row.id} {row.starts_at:%H:%M}-{row.ends_at:%H:%M} revision {row.revision} {row.status} rows {row.rows}"
        f"{' current' if row.current else ''}{' asked for' if row.backfill else ''} attempt {row.attempt}"
        f" from {row.started_at} to {row.finished_at}"
        for row in rows
    )
    return "; ".join(told)


def check_calls(site: Site, session: Session, secret: str) -> int:
    """Compare what was owed with what the receiver took: every id at least once, and no id that nobody owed."""
    took = received(site, secret)
    owed = session.scalars(select(DeliveryRow)).all()
    assert {row.uid for row in owed} == set(took)
    assert {row.state for row in owed} <= {"delivered"}
    opened = Counter(row.alert_id for row in owed if row.event == "alert.opened")
    episodes = session.scalars(select(AlertRow.id).where(AlertRow.kind == "episode")).all()
    assert opened == Counter(episodes), "one call says that an episode has begun"
    return sum(took.values())


def check_retrainings(site: Site, session: Session, each_episode: bool) -> int:
    """Count what the receiver began, by episode: once for each, and for none while another was under way all the time.

    Whoever began twice would have seen two ids for one episode.
    """
    lines = begun(site.folder)
    trained = Counter(episode for episode, _retraining in lines)
    asked = session.scalars(select(RetrainingRow)).all()
    assert {row.uid for row in asked} == {retraining for _episode, retraining in lines}
    assert set(trained.values()) == {1}, trained
    heard = sorted((row.created_at, row.state) for row in asked)
    assert {state for _created_at, state in heard[:-1]} <= {"succeeded"}, heard  # the last may have had no time to
    if not each_episode:
        return len(lines)
    drift = session.scalars(select(MonitorRow).where(MonitorRow.name == "inputs")).one()
    for alert in session.scalars(select(AlertRow).where(AlertRow.kind == "episode", AlertRow.uid.not_in(trained))):
        within = (RunRow.starts_at >= alert.starts_at, RunRow.ends_at <= alert.last_violated_at)
        runs = select(RunRow).where(RunRow.monitor_id == drift.id, RunRow.judged.is_(True), RunRow.violated > 0)
        for run in session.scalars(runs.where(*within)):
            assert run.finished_at is not None
            if run.finished_at <= alert.opened_at and run.uid != alert.evidence["run"]:
                continue  # it was judged in the episode before
            if alert.resolved_at is not None and run.finished_at >= alert.resolved_at:
                continue  # it came late, when the episode was over already
            told = f"nothing was asked for {alert.sentence} of {alert.opened_at}: {story(session, run)}; {heard}"
            assert any(suppresses(row, run.finished_at) for row in asked), told
    return len(lines)


def suppresses(row: RetrainingRow, at: datetime) -> bool:
    """Return whether a retraining was under way at a moment, so that nothing else was asked for."""
    return row.created_at <= at + NEAR and (row.finished_at is None or row.finished_at >= at - NEAR)


def accepted(folder: Path) -> set[str]:
    """Return the ids of the jobs that were answered with 202."""
    return {name for file in folder.glob("jobs-*") for name in file.read_text().split("\n")[:-1]}


def check_jobs(site: Site, session: Session) -> int:
    """Look for every job that was accepted: done, with all its windows run."""
    rows = session.scalars(select(JobRow).where(JobRow.kind == "backfill")).all()
    assert accepted(site.folder) <= {row.uid for row in rows}
    for row in rows:
        assert (row.state, row.done) == ("done", row.total), (row.state, row.done, row.total)
        assert total(session, select(RunRow.id).where(RunRow.job_id == row.id)) == row.total
    return len(rows)
