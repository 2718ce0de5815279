"""All parts of the running service, made once from the settings and handed to whoever needs them."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.access import Keyring
from service.clock import Clock, SystemClock
from service.database import Database
from service.explanations import Explanations
from service.ingest.writer import Writer
from service.lake import Index, Lake, Sealer, host
from service.problems import Unavailable
from service.profiles import Profiles
from service.schema import migrate
from service.settings import Settings, software
from service.tables import PropertyRow
from service.vault import Vault
from service.webhooks import Sender
from service.worker import Worker, network_remains

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Assembly:
    """The parts; nothing here is global, tests make as many as they like."""

    settings: Settings
    clock: Clock
    database: Database
    secret: bytes
    lake: Lake
    index: Index
    writer: Writer
    sealer: Sealer
    profiles: Profiles
    keyring: Keyring
    sender: Sender
    worker: Worker
    explanations: Explanations

    @property
    def software(self) -> str:
        """The version stored with every run."""
        return software()

    def start(self) -> None:
        """Bring schema, lake and keys up to date, then open the log."""
        migrate(self.database)
        host.hold(self.database)
        self.lake.adopt(self.database)
        check_secret(self.database, self.secret)
        self.keyring.start()
        if why := network_remains():
            log.warning("the worker process keeps the network of this one; it may open no socket all the same", why=why)
        if "api" in self.settings.roles:
            self.writer.start()

    def stop(self) -> None:
        """Finish what was accepted and let go of the database."""
        if "api" in self.settings.roles:
            self.writer.stop()
        self.worker.close()
        with suppress(SQLAlchemyError):  # a database that is gone needs no farewell
            host.let_go(self.database)
        self.database.close()


def secret_of(settings: Settings) -> bytes:
    """Return the 32 bytes that sessions, id hashes and stored secrets are keyed with.

    From the setting where it is given, else from a file made once in the data folder, readable by its owner alone.
    """
    if settings.secret_key is not None:
        return blake2b(settings.secret_key.get_secret_value().encode(), digest_size=32).digest()
    path = settings.data_dir / "secret.key"
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = Path(f"{path}.{secrets.token_hex(8)}")
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(32))
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass  # another process was first; its key counts
        finally:
            fresh.unlink()
    return path.read_bytes()


def fingerprint(secret: bytes) -> str:
    """Return by what a secret is known without being told."""
    return blake2b(secret, digest_size=16, person=b"plumbline mark").hexdigest()


def check_secret(database: Database, secret: bytes) -> None:
    """Make sure that all processes of a database have one secret, else `Unavailable`.

    With another one no id would be recognised that came before, and no webhook's secret could be read.
    """
    mark = fingerprint(secret)
    with database.writing() as session:
        known = session.get(PropertyRow, "secret")
        if known is None:
            session.add(PropertyRow(name="secret", value=mark))
        elif known.value != mark:
            raise Unavailable(
                "this is not the secret that the database was made with; set PLUMBLINE_SECRET_KEY, or put secret.key "
                "in the data folder, to what its other processes (or the machine it comes from) have"
            )


def assemble(settings: Settings, clock: Clock | None = None) -> Assembly:
    """Make the parts; nothing runs and nothing is written but the data folder and the secret before `start`."""
    clock = clock or SystemClock()
    secret = secret_of(settings)
    settings.lake.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    lake = Lake(settings.lake, secret)
    index = Index(lake)
    profiles = Profiles(database, lake, clock, settings)
    worker = Worker(stock=settings.worker_stock)
    return Assembly(
        settings=settings,
        clock=clock,
        database=database,
        secret=secret,
        lake=lake,
        index=index,
        writer=Writer(database, clock, settings, secret, index),
        sealer=Sealer(database, lake, clock, settings),
        profiles=profiles,
        keyring=Keyring(database, clock, settings),
        sender=Sender(database, clock, settings, secret),
        worker=worker,
        explanations=Explanations(database, lake, clock, settings, profiles, worker, Vault(secret)),
    )
