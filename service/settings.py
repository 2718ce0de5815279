"""The service's settings, read from PLUMBLINE_* variables; unknown names are refused."""

from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "PLUMBLINE_"


class UnknownSetting(ValueError):
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
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses whose X-Forwarded-* headers are believed.")
    outbound_allow: tuple[str, ...] = Field(
        (), description="Hosts and networks inside that webhooks may call, e.g. `hooks.internal`, `10.1.0.0/16`."
    )
    outbound_http: bool = Field(False, description="Whether plain http may be called; only hosts of OUTBOUND_ALLOW.")
    outbound_proxy: str | None = Field(None, description="Proxy for all outbound calls.")
    ca_bundle: Path | None = Field(None, description="Certificates to trust for outbound calls.")
    max_upload: int = Field(2 * 2**30, description="Largest baseline file, bytes.")
    max_json: int = Field(16 * 2**20, description="Largest JSON, NDJSON or CSV body on the wire, bytes.")
    max_json_inflated: int = Field(64 * 2**20, description="The same, decompressed.")
    max_columnar: int = Field(64 * 2**20, description="Largest Arrow or Parquet body on the wire, bytes.")
    max_columnar_inflated: int = Field(256 * 2**20, description="The same, decoded.")
    min_free_bytes: int = Field(256 * 2**20, description="Free disk space under which ingest answers 507.")
    lateness_seconds: int = Field(3600, description="How long after its end a bucket still waits for records.")
    seal_rows: int = Field(50_000, description="Buffered rows of a model that are sealed at once.")
    seal_bytes: int = Field(16 * 2**20, description="Buffered bytes of a model that are sealed at once.")
    seal_seconds: int = Field(600, description="The longest that a record waits in the buffer.")
    tick_seconds: float = Field(5.0, description="How often due work is looked for.")
    roles: tuple[str, ...] = Field(
        ("api", "sealer", "scheduler", "sender"), description="What this process does; PostgreSQL where it is not all."
    )
    log_level: str = Field("info", description="debug, info, warning or error.")

    @field_validator("trusted_proxies", "outbound_allow", "roles", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'plumbline.db'}"

    @property
    def lake(self) -> Path:
        """The folder of the Parquet segments."""
        return Path(self.lake_url) if self.lake_url else self.data_dir / "lake"
