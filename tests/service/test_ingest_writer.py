"""The writer: one transaction for many requests, nothing answered before it, nothing lost or doubled."""

import asyncio
import errno
import json
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from service.clock import SetClock
from service.database import Database
from service.ingest import formats
from service.ingest.buffer import Buffer
from service.ingest.columns import Built
from service.ingest.formats import Format, Parsed
from service.ingest.schemas import ModelSchema
from service.ingest.writer import Answer, Arrival, Writer
from service.problems import Conflict, NotFound, Overloaded, Problem, StorageFull, Unavailable
from service.settings import Settings
from service.tables import (
    ArrivalRow,
    FeatureRow,
    IngestBatchRow,
    IngestRequestRow,
    ModelRow,
    RejectionRow,
    VersionRow,
)
from service.words import new_id
from tests import loops
from tests.service.built import NOW
from tests.service.empty import copy_empty


class Log:
    """A database with one model, and a writer that writes when it is told to."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.settings = Settings(data_dir=folder, **{"min_free_bytes": 0, **changes})
        copy_empty(folder / "plumbline.db")
        self.clock = SetClock(NOW)
        self.database = Database(self.settings.database)
        self.make_model("loans")
        self.writer = self.another()

    def another(self) -> Writer:
        """Return a writer as another process would have."""
        return Writer(self.database, self.clock, self.settings, b"s" * 32)

    def make_model(self, name: str, **columns: Any) -> None:
        """Make a model."""
        with self.database.writing() as session:
            session.add(ModelRow(uid=new_id(), name=name, task="binary", alarm_budget={}, created_at=NOW, **columns))

    def arrival(
        self, body: object, kind: str = "predictions", *, large: bool = False, flat: bool = False, **members: Any
    ) -> Arrival:
        """Return a request with a JSON body, read as a small or as a large one is, or (``flat``) as one between."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        model = members.pop("model", "loans")
        arrival = Arrival(model=model, kind=kind, size=len(data), **members)
        if arrival.idempotency_key is not None:
            arrival.route, arrival.fingerprint = "POST here", str(hash(data))
        if large:

            def build(schema: ModelSchema) -> Built:
                builder = self.writer.builder(schema, kind)
                return builder.finish(formats.read(data, Format.JSON, "utf-8", builder, limit=2**28))

            arrival.build = build
        else:
            arrival.parsed = Parsed(flat=flat)
            arrival.parsed.size = formats.read(data, Format.JSON, "utf-8", arrival.parsed, limit=2**28)
        return arrival

    def send(self, body: object, kind: str = "predictions", **members: Any) -> dict[str, Any]:
        """Write one request and return its answer, with its status."""
        return self.answers([self.arrival(body, kind, **members)])[0]

    def answers(self, arrivals: list[Arrival], writer: Writer | None = None) -> list[dict[str, Any]]:
        """Write requests together and return their answers."""
        (writer or self.writer).write(arrivals)
        found = []
        for arrival in arrivals:
            if isinstance(arrival.outcome, Problem):
                raise arrival.outcome
            assert isinstance(arrival.outcome, Answer)
            found.append({"status": arrival.outcome.status, **json.loads(arrival.outcome.body)})
        return found

    def stored(self, kind: str = "predictions") -> list[dict[str, Any]]:
        """Return the rows in the buffer, in order of their commits."""
        with self.database.reading() as session:
            batches = session.execute(
                select(IngestBatchRow.payload, IngestBatchRow.file, IngestBatchRow.start)
                .where(IngestBatchRow.kind == kind)
                .order_by(IngestBatchRow.id)
            ).all()
        buffer = Buffer(self.settings.lake)
        return [row for batch in batches for row in buffer.rows(*batch).to_pylist()]

    def files(self) -> list[Path]:
        """Return the files of the buffer."""
        return sorted((self.settings.lake / "buffer").glob("*"))

    def number(self, row: Any) -> int:
        """Return how many rows a table has."""
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(row)) or 0


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Return a log of this test's own."""
    made = Log(tmp_path / "data")
    yield made
    made.writer.stop()
    made.database.close()


def ids(*names: str, **members: Any) -> list[dict[str, Any]]:
    """Return a record for each id."""
    return [{"prediction_id": name, "features": {"age": 1}, **members} for name in names]


