"""A machine is lost: its backup, put on an empty one, says the same, and tells nobody anything under a new id."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from service import backup, notices
from service.app import create_app
from service.cli.main import app
from service.clock import SetClock
from service.problems import Conflict
from service.settings import Settings
from tests.conftest import ADMIN_KEY
from tests.receiver import Receiver
from tests.running import UNHURRIED
from tests.service.test_api_runs import START, made, sent

ASKED = (
    "/v1/models/loans",
    "/v1/models/loans/versions",
    "/v1/models/loans/baselines",
    "/v1/models/loans/monitors",
    "/v1/models/loans/runs?limit=1000",
    "/v1/models/loans/features",
    "/v1/models/loans/results?limit=1000",
    "/v1/models/loans/ingest?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
    "/v1/models/loans/predictions?from=2026-01-05T00:00:00Z&to=2026-01-12T00:00:00Z&limit=1000",
    "/v1/models/loans/predictions/r5",
    "/v1/alerts",
    "/v1/webhooks",
    "/v1/keys",
)


def settings_of(folder: Path, url: str | None = None, **changes: Any) -> Settings:
    values = {"data_dir": folder, "database_url": url, "admin_key": ADMIN_KEY, "roles": "api"}
    return Settings.model_validate(values | {"outbound_allow": "127.0.0.1", "outbound_http": True} | changes)


@contextmanager
def running(settings: Settings, clock: SetClock) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", **UNHURRIED}
    with TestClient(create_app(settings, clock), headers=headers, raise_server_exceptions=False) as client:
        yield client


def hashes(client: TestClient) -> dict[str, str]:
    """Return the digest of what each question is answered."""
    found = {}
    for path in ASKED:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text)
        found[path] = hashlib.sha256(json.dumps(answer.json(), sort_keys=True).encode()).hexdigest()
    return found


def tick(client: TestClient, clock: SetClock) -> None:
    clock.move(timedelta(minutes=2))  # what has just come is sealed a minute later
    client.app.state.scheduler.tick()  # type: ignore[attr-defined]


def buffered(count: int, hour: int) -> list[dict[str, Any]]:
    at = (START + timedelta(hours=hour)).isoformat()
    features = {"age": 31.5, "job": "clerk"}
    return [
        {"prediction_id": f"late-{i}", "timestamp": at, "features": features, "prediction": 1} for i in range(count)
    ]


def ids(receiver: Receiver) -> list[str]:
    return [headers["webhook-id"] for headers, _ in list(receiver.calls)]


def a_machine_is_lost(tmp_path: Path, receiver: Receiver, url: str | None, restored_url: str | None) -> None:
    clock, target = SetClock(START), tmp_path / "backup"
    old, new = settings_of(tmp_path / "old", url), settings_of(tmp_path / "new", restored_url)
    with running(old, clock) as client:
        made(client)
        client.post("/v1/models", json={"name": "spool", "task": "binary"}).raise_for_status()
        client.post("/v1/webhooks", json={"name": "hook", "url": receiver.url, "events": ["*"]}).raise_for_status()
        clock.move(timedelta(days=6, hours=2))
        sent(client, 0, 3)
        sent(client, 3, 6, shift=15.0)
        tick(client, clock)
        before = ids(receiver)
        assert before
        hashes(client)  # whoever asks for records has them sealed
        expected = hashes(client)
        client.post("/v1/models/spool/predictions", json=buffered(2_500, 140)).raise_for_status()
        done = backup.backup(old, target, clock, verify=True)
        assert done.missing == ()
        assert done.rows > 200
        # What comes after the backup is lost with the machine, but for what the receiver was told.
        clock.move(timedelta(days=3))
        sent(client, 6, 9)
        tick(client, clock)
        told = ids(receiver)
        assert len(told) > len(before)

    again = backup.restore(new, target, clock)
    assert (again.files, again.rows) == (done.files, done.rows + 1)  # the notice that calls are held
    with running(new, clock) as client:
        assert hashes(client) == expected
        sent(client, 6, 9)  # the senders send again what was not acknowledged by this machine
        tick(client, clock)
        assert ids(receiver) == told
        (notice,) = client.get("/v1/notices").json()["items"]
        assert notice["kind"] == notices.HELD
        assert client.post(f"/v1/notices/{notice['id']}/resolve").status_code == 409
        parts = client.app.state.assembly  # type: ignore[attr-defined]
        with parts.database.writing() as session:
            assert notices.resume(session, clock.now())
        tick(client, clock)
        repeated = ids(receiver)[len(told) :]
        assert repeated
        assert set(repeated) <= set(told), "told under a new id"
        (late,) = client.get("/v1/models/spool/predictions/late-7").json()["items"]
        assert late["state"] in ("buffered", "sealed")
        again_sent = client.post("/v1/models/spool/predictions", json=buffered(20, 140)).json()
        assert (again_sent["accepted"], again_sent["duplicates"]) == (0, 20)
        answer = client.post("/v1/models", json={"name": "another", "task": "binary"})  # numbers go on
        assert answer.status_code == 201


def test_a_restored_backup_answers_the_same_and_repeats_no_call_under_a_new_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    a_machine_is_lost(tmp_path, receiver, None, None)


@pytest.mark.long
@pytest.mark.postgres
def test_a_backup_of_postgresql_is_restored_into_postgresql(
    tmp_path: Path, receiver: Receiver, new_postgres_url: Callable[[], str]
) -> None:
    a_machine_is_lost(tmp_path, receiver, new_postgres_url(), new_postgres_url())


@pytest.mark.long
@pytest.mark.postgres
def test_a_backup_of_sqlite_is_restored_into_postgresql(tmp_path: Path, receiver: Receiver, postgres_url: str) -> None:
    a_machine_is_lost(tmp_path, receiver, None, postgres_url)


def test_a_backup_goes_into_an_empty_folder_and_comes_back_into_an_empty_installation(tmp_path: Path) -> None:
    settings, clock = settings_of(tmp_path / "data"), SetClock(START)
    with running(settings, clock) as client:
        made(client)
    backup.backup(settings, tmp_path / "backup", clock)
    with pytest.raises(Conflict, match="is not empty"):
        backup.backup(settings, tmp_path / "backup", clock)
    with pytest.raises(Conflict, match="the database is not empty"):
        backup.restore(settings, tmp_path / "backup", clock)
    with pytest.raises(Conflict, match="PLUMBLINE_SECRET_KEY"):
        backup.restore(settings_of(tmp_path / "other", secret_key="another"), tmp_path / "backup", clock)
    assert (tmp_path / "backup" / "secret.key").stat().st_mode & 0o077 == 0


def said(*arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its status and what it printed."""
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.stderr


def test_commands_back_up_verify_restore_and_resume(tmp_path: Path) -> None:
    settings, clock = settings_of(tmp_path / "data"), SetClock(START)
    with running(settings, clock) as client:
        made(client)
    target = tmp_path / "backup"
    status, out, err = said("backup", str(target), "--verify", "--data", str(tmp_path / "data"))
    assert status == 0, err
    assert "rows and" in out
    status, out, err = said("restore", str(target), "--data", str(tmp_path / "new"))
    assert status == 0, err
    assert "outbound calls wait for `plumbline resume`" in out.replace("\n", " ")
    _, out, _ = said("resume", "--data", str(tmp_path / "new"), "--output", "json")
    assert json.loads(out) == {"resumed": True}
    file = next(path for path in (target / "lake").rglob("*.parquet"))
    whole = bytearray(file.read_bytes())
    whole[50] ^= 1
    file.write_bytes(whole)
    status, _, err = said("restore", str(target), "--verify")
    assert status == 1
    assert file.name in err.replace("\n", "")
