"""The migrated schema: equal to the tables, made once by whoever comes first, whole or not at all."""

import multiprocessing
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.database import EPOCH, Database
from service.schema import config, current, head, migrate
from service.tables import Base, LeaseRow

FORK = multiprocessing.get_context("fork")


def differences(database: Database) -> list[object]:
    """Return what alembic would still change."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_migrated_schema_is_the_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    assert migrate(database) == head()
    assert differences(database) == []


def test_the_newest_step_is_the_one_that_the_others_lead_to() -> None:
    assert head() == ScriptDirectory.from_config(config()).get_current_head()


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    migrate(database)
    assert migrate(database) == head()
    assert differences(database) == []


def migrated(url: str, told: Connection) -> None:
    """Say that this process is there, bring a database to the newest schema, and say what that is."""
    told.send("go")
    told.send(migrate(Database(url)))


@pytest.mark.parametrize("count", [4, pytest.param(8, marks=pytest.mark.long)])
def test_processes_that_start_at_once_all_succeed(tmp_path: Path, count: int) -> None:
    pipes = [FORK.Pipe(duplex=False) for _ in range(count)]
    url = f"sqlite:///{tmp_path / 'a.db'}"
    started = [FORK.Process(target=migrated, args=(url, told)) for _, told in pipes]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [(heard.recv(), heard.recv()) for heard, _ in pipes] == [("go", head())] * count


@pytest.mark.parametrize("moments", [3, pytest.param(12, marks=pytest.mark.long)])
def test_a_migration_killed_at_any_moment_can_be_run_again(tmp_path: Path, moments: int) -> None:
    for step in range(moments):
        url = f"sqlite:///{tmp_path / f'{step}.db'}"
        heard, told = FORK.Pipe(duplex=False)
        process = FORK.Process(target=migrated, args=(url, told))
        process.start()
        assert heard.recv() == "go"
        time.sleep(0.14 * step / (moments - 1))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        database = Database(url)
        with database.engine.connect() as connection:
            assert current(connection) in (None, head())
        migrate(database)
        assert differences(database) == []


@pytest.mark.postgres
def test_the_migrated_schema_is_the_tables_on_postgresql(postgres_url: str) -> None:
    database = Database(postgres_url)
    migrate(database)
    assert migrate(database) == head()
    assert differences(database) == []


def test_a_session_for_writing_holds_the_lock_from_its_start(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    migrate(database)
    events: list[str] = []
    inside = threading.Event()

    def hold() -> None:
        with database.writing():
            inside.set()
            time.sleep(0.3)
            events.append("first leaves")

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with database.writing():
        events.append("second enters")
    thread.join()
    assert events == ["first leaves", "second enters"]


def test_a_session_for_reading_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    migrate(database)
    with database.writing() as writing:
        writing.add(LeaseRow(name="held", owner="test", token=1, until=EPOCH))
        writing.flush()
        with database.reading() as reading:
            assert reading.get(LeaseRow, "held") is None
