"""All parts of the running service, made once from the settings and handed to whoever needs them."""

import secrets
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from service.access import Keyring
from service.clock import Clock, SystemClock
from service.database import Database
from service.ingest.writer import Writer
from service.lake import Index, Lake, Sealer
from service.profiles import Profiles
from service.schema import migrate
from service.settings import Settings
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

    @property
    def software(self) -> str:
        """The version stored with every run."""
        return software()

    def start(self) -> None:
        """Bring schema, lake and keys up to date, then open the log."""
        migrate(self.database)
        self.lake.adopt(self.database)
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
        self.database.close()


def software() -> str:
    """Return the distribution's version, or that this is a bare checkout."""
    try:
        return version("plumbline-server")
    except PackageNotFoundError:
        return "0.0.0+checkout"


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


def assemble(settings: Settings, clock: Clock | None = None) -> Assembly:
    """Make the parts; nothing runs and nothing is written but the data folder and the secret before `start`."""
    clock = clock or SystemClock()
    secret = secret_of(settings)
    settings.lake.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    lake = Lake(settings.lake, secret)
    index = Index(lake)
    return Assembly(
        settings=settings,
        clock=clock,
        database=database,
        secret=secret,
        lake=lake,
        index=index,
        writer=Writer(database, clock, settings, secret, index),
        sealer=Sealer(database, lake, clock, settings),
        profiles=Profiles(database, lake, clock, settings),
        keyring=Keyring(database, clock, settings),
        sender=Sender(database, clock, settings, secret),
        worker=Worker(),
    )
