"""Settings of every process of this service: from the environment, or a `.env` file; checked before anything starts."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from notification_service import failpoints
from notification_service.rates import parse_rates
from shared_contracts.claims import AUDIENCE, DEFAULT_ISSUER
from shared_contracts.ws.frames import MAX_CLIENT_FRAME_BYTES, MAX_UNACKED

DEVELOPMENT_INTERNAL_KEY = "development-only-internal-key"  # refused in production
MIN_SECRET_LENGTH = 24


def _read_duration(value: object) -> object:
    """Plain numbers are seconds, also when they come as text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


Duration = Annotated[timedelta, BeforeValidator(_read_duration)]


class Environment(StrEnum):
    """Where this runs. `production` refuses to start on missing, default or short secrets."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Settings(BaseSettings):
    """All settings. Durations are ISO 8601 or seconds; sizes are bytes."""

    model_config = SettingsConfigDict(
        env_prefix="NOTIFY_",
        env_file=".env",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    environment: Environment = Field(
        Environment.DEVELOPMENT, validation_alias="HERALD_ENV", description="`development` or `production`."
    )
    run_dir: Path = Field(Path(".run"), validation_alias="HERALD_RUN_DIR", description="Folder of the SQLite file.")
    internal_service_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_INTERNAL_KEY),
        validation_alias="INTERNAL_SERVICE_KEY",
        description="Shared with the auth service; several separated by commas while rotating, the first one is sent.",
    )
    amqp_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/"), validation_alias="AMQP_URL", description="RabbitMQ."
    )
    database_url: SecretStr | None = Field(
        None, description="`postgresql://...`; left out: SQLite in the run folder (development only)."
    )
    database_pool_size: int = Field(10, ge=1, le=100, description="Connections per process.")
    database_timeout: Duration = Field(timedelta(seconds=2), description="Wait for a connection or a lock before 503.")
    auth_issuer: str = Field(
        DEFAULT_ISSUER, validation_alias="AUTH_ISSUER", description="Must equal the tokens' `iss` exactly."
    )
    auth_audience: str = Field(AUDIENCE, description="Must be in the tokens' `aud`.")
    auth_url: str | None = Field(None, description="Where the auth service answers; left out: the issuer.")
    introspection_ttl: Duration = Field(
        timedelta(seconds=30), le=timedelta(seconds=30), description="Longest use of one introspection answer."
    )
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Of Herald's own events.")

    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("http://127.0.0.1:8000", "http://localhost:8000", "http://127.0.0.1:8001", "http://localhost:8001"),
        description="Browser origins that may connect, separated by commas. Compared whole, never by prefix.",
    )
    allow_missing_origin: bool = Field(
        default=True, description="Whether clients that send no Origin (no browsers) may connect."
    )

    heartbeat_interval: Duration = Field(
        # 20 s: proxies on the way close idle connections after 30 s or more, and browsers cannot ping.
        timedelta(seconds=20),
        description="Between WebSocket pings; a peer that misses two is gone.",
    )
    authentication_timeout: Duration = Field(timedelta(seconds=10), description="Until `hello` must have come (4408).")
    ack_timeout: Duration = Field(
        timedelta(seconds=30), description="Until unacknowledged frames are sent again; after three times: 4412."
    )
    max_unacked: int = Field(MAX_UNACKED, ge=1, le=1000, description="Frames in flight per device.")
    max_frame_bytes: int = Field(MAX_CLIENT_FRAME_BYTES, ge=1024, description="Longest frame from a client (1009).")
    max_frames_per_second: int = Field(50, ge=1, description="From one client, acknowledgements not counted (4429).")
    max_send_buffer_bytes: int = Field(
        1024 * 1024, ge=64 * 1024, description="Bytes waiting for one client that does not read (4412)."
    )
    max_messages_per_second: float = Field(
        5.0, gt=0, description="`send` frames of one client; beyond: `error` with the code `rate_limited`."
    )
    max_following: int = Field(1_000, ge=1, description="Users one client may follow the presence of.")
    presence_grace: Duration = Field(
        # 10 s: longer than a change of network or a reconnect with back-off takes mostly.
        timedelta(seconds=10),
        description="How long a user whose last connection dropped stays as they were.",
    )
    max_handshakes_per_second: int = Field(
        2_000, ge=1, description="Of one gateway process, with a burst of two seconds' worth; beyond: 503."
    )
    drain_time: Duration = Field(
        timedelta(seconds=5), description="Over which a stopping gateway sends its clients away, in waves."
    )
    max_connections: int = Field(20_000, ge=1, description="Sockets of one gateway process; beyond: 503.")
    max_connections_per_user: int = Field(10, ge=1, description="The oldest is closed (4504).")
    resume_max_items: int = Field(10_000, ge=1, description="Longest gap that is replayed; beyond: `reset`.")
    retention: Duration = Field(timedelta(days=30), description="How long items and positions are kept.")

    intake_batch_size: int = Field(500, ge=1, le=5000, description="Messages stored in one transaction at most.")
    fanout_at: int = Field(
        1_000, ge=1, description="Recipients of groups and roles beyond which an audience is served in pieces."
    )
    relay_interval: Duration = Field(timedelta(seconds=1), description="Between sweeps for what a crash left behind.")
    relay_hold: Duration = Field(
        # One minute: what waits in the intake because no worker runs is not handed over again every few seconds.
        timedelta(minutes=1),
        description="How long one relay's try may take before another one.",
    )
    relay_grace: Duration = Field(timedelta(seconds=10), description="How long the first try may take before a sweep.")

    public_url: str = Field("http://127.0.0.1:8001", description="Where users reach this service; for links in mails.")
    retry_delays_seconds: Annotated[tuple[Duration, ...], NoDecode] = Field(
        tuple(timedelta(seconds=seconds) for seconds in (10, 60, 300, 1800, 7200)),
        max_length=16,
        description="Waits between attempts on outgoing channels, in seconds, separated by commas; then a dead letter.",
    )
    allow_private_targets: bool = Field(
        default=False, description="Whether contacts may point at loopback addresses; refused in production."
    )
    require_verified_contacts: bool | None = Field(
        None, description="Whether addresses must be proved before they are used; left out: only in production."
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="Encrypt addresses and secrets of contacts, separated by commas, the newest first; left out: the "
        "internal service keys.",
    )
    redis_url: SecretStr | None = Field(
        None,
        validation_alias="REDIS_URL",
        description="Shares rate limits between workers; left out: each has its own.",
    )
    rate_limits: str = Field(
        "telegram=25/s,sms=20/s",
        description="Of outgoing channels, like `email=100/s,sms.tenant=60/m`; `.provider` (account or endpoint), "
        "`.tenant` and `.sender`: for each one.",
    )
    breaker_threshold: int = Field(10, ge=1, description="Failures in a row after which a provider is left alone.")
    breaker_open_seconds: Duration = Field(
        timedelta(seconds=30), description="How long, until it is asked again by one attempt."
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for key in ("allowed_origins", "NOTIFY_ALLOWED_ORIGINS"):
            given = values.get(key)
            if isinstance(given, str):
                values[key] = tuple(part.strip() for part in given.split(",") if part.strip())
        return values

    @field_validator("retry_delays_seconds", mode="before")
    @classmethod
    def _split_delays(cls, value: object) -> object:
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("retry_delays_seconds")
    @classmethod
    def _check_delays(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        if not all(timedelta(milliseconds=10) <= delay <= timedelta(days=2) for delay in value):
            raise ValueError("each must be between 0.01 and 172800 seconds")
        return value

    @field_validator("rate_limits")
    @classmethod
    def _check_rates(cls, value: str) -> str:
        parse_rates(value)
        return value

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        if self.allow_private_targets:
            raise ValueError("NOTIFY_ALLOW_PRIVATE_TARGETS must not be set in production")
        if os.environ.get(failpoints.VARIABLE):
            raise ValueError(f"{failpoints.VARIABLE} must not be set in production")
        keys = self.internal_keys
        if not keys or DEVELOPMENT_INTERNAL_KEY in keys or any(len(key) < MIN_SECRET_LENGTH for key in keys):
            raise ValueError(f"INTERNAL_SERVICE_KEY must be set to keys of at least {MIN_SECRET_LENGTH} characters")
        if self.database_url is None:
            raise ValueError("NOTIFY_DATABASE_URL must be set")
        broker = urlsplit(self.amqp_url.get_secret_value())
        if broker.username in (None, "guest") or not broker.password:
            raise ValueError("AMQP_URL must name a user other than guest, with a password")
        return self

    @classmethod
    def variable_of(cls, field: str) -> str:
        """The environment variable of a field; also takes the variable's own name."""
        known = cls.model_fields.get(field)
        if known is None or isinstance(known.validation_alias, str):
            return str(known.validation_alias) if known is not None else field
        return f"{cls.model_config['env_prefix']}{field}".upper()

    @property
    def internal_keys(self) -> tuple[str, ...]:
        """All internal service keys that are accepted; the first one is sent."""
        return tuple(key.strip() for key in self.internal_service_key.get_secret_value().split(",") if key.strip())

    @property
    def contact_keys(self) -> tuple[str, ...]:
        """Keys for addresses and secrets of contacts; the first one encrypts, all decrypt."""
        own = self.encryption_keys.get_secret_value().split(",") if self.encryption_keys is not None else ()
        return (*(key.strip() for key in own if key.strip()), *self.internal_keys)

    @property
    def needs_verified_contacts(self) -> bool:
        """Whether addresses must be proved."""
        if self.require_verified_contacts is None:
            return self.environment is Environment.PRODUCTION
        return self.require_verified_contacts

    @property
    def auth_base_url(self) -> str:
        """Where the auth service answers, without a trailing slash."""
        return (self.auth_url or self.auth_issuer).rstrip("/")

    @property
    def sqlalchemy_url(self) -> str:
        """The database address with the asynchronous driver in it."""
        if self.database_url is None:
            return f"sqlite+aiosqlite:///{self.run_dir.resolve()}/notify.sqlite3"
        url = self.database_url.get_secret_value()
        for plain, driver in (("postgresql://", "postgresql+asyncpg://"), ("postgres://", "postgresql+asyncpg://")):
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url.replace("sqlite://", "sqlite+aiosqlite://", 1) if url.startswith("sqlite://") else url