def test_an_answer_counts_what_was_accepted_repeated_and_refused(log: Log) -> None:
    body = [*ids("a", "b", "a"), {"prediction_id": 5}, {"prediction_id": "c", "features": {"age": "x"}}]
    first = log.send(ids("z"))
    answer = log.send(body)
    assert answer.pop("batch_id")
    assert answer == {
        "status": 200,
        "accepted": 3,
        "duplicates": 1,
        "rejected_count": 1,
        "rejected": [
            {
                "index": 3,
                "code": "bad_prediction_id",
                "pointer": "/prediction_id",
                "detail": "prediction_id is a text or left out",
            }
        ],
        "rejected_by_code": {"bad_prediction_id": 1},
        "bad_values": {"wrong_type": 1},
    }
    assert first["accepted"] == 1
    assert len(log.stored()) == 5  # repeats too: the sealer decides which was first


def test_nothing_accepted_and_not_all_repeated_is_unprocessable(log: Log) -> None:
    assert log.send([3])["status"] == 422
    assert log.send([])["status"] == 200
    assert log.send(ids("a"))["status"] == 200
    assert log.send(ids("a"))["status"] == 200
    assert log.send([*ids("a"), 3])["status"] == 422


def test_requests_are_one_row_of_the_log_and_each_has_its_own_answer(log: Log) -> None:
    bodies: list[object] = [ids("a"), ids("b", "a"), [3, *ids("c")], [{"prediction_id": "d", "features": {"age": "x"}}]]
    answers = log.answers([log.arrival(body) for body in bodies])
    assert [answer["accepted"] for answer in answers] == [1, 1, 1, 1]
    assert [answer["duplicates"] for answer in answers] == [0, 1, 0, 0]
    assert [[entry["index"] for entry in answer["rejected"]] for answer in answers] == [[], [], [0], []]
    assert [answer["bad_values"] for answer in answers] == [{}, {}, {}, {"wrong_type": 1}]
    assert log.number(IngestBatchRow) == 1
    assert log.number(RejectionRow) == 1


def test_bodies_read_as_columns_are_put_together_and_each_has_its_own_answer(log: Log) -> None:
    log.make_model("cars")
    ahead = (NOW + timedelta(hours=1)).isoformat()
    bodies: list[object] = [
        ids("a", "b"),
        ids("c", "b"),
        [*ids("d", timestamp=NOW.isoformat()), *ids("e", timestamp=ahead)],
        [{"prediction_id": name, "features": {"age": "x"}} for name in "fg"],  # columns of another type
        [3, *ids("h")],  # not alike, so read record by record
    ]
    answers, singly = (
        log.answers([log.arrival(body, model=model, flat=flat) for body in bodies])
        for model, flat in (("loans", True), ("cars", False))
    )
    assert [answer["accepted"] for answer in answers] == [2, 1, 1, 2, 1]
    assert [answer["duplicates"] for answer in answers] == [0, 1, 0, 0, 0]
    assert [[entry["index"] for entry in answer["rejected"]] for answer in answers] == [[], [], [1], [], [0]]
    assert [answer["bad_values"] for answer in answers] == [{}, {}, {}, {"wrong_type": 2}, {}]
    assert [answer | {"batch_id": ""} for answer in answers] == [answer | {"batch_id": ""} for answer in singly]
    assert log.number(IngestBatchRow) == 2  # one for each model
    found = [(row["prediction_id"], row["features.age"], row["faults"]) for row in log.stored()]
    assert len(found) == 16
    assert sorted(found[:8], key=repr) == sorted(found[8:], key=repr)


def test_kinds_models_and_versions_are_rows_of_their_own(log: Log) -> None:
    log.make_model("cars")
    log.answers(
        [
            log.arrival(ids("a", ground_truth=1, protected={"sex": "F"})),
            log.arrival(ids("a", version="2")),
            log.arrival(ids("a"), model="cars"),
            log.arrival([{"prediction_id": "a", "ground_truth": 1}], "ground_truth"),
        ]
    )
    with log.database.reading() as session:
        found = session.execute(
            select(ModelRow.name, IngestBatchRow.kind, IngestBatchRow.rows).join(
                ModelRow, ModelRow.id == IngestBatchRow.model_id
            )
        ).all()
    assert sorted(tuple(row) for row in found) == [
        ("cars", "predictions", 1),
        ("loans", "ground_truth", 1),
        ("loans", "ground_truth", 1),
        ("loans", "predictions", 1),
        ("loans", "predictions", 1),
        ("loans", "protected", 1),
    ]


