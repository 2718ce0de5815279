"""One host for SQLite, one secret for a database: whoever else comes is refused with a sentence."""

import itertools
import math
import socket
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from service.assembly import assemble
from service.database import EPOCH, Database
from service.lake import host
from service.lake.lease import boot, is_gone, owner_here
from service.problems import Unavailable
from service.settings import Settings
from service.tables import LeaseRow
from tests.service.empty import copy_empty

OTHER = "elsewhere 00000000-0000-4000-8000-000000000000"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    copy_empty(tmp_path / "plumbline.db")
    return Database(f"sqlite:///{tmp_path / 'plumbline.db'}")


def elsewhere(database: Database, count: int) -> None:
    """Let another host's heartbeat be seen."""
    with host.heart(database) as connection:
        connection.execute("DELETE FROM heart")
        connection.execute("INSERT INTO heart VALUES (?, ?)", (OTHER, count))


def owner_of(database: Database) -> str:
    """Return whose heart beats."""
    with host.heart(database) as connection:
        return str(connection.execute("SELECT owner FROM heart").fetchone()[0])


def test_a_second_host_on_sqlite_is_refused_with_what_to_do(database: Database) -> None:
    over, begun = threading.Event(), threading.Event()

    def beating() -> None:
        for count in itertools.count(1):
            elsewhere(database, count)
            begun.set()
            if over.wait(0.05):
                return

    thread = threading.Thread(target=beating)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(host.OtherHost, match=r"belongs to host elsewhere.*PLUMBLINE_DATABASE_URL"):
            host.hold(database, patience=3.0)
    finally:
        over.set()
        thread.join()


def test_a_lock_beside_the_file_refuses_a_second_host_at_once_even_while_the_first_is_frozen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(database.engine.url.database)
    host.hold(database)
    there = Database(f"sqlite:///{path}")
    host.hold(there)  # another process of the same host
    monkeypatch.setattr(host, "boot", lambda: OTHER.partition(" ")[2])
    second = Database(f"sqlite:///{path}")
    with pytest.raises(host.OtherHost, match=f"belongs to host {socket.gethostname()[:64]}"):
        host.hold(second, patience=math.inf)
    monkeypatch.undo()
    host.let_go(database)
    monkeypatch.setattr(host, "boot", lambda: OTHER.partition(" ")[2])
    with pytest.raises(host.OtherHost):  # the other process of the first host is still there
        host.hold(second, patience=math.inf)
    monkeypatch.undo()
    host.let_go(there)
    monkeypatch.setattr(host, "boot", lambda: OTHER.partition(" ")[2])
    host.hold(second, patience=math.inf)
    assert second.host_lock is not None


def test_a_host_that_is_no_more_is_followed(database: Database) -> None:
    elsewhere(database, 7)
    host.hold(database, patience=0.2)
    assert owner_of(database) == f"{socket.gethostname()[:64]} {boot()}"


def test_processes_of_one_host_share_the_database_and_a_clean_end_lets_another_host_in(database: Database) -> None:
    for _ in range(3):
        host.hold(database, patience=math.inf)
    host.let_go(database)
    assert owner_of(database) == ""


def test_a_heartbeat_does_not_wake_who_looks_for_changes(database: Database) -> None:
    host.hold(database)
    before = database.version()
    for _ in range(3):
        assert host.beat(database) is None
    assert database.version() == before
    with database.writing() as session:
        session.add(LeaseRow(name="seal:1", owner="", token=1, until=EPOCH))
    assert database.version() != before


def test_a_process_that_meets_another_host_s_heartbeat_is_told(database: Database) -> None:
    assert host.beat(database) is None
    elsewhere(database, 3)
    assert host.beat(database) == (OTHER, 3)
    assert host.beat(database, over=(OTHER, 2)) == (OTHER, 3)


def test_an_owner_of_an_earlier_boot_is_gone_on_sqlite_and_unknown_on_postgresql(database: Database) -> None:
    mine = owner_here()
    assert not is_gone(mine, database)
    name, _, process, born = mine.split(" ")
    earlier = f"{name} 00000000-0000-4000-8000-000000000000 {process} {born}"
    assert is_gone(earlier, database)
    assert not is_gone(earlier, Database("postgresql+psycopg://nobody@/nothing"))
    ended = f"{name} {boot()} {process} 1"  # the number was given to another process since
    assert is_gone(ended, database)
    in_another_container = f"other {boot()} {process} 1"
    assert not is_gone(in_another_container, database)


def test_a_process_with_another_secret_is_refused(tmp_path: Path) -> None:
    first = assemble(Settings(data_dir=tmp_path, roles=("sender",)))
    first.start()
    first.stop()
    other = assemble(Settings(data_dir=tmp_path, secret_key=SecretStr("another"), roles=("sender",)))
    with pytest.raises(Unavailable, match="PLUMBLINE_SECRET_KEY"):
        other.start()
    other.stop()
