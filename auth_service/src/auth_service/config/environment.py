"""Settings of this service: from the environment, or a `.env` file; checked before anything starts."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared_contracts.claims import DEFAULT_ISSUER

DEVELOPMENT_INTERNAL_KEY = "development-only-internal-key"  # refused in production, as are the next two
DEVELOPMENT_SECRET_KEY = "development-only-secret-key-that-signs-nothing-of-worth"  # noqa: S105 - refused in production
DEFAULT_NOTIFICATION_URL = "http://127.0.0.1:8001"
DEVELOPMENT_AMQP_URL = "amqp://guest:guest@127.0.0.1:5672/"
MIN_INTERNAL_KEY_LENGTH = 24
MIN_SECRET_KEY_LENGTH = 32

_SECONDS = re.compile(r"\d+(\.\d+)?")


class Environment(StrEnum):
    """Where this runs. `production` refuses to start on missing, default or short secrets."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _parse_seconds(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _SECONDS.fullmatch(value.strip()) else value


def _parse_network(value: Any) -> Any:
    try:
        return ip_network(value, strict=False) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be addresses or networks, for example 10.0.0.0/8") from None


Duration = Annotated[timedelta, BeforeValidator(_parse_seconds)]
"""Seconds (`900`), or ISO 8601 (`PT15M`)."""
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Separated by commas."""
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_parse_network)]
Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_split)]
"""Addresses or networks (`10.0.0.0/8`), separated by commas."""

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class AuthSettings(BaseSettings):
    """All settings. Durations are seconds or ISO 8601; lists are separated by commas."""

    model_config = SettingsConfigDict(
        env_prefix="AUTH_",
        env_file=".env",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
    )

    # What both services share.
    environment: Environment = Field(
        Environment.DEVELOPMENT, validation_alias="HERALD_ENV", description="`development` or `production`."
    )
    run_dir: Path = Field(
        Path(".run"), validation_alias="HERALD_RUN_DIR", description="Folder of files that defaults point into."
    )
    internal_service_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_INTERNAL_KEY),
        validation_alias="INTERNAL_SERVICE_KEY",
        description="What services show in `X-Internal-Key`; several separated by commas are all accepted.",
    )
    internal_service_key_file: Path | None = Field(
        None,
        validation_alias="INTERNAL_SERVICE_KEY_FILE",
        description="File with the keys instead; read again when it changes, so that keys rotate without a restart.",
    )
    notification_url: str = Field(
        DEFAULT_NOTIFICATION_URL,
        pattern=r"^https?://[^\s]+$",
        description="Where the notification service answers: exports hold what it knows too.",
    )
    amqp_url: SecretStr = Field(
        SecretStr(DEVELOPMENT_AMQP_URL), validation_alias="AMQP_URL", description="RabbitMQ, for the identity events."
    )

    # Secrets and stores.
    secret_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET_KEY),
        description="Signs cursors, admin sessions and links, and encrypts second-factor secrets.",
    )
    secret_key_fallbacks: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split)] = Field(
        (), description="Earlier secret keys that are still accepted while the secret key rotates."
    )
    database_url: SecretStr | None = Field(
        None, description="`postgresql://...`; left out: SQLite in the run folder (development only)."
    )
    database_pool_size: int = Field(16, ge=1, le=200, description="PostgreSQL connections of one worker at most.")
    database_timeout: Duration = Field(timedelta(seconds=2), description="Wait for a connection or a lock before 503.")
    keys_dir: Path | None = Field(None, description="Folder of the signing keys; left out: in the run folder.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Of Herald's own events.")

    # Tokens and sessions.
    issuer: str = Field(DEFAULT_ISSUER, description="`iss` of every token, and the public address of this service.")
    signing_algorithm: Literal["RS256", "EdDSA"] = Field("RS256", description="Of new signing keys.")
    access_lifetime: Duration = Field(timedelta(minutes=15), gt=timedelta(0), description="Of an access token.")
    refresh_lifetime: Duration = Field(timedelta(days=30), gt=timedelta(0), description="Of an unused refresh token.")
    session_lifetime: Duration = Field(
        timedelta(days=90), gt=timedelta(0), description="Until a session must log in again."
    )
    refresh_grace: Duration = Field(
        timedelta(seconds=10), description="How long a used refresh token may come again from the same device."
    )
    ticket_lifetime: Duration = Field(
        timedelta(seconds=30), le=timedelta(seconds=30), description="Of a socket ticket."
    )
    key_publish_ahead: Duration = Field(
        timedelta(minutes=10), description="How long a new signing key is published before it signs."
    )
    jwks_max_age: Duration = Field(timedelta(minutes=5), description="How long others may keep the key set.")
    sudo_lifetime: Duration = Field(
        timedelta(minutes=10), description="After a login: how long the second factor may be changed without proof."
    )

    # Accounts and mail.
    password_min_length: int = Field(8, ge=8, le=64, description="Characters of a password at least (NIST 800-63B).")
    argon2_memory_kib: int = Field(19_456, ge=8, description="Memory of one password hash, in KiB (OWASP: 19 MiB).")
    argon2_time_cost: int = Field(2, ge=1, description="Passes of one password hash.")
    reset_lifetime: Duration = Field(timedelta(hours=1), description="Of a password reset link.")
    verify_lifetime: Duration = Field(timedelta(days=3), description="Of an e-mail verification link.")
    email_url: SecretStr | None = Field(
        None,
        description="`smtp://user:pass@host:port`, `smtps://...`, `?starttls=1`; left out: mails are files in the run "
        "folder (development), or are not sent (production).",
    )
    email_from: str = Field("Herald <herald@localhost>", description="Sender of mails.")
    link_base_url: str | None = Field(
        None, description="Where links in mails point; left out: the issuer. Never taken from a request."
    )

    # The edge.
    allowed_hosts: Words = Field(("*",), description="`Host` headers that are answered.")
    trusted_proxies: Networks = Field((), description="Peers whose `X-Forwarded-For` is believed.")
    operator_networks: Networks = Field(
        _LOOPBACK, description="In production: who may open the admin, the API pages and the metrics without the key."
    )
    cors_origins: Words = Field(
        (), description="Browser origins that may call the API, for example `https://app.example`."
    )
    csrf_trusted_origins: Words = Field((), description="Origins of the admin behind a proxy that ends TLS.")
    secure_cookies: bool | None = Field(None, description="Admin cookies only over TLS; left out: yes in production.")
    max_body_bytes: int = Field(2 * 1024 * 1024, ge=1024, description="Longest request body (413).")
    workers: int = Field(2, ge=1, le=64, description="Server processes.")
    threads: int = Field(
        # 40: fifty logins at once leave threads for everyone else; a waiting thread costs 60 KB.
        40,
        ge=1,
        le=500,
        description="Requests one server process works on at once.",
    )

    # Rate limits, shared by all workers.
    login_failures_per_account: int = Field(5, ge=1, description="Failed logins of one account in five minutes.")
    login_failures_per_address: int = Field(10, ge=1, description="Failed logins from one address in a minute.")
    register_per_address: int | None = Field(
        None, ge=1, description="Registrations from one address in a minute; left out: 20, in development 600."
    )
    reset_per_address: int = Field(20, ge=1, description="Mails asked for from one address in a minute.")
    reset_per_account: int = Field(5, ge=1, description="Mails asked for to one address in a minute.")
    internal_failures_per_address: int = Field(
        30, ge=1, description="Wrong internal keys from one address in a minute."
    )

    # Identity events.
    relay_interval: Duration = Field(
        timedelta(milliseconds=100), le=timedelta(milliseconds=200), description="Between looks into the outbox."
    )
    event_retention: Duration = Field(timedelta(days=7), description="How long published events can be replayed.")

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if self.environment is not Environment.PRODUCTION:
            return self
        problems = [problem for problem in self._find_problems() if problem]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _find_problems(self) -> list[str | None]:
        given = self.model_fields_set
        broker = urlsplit(self.amqp_url.get_secret_value())
        secret = self.secret_key.get_secret_value()
        keys = () if self.internal_service_key_file else self.internal_keys
        return [
            f"INTERNAL_SERVICE_KEY must be set to keys of at least {MIN_INTERNAL_KEY_LENGTH} characters"
            if not self.internal_service_key_file
            and (not keys or any(key == DEVELOPMENT_INTERNAL_KEY or len(key) < MIN_INTERNAL_KEY_LENGTH for key in keys))
            else None,
            f"AUTH_SECRET_KEY must be set to at least {MIN_SECRET_KEY_LENGTH} characters of its own"
            if secret == DEVELOPMENT_SECRET_KEY
            or len(secret) < MIN_SECRET_KEY_LENGTH
            or secret.startswith("django-insecure-")
            else None,
            "AMQP_URL must name a user other than guest, with a password"
            if broker.username in {None, "", "guest"} or not broker.password
            else None,
            "AUTH_DATABASE_URL must be set" if self.database_url is None else None,
            "AUTH_ISSUER must be set" if "issuer" not in given or not self.issuer else None,
            "AUTH_ALLOWED_HOSTS must be set, without *"
            if not self.allowed_hosts or "*" in self.allowed_hosts
            else None,
        ]

    @property
    def is_production(self) -> bool:
        """Whether the strict rules hold."""
        return self.environment is Environment.PRODUCTION

    @property
    def internal_keys(self) -> tuple[str, ...]:
        """The internal service keys of the setting itself; `internal_api.keys` also looks into the file."""
        return _split(self.internal_service_key.get_secret_value())  # type: ignore[no-any-return]

    @property
    def keys_path(self) -> Path:
        """Folder of the signing keys."""
        return (self.keys_dir or self.run_dir / "auth-keys").resolve()

    @property
    def database_address(self) -> str:
        """The database as a URL."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.run_dir.resolve() / 'auth.sqlite3'}"

    @property
    def links_start_with(self) -> str:
        """What links in mails begin with, without a trailing slash."""
        return (self.link_base_url or self.issuer).rstrip("/")

    @property
    def registrations_per_minute(self) -> int:
        """From one address. Test suites and demonstrations register hundreds from one machine."""
        return self.register_per_address or (20 if self.is_production else 600)


def load_environment() -> AuthSettings:
    """Read and check the settings.

    Raises:
        SystemExit: Something is missing or wrong. The text names each setting and never its value.
    """
    try:
        return AuthSettings()
    except ValidationError as error:
        lines = [f"{_name_of(problem['loc'])}{problem['msg']}" for problem in error.errors(include_input=False)]
        raise SystemExit("auth service: wrong settings\n" + "\n".join(f"  {line}" for line in lines)) from None


def _name_of(location: tuple[int | str, ...]) -> str:
    if not location:
        return ""
    name = str(location[0])
    if name in AuthSettings.model_fields:
        name = f"AUTH_{name}".upper()
    return f"{name.upper()}: "