def test_an_id_counts_once_per_version(log: Log) -> None:
    assert log.send(ids("a", version="1"))["accepted"] == 1
    assert log.send(ids("a", version="2"))["accepted"] == 1
    assert log.send(ids("a", version="2"))["duplicates"] == 1
    assert log.send(ids("a"))["duplicates"] == 1  # the first version is the active one


def test_large_bodies_and_small_ones_are_the_same(log: Log) -> None:
    small, large = log.send(ids("a", "b", "a")), log.send(ids("c", "d", "c"), large=True)
    assert {**small, "batch_id": ""} == {**large, "batch_id": ""}


def test_what_other_processes_wrote_is_known_after_their_commit(log: Log) -> None:
    other = log.another()
    assert log.send(ids("a"))["accepted"] == 1
    assert log.answers([log.arrival(ids("a", "b"))], other)[0]["duplicates"] == 1
    assert log.send(ids("b"))["duplicates"] == 1
    assert log.answers([log.arrival(ids("new", version="9"))], other)[0]["accepted"] == 1
    assert log.send(ids("new", version="9"))["duplicates"] == 1
    other.stop()


def test_versions_and_features_are_made_by_their_first_record(log: Log) -> None:
    log.send([{"features": {"age": 1, "job": "x"}}])
    log.send([{"version": "2", "features": {"age": "one", "new": True}}])
    with log.database.reading() as session:
        versions = session.execute(select(VersionRow.name, VersionRow.registered).order_by(VersionRow.id)).all()
        features = session.execute(
            select(VersionRow.name, FeatureRow.name, FeatureRow.type, FeatureRow.status)
            .join(VersionRow, VersionRow.id == FeatureRow.version_id)
            .order_by(FeatureRow.version_id, FeatureRow.position)
        ).all()
        active = session.scalar(select(VersionRow.name).join(ModelRow, ModelRow.active_version_id == VersionRow.id))
    assert [tuple(row) for row in versions] == [("1", False), ("2", False)]
    assert [tuple(row) for row in features] == [
        ("1", "age", "numeric", "new"),
        ("1", "job", "categorical", "new"),
        ("2", "age", "numeric", "new"),
        ("2", "job", "categorical", "new"),
        ("2", "new", "boolean", "new"),
    ]
    assert active == "1"


def test_two_bodies_that_bring_the_same_new_feature_agree_on_its_type(log: Log) -> None:
    first, second = (
        log.arrival([{"features": {"f": 1}}], large=True),
        log.arrival([{"features": {"f": "x"}}], large=True),
    )
    schema = log.writer.schema("loans")
    for arrival in (first, second):
        assert arrival.build is not None
        arrival.built = arrival.build(schema)
    answers = log.answers([first, second])
    assert [answer["bad_values"] for answer in answers] == [{}, {"wrong_type": 1}]
    assert [row["features.f"] for row in log.stored()] == [1.0, None]


def test_a_type_that_was_corrected_holds_from_the_next_request_on(log: Log) -> None:
    log.send([{"features": {"code": 7}}])
    with log.database.writing() as session:
        session.execute(update(FeatureRow).values(type="categorical"))
    log.send([{"features": {"code": 7}}])
    assert [row["features.code"] for row in log.stored()] == [7.0, "7"]


def test_strict_is_all_or_nothing(log: Log) -> None:
    refused = log.send([*ids("a"), 3], strict=True)
    assert (refused["status"], refused["accepted"], refused["rejected_count"]) == (422, 0, 1)
    assert log.stored() == []
    assert log.send(ids("a", "b"), strict=True)["accepted"] == 2


