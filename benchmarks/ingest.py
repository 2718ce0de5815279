"""Durable ingest over HTTP on SQLite, beside the service that most teams write: FastAPI, pydantic, SQLAlchemy, JSON.

The server has core 0 to itself; the senders, the sealer and everything else have core 1. Both sides commit with fsync
before they answer, get the same records in the same run, and are measured after a second of warming up. A record has
an id, a time, 15 numbers, 5 texts, a prediction and a score. Figures are of the best of several runs: rows per second
of the clock and of the server's CPU, the time to an answer, and how many times as many rows per CPU second as the other
service, which reads JSON only, gets from JSON of as many records. Where the machine has PostgreSQL, the same on it.
The exit code says whether every target is reached at the pace of the machine that they were set on; without the other
service there is no verdict.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import JSON, Integer, String, create_engine, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from benchmarks.pace import plain_pace
from service.assembly import assemble
from service.settings import Settings
from tests.postgres import Cluster, NoServer

ROOT = Path(__file__).parent.parent
KEY = "plk_benchmark_0123456789abcdefghijklmnopqrstuv"
NUMBERS = [f"n{number}" for number in range(15)]
TEXTS = [f"c{number}" for number in range(5)]
TARGETS = {
    "sqlite": {"single": 4_000, "json x 1000": 120_000, "ndjson x 1000": 220_000, "arrow x 10000": 600_000},
    "postgresql": {"single": 2_500, "ndjson x 1000": 60_000},
}


@dataclass(frozen=True)
class Load:
    """One way in: prepared requests, how many records each has, how many senders at once."""

    name: str
    path: str
    media: str
    bodies: Sequence[bytes]
    rows: int
    senders: int


@dataclass(frozen=True)
class Measured:
    """What one load got done."""

    rows: float
    rows_per_cpu: float
    median: float
    worst: float


# --- records ----------------------------------------------------------------------------------------------------------

_PLACE = "@@@@@@@@"
"""Stands for the number of a body in the ids of its records, so that one text serves for all bodies."""


def columns(count: int) -> dict[str, list[Any]]:
    """Return records as columns, in the names of the flat formats."""
    rng = np.random.default_rng(20261122)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    found: dict[str, list[Any]] = {
        "prediction_id": [f"prediction-{_PLACE}-{number:06d}" for number in range(count)],
        "timestamp": [(start + timedelta(seconds=number % 3600)).isoformat() for number in range(count)],
    }
    for name in NUMBERS:
        found[f"features.{name}"] = np.round(rng.normal(50, 15, count), 4).tolist()
    for number, name in enumerate(TEXTS):
        found[f"features.{name}"] = [f"category {code}" for code in rng.integers(0, 5 * (number + 1), count)]
    found["score"] = np.round(rng.random(count), 6).tolist()
    found["prediction"] = [int(score >= 0.5) for score in found["score"]]
    return found


def records(count: int) -> list[dict[str, Any]]:
    """Return the same records as JSON objects."""
    found = columns(count)
    made = []
    for row in zip(*found.values(), strict=True):
        record: dict[str, Any] = {"features": {}}
        for name, value in zip(found, row, strict=True):
            if name.startswith("features."):
                record["features"][name.removeprefix("features.")] = value
            else:
                record[name] = value
        made.append(record)
    return made


def numbered(text: bytes, first: int, count: int) -> list[bytes]:
    """Return a body so often, each with ids of its own."""
    return [text.replace(_PLACE.encode(), b"%08d" % number) for number in range(first, first + count)]


def arrow(count: int, bodies: int, first: int) -> list[bytes]:
    """Return the same records as Arrow streams, each with ids of its own."""
    found = columns(count)
    moments = pa.array([datetime.fromisoformat(text) for text in found["timestamp"]], pa.timestamp("us", "UTC"))
    table = pa.table(found | {"timestamp": moments})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return numbered(bytes(sink.getvalue()), first, bodies)


def loads(seconds: float, turn: int = 0) -> Iterator[Load]:
    """Yield the ways in, each with enough records that no turn repeats for the time it is measured."""
    base = 1_000_000 * turn
    path = "/v1/models/benchmark/predictions"
    one = json.dumps(records(1)[0]).encode()
    yield Load("single", path, "application/json", numbered(one, base, int(9_000 * seconds)), 1, 64)
    many = json.dumps(records(1000)).encode()
    yield Load("json x 1000", path, "application/json", numbered(many, base + 200_000, int(250 * seconds)), 1000, 8)
    lines = b"\n".join(json.dumps(record).encode() for record in records(1000))
    yield Load(
        "ndjson x 1000", path, "application/x-ndjson", numbered(lines, base + 400_000, int(400 * seconds)), 1000, 8
    )
    streams = arrow(10_000, int(100 * seconds), base + 600_000)
    yield Load("arrow x 10000", path, "application/vnd.apache.arrow.stream", streams, 10_000, 4)


# --- senders ----------------------------------------------------------------------------------------------------------


async def _send(
    load: Load, port: int, waiting: Iterator[bytes], until: float, times: list[tuple[float, float]]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: {load.media}\r\nContent-Length: "
    ).encode()
    for body in waiting:
        began = time.perf_counter()
        if began >= until:
            break
        writer.write(b"%b%d\r\n\r\n" % (head, len(body)))
        writer.write(body)
        await writer.drain()
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await reader.readexactly(length)
        if not answer.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{load.name}: {answer[:60]!r} {content[:300]!r}")
        times.append((began, time.perf_counter()))
    writer.close()


async def _senders(load: Load, port: int, seconds: float) -> list[tuple[float, float]]:
    waiting = iter(load.bodies)
    times: list[tuple[float, float]] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_send(load, port, waiting, until, times) for _ in range(load.senders)))
    return times


def _cpu(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(load: Load, port: int, process: subprocess.Popen[bytes], seconds: float) -> Measured:
    """Send for some seconds, after one of warming up, and return what was answered."""
    warm = max(1, len(load.bodies) // 8)
    start = Load(load.name, load.path, load.media, load.bodies[:warm], load.rows, load.senders)
    asyncio.run(_senders(start, port, 1.0))
    cpu, began = _cpu(process), time.perf_counter()
    rest = Load(load.name, load.path, load.media, load.bodies[warm:], load.rows, load.senders)
    times = asyncio.run(_senders(rest, port, seconds))
    elapsed, cpu = max(end for _, end in times) - began, _cpu(process) - cpu
    waits = np.array([end - start for start, end in times])
    done = len(times) * load.rows
    return Measured(done / elapsed, done / cpu, float(np.median(waits)) * 1e3, float(np.quantile(waits, 0.99)) * 1e3)


# --- servers ----------------------------------------------------------------------------------------------------------


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "prediction"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    prediction_id: Mapped[str] = mapped_column(String(256))
    timestamp: Mapped[str] = mapped_column(String(40))
    body: Mapped[dict[str, Any]] = mapped_column(JSON)


class _Record(BaseModel):
    prediction_id: str
    timestamp: datetime
    features: dict[str, float | str]
    prediction: int
    score: float


def plain_app() -> FastAPI:
    """Return the service to compare with: it validates with pydantic and inserts JSON with SQLAlchemy."""
    engine = create_engine(f"sqlite:///{os.environ['BENCHMARK_DATABASE']}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=FULL").close()

    _Base.metadata.create_all(engine)
    sessions = sessionmaker(engine)
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/models/benchmark/predictions")
    async def predictions(records: list[_Record] | _Record) -> dict[str, int]:
        given = records if isinstance(records, list) else [records]
        with sessions.begin() as session:
            session.execute(
                insert(_Row),
                [
                    {
                        "prediction_id": record.prediction_id,
                        "timestamp": record.timestamp.isoformat(),
                        "body": record.model_dump(mode="json"),
                    }
                    for record in given
                ],
            )
        return {"accepted": len(given)}

    return app


@contextmanager
def served(command: Sequence[str], port: int, core: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on one core until the end of the block."""

    def pin() -> None:
        os.sched_setaffinity(0, {core})

    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        preexec_fn=pin,
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}") from None
                time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def seal(data: Path, url: str | None) -> None:
    """Seal what is due, again and again: what a second process of the service does."""
    assembly = assemble(Settings(data_dir=data, database_url=url, min_free_bytes=0))
    while True:
        assembly.sealer.seal_due()
        time.sleep(0.2)


