"""Whether this process lives, and whether it can do its work (J01)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import aio_pika
import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from rest_framework.request import Request
from rest_framework.response import Response

from auth_service import clock
from auth_service.api.access import Access
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.tokens.access_tokens import key_folder

log = structlog.get_logger(__name__)

_BROKER_TIMEOUT_S = 2.0
# 2 s: load balancers ask every few seconds, each login at the broker costs it a connection.
_REMEMBER_S = 2.0


@dataclass(frozen=True)
class Check:
    """One part's answer. `detail` names no address, version or path (G03)."""

    ok: bool
    detail: str = "ok"


class _Remembered:
    """An answer that is asked for once in a while, whoever wants to know."""

    def __init__(self, ask: Callable[[], Check]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._known: Check | None = None
        self._asked_s = float("-inf")

    def get(self) -> Check:
        """The answer as of the last two seconds."""
        with self._lock:
            if self._known is None or time.monotonic() - self._asked_s > _REMEMBER_S:
                self._known = self._ask()
                self._asked_s = time.monotonic()
            return self._known


def check_database() -> Check:
    """Whether the database answers and has every table."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return _migrations.get()
    except DatabaseError:
        connection.close()
        return Check(ok=False, detail="the database does not answer")


def check_keys() -> Check:
    """Whether tokens can be signed."""
    try:
        key_folder().load().signing_key(clock.now())
    except (LookupError, OSError, ValueError):
        return Check(ok=False, detail="there is no signing key")
    return Check(ok=True)


def check_broker() -> Check:
    """Whether RabbitMQ lets us in. Requests do not need it: events wait in the outbox."""
    return _broker.get()


def _ask_migrations() -> Check:
    executor = MigrationExecutor(connection)
    pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return Check(ok=False, detail="the database is not migrated") if pending else Check(ok=True)


def _ask_broker() -> Check:
    async def log_in() -> None:
        async with asyncio.timeout(_BROKER_TIMEOUT_S):
            connected = await aio_pika.connect(settings.HERALD.amqp_url.get_secret_value())
            await connected.close()

    try:
        asyncio.run(log_in())
    except Exception as error:  # noqa: BLE001 - whatever it is, the broker is not to be had
        log.debug("broker_unavailable", error=type(error).__name__)
        return Check(ok=False, detail="the broker does not answer")
    return Check(ok=True)


_broker = _Remembered(_ask_broker)
_migrations = _Remembered(_ask_migrations)

CHECKS: dict[str, Callable[[], Check]] = {
    "database": check_database,
    "broker": check_broker,
    "keys": check_keys,
}
_GOOD = {"status": "ok", "checks": {"database": "ok", "broker": "ok", "keys": "ok"}}
_SHAPE = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": {"type": "string", "enum": ["ok", "unavailable"]},
        "checks": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


class HealthView(ApiView):
    """Base: runs some checks; 503 when one fails."""

    access = {"GET": Access.PUBLIC}
    checks: tuple[str, ...] = ()

    def _answer(self) -> Response:
        found = {name: CHECKS[name]() for name in self.checks}
        is_good = all(check.ok for check in found.values())
        body = {"status": "ok" if is_good else "unavailable", "checks": {k: v.detail for k, v in found.items()}}
        headers = {"Cache-Control": "no-store", **({} if is_good else {"Retry-After": "5"})}
        return Response(body, status=200 if is_good else 503, headers=headers)


class SummaryView(HealthView):
    """Everything at once."""

    checks = ("database", "broker", "keys")

    @operation("get_health", "Summary", response=_SHAPE, answers=_GOOD)
    def get(self, request: Request) -> Response:
        """Every part by name; 503 when one does not answer."""
        return self._answer()


class LiveView(HealthView):
    """Whether the process answers at all."""

    @operation("get_liveness", "Liveness", response=_SHAPE, answers={"status": "ok", "checks": {}})
    def get(self, request: Request) -> Response:
        """200 also while the broker or the database is down: a restart would not help."""
        return self._answer()


class ReadyView(HealthView):
    """Whether to send requests here."""

    checks = ("database", "broker", "keys")

    @operation("get_readiness", "Readiness", response=_SHAPE, answers=_GOOD)
    def get(self, request: Request) -> Response:
        """200 with database, broker and signing key, else 503."""
        return self._answer()


class DatabaseView(HealthView):
    """The database alone."""

    checks = ("database",)

    @operation("get_database_health", "Database", response=_SHAPE, answers={**_GOOD, "checks": {"database": "ok"}})
    def get(self, request: Request) -> Response:
        """200 when it answers and is migrated."""
        return self._answer()


class BrokerView(HealthView):
    """The broker alone."""

    checks = ("broker",)

    @operation("get_broker_health", "Broker", response=_SHAPE, answers={**_GOOD, "checks": {"broker": "ok"}})
    def get(self, request: Request) -> Response:
        """200 when it lets us in."""
        return self._answer()