def test_ground_truth_says_what_is_corrected_and_what_waits(log: Log) -> None:
    log.send(ids("a", "b"))
    body = [{"prediction_id": "a", "ground_truth": 1}, {"prediction_id": "q", "ground_truth": 0}]
    first = log.send(body, "ground_truth")
    assert (first["accepted"], first["duplicates"], first["corrected"], first["waiting"]) == (2, 0, 0, 1)
    again = log.send(
        [{"prediction_id": "a", "ground_truth": 1.0}, {"prediction_id": "a", "ground_truth": None}], "ground_truth"
    )
    assert (again["accepted"], again["duplicates"], again["corrected"]) == (1, 1, 1)
    one = log.send([{"prediction_id": "b", "ground_truth": 1, "version": "7"}], "ground_truth")
    assert one["waiting"] == 1  # that version has not predicted it


def test_refused_records_are_counted_for_good_and_the_newest_thousand_are_shown(log: Log) -> None:
    for _ in range(3):
        log.send([3] * 600)
    log.send([{"prediction_id": 5}], "ground_truth")
    with log.database.reading() as session:
        rows = session.execute(select(ArrivalRow.kind, ArrivalRow.rejected, ArrivalRow.reasons)).all()
        assert sorted(tuple(row) for row in rows) == [
            ("ground_truth", 1, {"bad_prediction_id": 1}),
            ("predictions", 1800, {"not_an_object": 1800}),
        ]
        assert session.scalar(select(func.count()).select_from(RejectionRow)) == 1000
    assert len(log.send([3] * 600)["rejected"]) == 100


def test_bad_values_are_counted_in_the_hour_of_their_record(log: Log) -> None:
    log.send(
        [
            {"timestamp": "2026-11-01T00:10:00Z", "features": {"age": 1}},
            {"timestamp": "2026-11-01T00:20:00Z", "features": {"age": "x"}},
            {"timestamp": "2026-11-01T01:20:00Z", "features": {"age": "x"}, "score": "y"},
        ]
    )
    with log.database.reading() as session:
        found = session.execute(select(ArrivalRow.bucket, ArrivalRow.reasons).order_by(ArrivalRow.bucket)).all()
    first = 498_192  # hours from 1970 to 2026-11-01
    assert [(bucket - first, reasons) for bucket, reasons in found] == [(0, {"wrong_type": 1}), (1, {"wrong_type": 2})]


def test_the_same_key_and_body_get_the_answer_that_was_given(log: Log) -> None:
    first = log.arrival(ids("a"), idempotency_key="k")
    log.writer.write([first])
    again = log.arrival(ids("a"), idempotency_key="k")
    log.writer.write([again])
    assert isinstance(first.outcome, Answer)
    assert isinstance(again.outcome, Answer)
    assert again.outcome.body == first.outcome.body
    assert (first.outcome.replayed, again.outcome.replayed) == (False, True)
    assert len(log.stored()) == 1
    with pytest.raises(Problem, match="another body") as caught:
        log.send(ids("b"), idempotency_key="k")
    assert caught.value.status == 422
    assert len(log.stored()) == 1


def test_the_twin_of_a_running_request_is_a_conflict(log: Log) -> None:
    twins = [log.arrival(ids("a"), idempotency_key="k") for _ in range(2)]
    log.writer.write(twins)
    assert isinstance(twins[0].outcome, Answer)
    assert isinstance(twins[1].outcome, Conflict)
    assert len(log.stored()) == 1


def test_answers_are_kept_for_a_day(log: Log) -> None:
    log.send(ids("a"), idempotency_key="k")
    log.clock.move(timedelta(hours=23))
    log.send(ids("b"))
    assert log.number(IngestRequestRow) == 1
    log.clock.move(timedelta(hours=2))
    log.send(ids("c"))
    assert log.number(IngestRequestRow) == 0


def test_a_key_is_given_back_where_nothing_was_answered(log: Log) -> None:
    with pytest.raises(NotFound):
        log.send(ids("a"), model="nobody", idempotency_key="k")
    assert log.number(IngestRequestRow) == 0


def test_an_unknown_or_archived_model_is_not_found(log: Log) -> None:
    log.send(ids("a"))
    with log.database.writing() as session:
        session.execute(update(ModelRow).values(archived_at=NOW))
    with pytest.raises(NotFound):
        log.send(ids("b"))
    assert len(log.stored()) == 1