def make_model(port: int) -> None:
    """Make the model that all records are of."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models",
        json.dumps({"name": "benchmark", "task": "binary"}).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=30).close()


def better(one: Measured | None, other: Measured) -> Measured:
    """Return the best of two runs, figure by figure."""
    if one is None:
        return other
    return Measured(
        max(one.rows, other.rows),
        max(one.rows_per_cpu, other.rows_per_cpu),
        min(one.median, other.median),
        min(one.worst, other.worst),
    )


def take_in(given: argparse.Namespace, wanted: Sequence[str], url: str | None) -> dict[str, Measured]:
    """Measure the service on a database, in a folder of its own; by default the embedded one."""
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=ROOT) as folder:
        data = Path(folder) / "data"
        environment = {"PLUMBLINE_ADMIN_KEY": KEY, "PLUMBLINE_ROLES": "api", "PLUMBLINE_MIN_FREE_BYTES": "0"}
        if url is not None:
            environment["PLUMBLINE_DATABASE_URL"] = url
        command = ["-m", "service.cli.main", "serve", "--port", str(given.port), "--data", str(data)]
        with served(command, given.port, 0, **environment) as process:
            make_model(given.port)
            sealing = [sys.executable, "-m", "benchmarks.ingest", "--seal", str(data), *([url] if url else [])]
            sealer = subprocess.Popen(sealing, cwd=ROOT)
            try:
                for turn in range(given.repeats):
                    for load in loads(given.seconds + 1, turn):
                        if load.name in wanted and given.only in load.name:
                            measured = measure(load, given.port, process, given.seconds)
                            found[load.name] = better(found.get(load.name), measured)
            finally:
                sealer.terminate()
                sealer.wait(60)
    return found


def take_in_plainly(given: argparse.Namespace) -> dict[str, Measured]:
    """Measure the other service."""
    found: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=ROOT) as folder:
        command = ["-m", "uvicorn", "--factory", "benchmarks.ingest:plain_app", "--port", str(given.port + 1)]
        command += ["--log-level", "warning"]
        with served(command, given.port + 1, 0, BENCHMARK_DATABASE=str(Path(folder) / "plain.db")) as process:
            for turn in range(given.repeats):
                for load in loads(given.seconds + 1, turn):
                    if load.media == "application/json":
                        measured = measure(load, given.port + 1, process, given.seconds)
                        found[load.name] = better(found.get(load.name), measured)
    return found


def show(name: str, found: Measured, target: int | None, plain: Measured | None) -> None:
    """Print a line of the table."""
    beside = f"{plain.rows:14,.0f}{found.rows_per_cpu / plain.rows_per_cpu:11.1f}" if plain else f"{'-':>14}{'-':>11}"
    print(
        f"{name:28}{found.rows:12,.0f}{target or '-':>10}{found.rows_per_cpu:12,.0f}"
        f"{found.median:9.1f}{found.worst:9.1f}{beside}",
        flush=True,
    )


def main() -> int:
    """Measure every way in on both servers and print the table; return 0 where the targets are reached."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=3.0, help="how long each way in is measured")
    arguments.add_argument("--repeats", type=int, default=2, help="how often; the best counts")
    arguments.add_argument("--port", type=int, default=18_473)
    arguments.add_argument("--only", default="", help="a part of the name of the ways in to measure")
    arguments.add_argument("--alone", action="store_true", help="do not run the service to compare with")
    arguments.add_argument("--database", choices=("all", *TARGETS), default="all")
    arguments.add_argument("--seal", nargs="+", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.seal is not None:
        seal(Path(given.seal[0]), given.seal[1] if len(given.seal) > 1 else None)
        return 0
    os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)})
    theirs = {} if given.alone else take_in_plainly(given)
    head = f"{'way in':28}{'rows/s':>12}{'target':>10}{'rows/cpu s':>12}{'p50 ms':>9}{'p99 ms':>9}"
    print(f"{head}{'plain rows/s':>14}{'x per cpu':>11}")
    reached: list[tuple[str, float, int]] = []
    for database, targets in TARGETS.items():
        if given.database not in ("all", database):
            continue
        try:
            if database == "sqlite":
                ours = take_in(given, list(TARGETS["sqlite"]), None)
            else:
                with Cluster.running() as cluster:
                    ours = take_in(given, list(TARGETS["sqlite"]), cluster.new_database("benchmark"))
        except NoServer as lacking:
            print(f"{database}: not measured, {lacking}")
            continue
        for name, found in ours.items():
            plain = theirs.get("single" if name == "single" else "json x 1000")
            show(f"{database}, {name}", found, targets.get(name), plain)
            if name in targets:
                reached.append((f"{database}, {name}", found.rows, targets[name]))
    if "json x 1000" not in theirs:
        return 0
    pace = plain_pace(theirs["json x 1000"].rows)
    print(f"\n{pace}")
    kept = [pace.reaches(name, rate, target) for name, rate, target in reached]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
