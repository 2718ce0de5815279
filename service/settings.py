"""The service's settings, read from PLUMBLINE_* variables; unknown names are refused."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "PLUMBLINE_"
CLIENT = frozenset({"URL", "KEY"})
"""Names that the command line's client commands read, and that a service may find in its environment."""

ROLES = ("api", "sealer", "scheduler", "worker", "sender")
"""What a process may do: take requests, seal, run what is due, run what was asked for, send what is owed."""

Names = Annotated[tuple[str, ...], NoDecode]
"""A comma list; not JSON."""


class SettingRefused(ValueError):  # noqa: N818 - read as a sentence, like the problems
    """A PLUMBLINE_* variable that cannot be used; the text is one sentence for whoever set it."""


class UnknownSetting(SettingRefused):
    """A PLUMBLINE_* variable that no setting has."""


class Settings(BaseSettings):
    """Everything that can be set from outside; secrets may be given as PLUMBLINE_<NAME>_FILE instead."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Field(Path("data"), description="Folder of the embedded database, the lake and the buffers.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in the data folder.")
    lake_url: str | None = Field(
        None, description="Folder of the Parquet segments; default: `lake` in the data folder."
    )
    admin_key: SecretStr | None = Field(None, description="A key with every scope, made at start-up where it is set.")
    secret_key: SecretStr | None = Field(
        None, description="Key of sessions, id hashes and secrets at rest; default: made once in the data folder."
    )
    public_url: str = Field("http://127.0.0.1:8000", description="Scheme, host and path prefix of every absolute link.")
    trusted_proxies: Names = Field((), description="Addresses whose X-Forwarded-* headers are believed.")
    outbound_allow: Names = Field(
        (), description="Hosts and networks inside that webhooks may call, e.g. `hooks.internal`, `10.1.0.0/16`."
    )
    outbound_http: bool = Field(False, description="Whether plain http may be called; only hosts of OUTBOUND_ALLOW.")
    outbound_proxy: str | None = Field(None, description="Proxy for all outbound calls.")
    ca_bundle: Path | None = Field(None, description="Certificates to trust for outbound calls.")
    max_artifact: int = Field(256 * 2**20, description="Largest file of a model, bytes.")
    worker_bytes: int = Field(4 * 2**30, description="Memory that a worker process may hold, bytes; then it is ended.")
    worker_stock: bool = Field(
        True,
        description="Whether what worker processes are forked from is kept once needed: up to 350 MB, for 5 minutes.",
    )
    explanation_seconds: float = Field(300.0, description="How long one explanation may take in the worker process.")
    max_upload: int = Field(2 * 2**30, description="Largest baseline file, bytes.")
    max_json: int = Field(16 * 2**20, description="Largest JSON, NDJSON or CSV body on the wire, bytes.")
    max_json_inflated: int = Field(64 * 2**20, description="The same, decompressed.")
    max_columnar: int = Field(64 * 2**20, description="Largest Arrow or Parquet body on the wire, bytes.")
    max_columnar_inflated: int = Field(256 * 2**20, description="The same, decoded.")
    queue_bytes: int = Field(128 * 2**20, description="Bodies that may wait to be stored, bytes; more is answered 429.")
    queue_requests: int = Field(20_000, description="The same, in requests.")
    min_free_bytes: int = Field(256 * 2**20, description="Free disk space under which ingest answers 507.")
    lateness_seconds: int = Field(3600, description="How long after its end a bucket still waits for records.")
    seal_rows: int = Field(50_000, description="Buffered rows of a model that are sealed at once.")
    seal_bytes: int = Field(16 * 2**20, description="Buffered bytes of a model that are sealed at once.")
    seal_seconds: int = Field(600, description="The longest that a record waits in the buffer.")
    tick_seconds: float = Field(5.0, description="How often due work is looked for.")
    roles: Names = Field(
        ROLES,
        description="What this process does; several may share the work, on several hosts with PostgreSQL.",
    )
    lease_seconds: float = Field(
        60.0, ge=1.0, description="How long work that was begun is left to a process that is frozen or cut off."
    )
    drain_seconds: float = Field(
        3.0, ge=0.0, le=20.0, description="How long requests are still served after SIGTERM, while /readyz says 503."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")

    @field_validator("trusted_proxies", "outbound_allow", "roles", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("roles")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [role for role in value if role not in ROLES]
        if unknown or not value:
            raise ValueError(f"there is no role {unknown[0] if unknown else ''!r}; there are {', '.join(ROLES)}")
        return value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'plumbline.db'}"

    @property
    def lake(self) -> Path:
        """The folder of the Parquet segments."""
        return Path(self.lake_url) if self.lake_url else self.data_dir / "lake"


def secret_names() -> frozenset[str]:
    """Return the settings that may also be given as a file, by `<NAME>_FILE`."""
    return frozenset(
        name.upper() for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
    ) | {"DATABASE_URL"}


def load_settings(environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Return the settings of the environment, with overrides that win (None: not given).

    Raises `SettingRefused`, one sentence, for a name that no setting has (with the nearest one), a secret's file that
    cannot be read, and a value that does not fit.
    """
    given = os.environ if environment is None else environment
    known = {name.upper() for name in Settings.model_fields}
    files = {f"{name}_FILE": name for name in secret_names()}
    values: dict[str, Any] = {}
    for variable in sorted(name for name in given if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        if name in files:
            values[files[name].lower()] = _read(variable, given[variable])
        elif name in known:
            values.setdefault(name.lower(), given[variable])
        elif name not in CLIENT:
            near = get_close_matches(name, sorted(known | set(files)), n=1, cutoff=0.5)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "docs/configuration.md lists them all"
            raise UnknownSetting(f"{variable} is not a setting: {hint}")
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        fault = error.errors()[0]
        name = PREFIX + str(fault["loc"][0] if fault["loc"] else "?").upper()
        raise SettingRefused(f"{name} cannot be used: {fault['msg'].lower()}") from None


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{variable} names {path}, which cannot be read: {error}") from None


def software() -> str:
    """Return the distribution's version, or that this is a bare checkout."""
    try:
        return version("plumbline-server")
    except PackageNotFoundError:
        return "0.0.0+checkout"