def test_a_full_database_answers_507_loses_nothing_and_recovers(log: Log) -> None:
    accepted = [f"first-{number}" for number in range(20)]
    log.send(ids(*accepted))
    connection = log.writer._connected().connection.dbapi_connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(StorageFull) as caught:  # noqa: PT012 - which of them is the first is not known
        for number in range(30):
            names = [f"{number}-{row}" for row in range(20)]
            log.send([{**record, "features": {"note": secrets.token_hex(240)}} for record in ids(*names)])
            accepted += names
    assert caught.value.headers["Retry-After"]
    assert [row["prediction_id"] for row in log.stored()] == accepted
    log.writer.stop()  # a new connection has room again
    assert log.send(ids("later"))["accepted"] == 1
    assert [row["prediction_id"] for row in log.stored()] == [*accepted, "later"]


def test_too_little_free_space_answers_507_before_anything_is_written(tmp_path: Path) -> None:
    log = Log(tmp_path / "data", min_free_bytes=2**60)
    with pytest.raises(StorageFull):
        log.send(ids("a"))
    assert log.stored() == []
    log.writer.stop()


def test_a_small_disk_that_fills_up_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        log = Log(folder)
        accepted: list[str] = []
        statuses: list[int] = []
        for number in range(60):
            if statuses.count(507) == 5:
                break
            body = ids(*(f"{number}-{row}" for row in range(300)))
            try:
                log.send([{**record, "features": {"note": secrets.token_hex(240)}} for record in body])
                accepted += [str(record["prediction_id"]) for record in body]
                statuses.append(200)
            except (StorageFull, Unavailable) as problem:
                statuses.append(problem.status)
        assert 507 in statuses
        assert 503 not in statuses
        assert [row["prediction_id"] for row in log.stored()] == accepted
        subprocess.run(["mount", "-o", "remount,size=32m", str(folder)], check=True)
        assert log.send(ids("later"))["accepted"] == 1
        assert [row["prediction_id"] for row in log.stored()] == [*accepted, "later"]
        log.writer.stop()
        log.database.close()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_locked_database_answers_503_and_recovers(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ingest.writer.BUSY_MILLISECONDS", 100)
    log.send(ids("a"))
    log.writer.stop()
    holder = sqlite3.connect(log.settings.data_dir / "plumbline.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        log.send(ids("b"))
    assert caught.value.headers["Retry-After"]
    holder.execute("ROLLBACK")
    holder.close()
    assert log.send(ids("b"))["accepted"] == 1


def test_a_request_that_cannot_be_built_does_not_take_others_with_it(log: Log) -> None:
    def broken(_schema: ModelSchema) -> Built:
        raise OSError(errno.EIO, "a thing of this request")

    def worse(_schema: ModelSchema) -> Built:
        raise LookupError("never foreseen")

    good = log.arrival(ids("a"))
    bad = Arrival(model="loans", kind="predictions", size=1, build=worse)
    log.writer.write([good, bad])
    assert isinstance(good.outcome, Answer)
    assert isinstance(bad.outcome, Problem)
    assert bad.outcome.status == 500
    assert len(log.stored()) == 1
    log.writer.write([Arrival(model="loans", kind="predictions", size=1, build=broken)])
    assert len(log.stored()) == 1


def test_waiting_requests_are_written_together_and_all_answered(log: Log) -> None:
    async def send_all() -> list[Answer]:
        loop = asyncio.get_running_loop()
        arrivals = [log.arrival(ids(f"{number}"), loop=loop) for number in range(200)]
        return list(await asyncio.gather(*(log.writer.submit(arrival) for arrival in arrivals)))

    log.writer.start()
    answers = loops.run(send_all())
    assert [answer.status for answer in answers] == [200] * 200
    assert sorted(int(row["prediction_id"]) for row in log.stored()) == list(range(200))
    assert log.number(IngestBatchRow) < 100


def test_a_queue_that_is_full_is_overloaded(tmp_path: Path) -> None:
    log = Log(tmp_path / "data", queue_requests=3)

    async def send_all() -> list[object]:
        loop = asyncio.get_running_loop()
        with log.database.writing():  # nothing can be written meanwhile
            futures: list[Any] = []
            for number in range(10):
                try:
                    futures.append(log.writer.submit(log.arrival(ids(f"{number}"), loop=loop)))
                except Overloaded as problem:
                    futures.append(problem)
        return [found if isinstance(found, Problem) else await found for found in futures]

    log.writer.start()
    found = loops.run(send_all())
    accepted = [answer for answer in found if isinstance(answer, Answer)]
    assert 3 <= len(accepted) < 10
    assert len(log.stored()) == len(accepted)
    log.writer.stop()


def test_stopping_writes_what_was_accepted_and_then_refuses(log: Log) -> None:
    async def send_all() -> None:
        loop = asyncio.get_running_loop()
        waiting = [log.writer.submit(log.arrival(ids(f"{number}"), loop=loop)) for number in range(50)]
        await asyncio.to_thread(log.writer.stop)
        await asyncio.gather(*waiting)
        with pytest.raises(Unavailable):
            log.writer.submit(log.arrival(ids("late"), loop=loop))

    log.writer.start()
    loops.run(send_all())
    assert len(log.stored()) == 50


# --- files of the buffer ----------------------------------------------------------------------------------------------


def many(name: str, count: int = 4_000) -> list[dict[str, Any]]:
    """Return so many records that their columns go into a file."""
    return ids(*(f"{name}-{number}" for number in range(count)))


def test_large_batches_of_a_group_lie_in_one_file_that_their_rows_name(log: Log) -> None:
    log.send(ids("z"))  # brings the version and its feature
    answers = log.answers(
        [log.arrival(many("a"), large=True), log.arrival(many("b"), large=True), log.arrival(ids("c"))]
    )
    assert [answer["accepted"] for answer in answers] == [4_000, 4_000, 1]
    with log.database.reading() as session:
        rows = session.scalars(select(IngestBatchRow).order_by(IngestBatchRow.size)).all()
    _, small, first, second = rows
    assert (small.file, len(small.payload) == small.size, len(small.hashes)) == (None, True, 8)
    assert first.file == second.file
    assert first.payload == second.payload == b""
    assert {first.start % 64, second.start % 64} == {0}
    assert [file.name for file in log.files()] == [str(first.file).removeprefix("buffer/")]
    assert {row["prediction_id"] for row in log.stored()} == {
        *"zc",
        *(f"{name}-{number}" for name in "ab" for number in range(4_000)),
    }


def test_another_process_knows_the_ids_in_a_file(log: Log) -> None:
    log.answers([log.arrival(many("a"), large=True)])
    other = log.another()
    assert log.answers([log.arrival(ids("a-17", "b"))], other)[0]["duplicates"] == 1
    other.stop()


def test_a_file_that_no_row_will_name_is_removed(log: Log) -> None:
    with log.database.writing() as session:
        session.connection().exec_driver_sql(
            "CREATE TRIGGER no BEFORE INSERT ON ingest_batch BEGIN SELECT raise(ABORT, 'no'); END"
        )
    with pytest.raises(Unavailable):
        log.answers([log.arrival(many("a"), large=True)])
    assert log.files() == []
    assert log.stored() == []


def test_a_file_stays_where_a_commit_may_have_reached_the_database(log: Log) -> None:
    class Lost(sqlite3.Connection):
        def commit(self) -> None:
            super().commit()
            raise sqlite3.OperationalError("the connection was lost after the commit")

    held: Any = log.writer._connected().connection
    held.dbapi_connection.close()
    path = log.settings.database.removeprefix("sqlite:///")
    held.dbapi_connection = sqlite3.connect(path, factory=Lost, isolation_level=None, check_same_thread=False)
    with pytest.raises(Unavailable):
        log.answers([log.arrival(many("a"), large=True)])
    assert len(log.files()) == 1
    assert len(log.stored()) == 4_000


def test_a_disk_that_fills_up_while_a_file_is_written_leaves_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.ingest.buffer.os.fsync", full)
    with pytest.raises(StorageFull):
        log.answers([log.arrival(many("a"), large=True)])
    monkeypatch.undo()
    assert log.files() == []
    assert log.answers([log.arrival(many("a"), large=True)])[0]["accepted"] == 4_000
