"""Lines of the audit log. The log is the auth service's; a line waits here, in the transaction of what it tells of,
until that service has it. Its id makes sending it twice harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import httpx
import structlog
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock, format_time
from notification_service.db.engine import Database
from notification_service.errors import Unavailable
from notification_service.identity.access import Caller
from notification_service.identity.models import audit_outbox
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.headers import INTERNAL_KEY
from shared_contracts.ids import new_id

log = structlog.get_logger(__name__)

_BATCH: Final = 200
_POLL: Final = timedelta(seconds=1)
_LONGEST_PAUSE: Final = timedelta(seconds=30)
_CALL_LIMIT_S: Final = 10.0
_MAX_USER_AGENT_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Origin:
    """From where a request comes."""

    ip: str | None = None
    user_agent: str = ""
    correlation_id: str = ""


request_origin: ContextVar[Origin] = ContextVar("request_origin", default=Origin())  # noqa: B039 - it is frozen
"""Of the request this task serves; set by the middleware."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it."""

    type: str
    id: UUID | None = None
    tenant: str = DEFAULT_TENANT

    @classmethod
    def of(cls, caller: Caller) -> Actor:
        """A caller of the API."""
        return cls("service" if caller.is_service else "user", caller.id, caller.tenant)


SYSTEM: Final = Actor("system")


async def record(
    connection: AsyncConnection,
    by: Caller | Actor,
    action: str,
    *,
    now: datetime,
    subject: tuple[str, str] | None = None,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down what is being done, in the transaction that does it.

    Args:
        connection: In a write transaction.
        action: `thing.done_to_it`; a word is never renamed.
        subject: Kind and id of what it is done to.
        tenant: Of the subject; None: the actor's.
        details: Never a name, an address or a secret: lines outlive the people in them.
    """
    await record_all(connection, by, action, subjects=[subject], now=now, tenant=tenant, details=details)


async def record_all(
    connection: AsyncConnection,
    by: Caller | Actor,
    action: str,
    *,
    subjects: Sequence[tuple[str, str] | None],
    now: datetime,
    tenant: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """The same for many subjects, a line for each."""
    actor = Actor.of(by) if isinstance(by, Caller) else by
    origin = request_origin.get() if actor.type != SYSTEM.type else Origin()
    rows = []
    for subject in subjects:
        kind, subject_id = subject or ("", "")
        line_id = new_id()
        event = {
            "id": str(line_id),
            "occurred_at": format_time(now),
            "action": action,
            "actor_type": actor.type,
            "actor_id": str(actor.id) if actor.id else None,
            "subject_type": kind,
            "subject_id": subject_id,
            "tenant": tenant or actor.tenant,
            "ip": origin.ip,
            "user_agent": origin.user_agent,
            "correlation_id": origin.correlation_id,
            "details": dict(details or {}),
        }
        rows.append({"id": line_id, "event": event, "created_at": now})
    if rows:
        await connection.execute(insert(audit_outbox), rows)


def make_origin(ip: str | None, user_agent: str | None, correlation_id: str) -> Origin:
    """The origin of a request, in the form the log takes."""
    printable = "".join(letter for letter in user_agent or "" if letter.isprintable())
    return Origin(ip, printable[:_MAX_USER_AGENT_LENGTH].strip(), correlation_id)


class AuditRelay:
    """Hands waiting lines to the auth service, many in one call. Several processes may run it."""

    def __init__(self, database: Database, base_url: str, *, key: str, client: httpx.AsyncClient, clock: Clock) -> None:
        self._database = database
        self._url = f"{base_url}/internal/v1/audit-events"
        self._headers = {INTERNAL_KEY: key}
        self._client = client
        self._clock = clock

    async def run(self) -> None:
        """Relay until cancelled; while the auth service is away lines wait in the table."""
        pause = _POLL
        while True:
            try:
                while await self.relay_some():
                    pass
            except Unavailable as error:
                pause = min(pause * 2, _LONGEST_PAUSE)
                log.warning("audit_lines_wait", problem=error.detail)
            else:
                pause = _POLL
            await self._clock.sleep(pause)

    async def relay_some(self) -> int:
        """Hand over the oldest lines; answers how many are done with.

        Raises:
            Unavailable: The auth service or the database does not answer.
        """
        async with self._database.read() as connection:
            found = await connection.execute(
                select(audit_outbox.c.id, audit_outbox.c.event)
                .order_by(audit_outbox.c.created_at, audit_outbox.c.id)
                .limit(_BATCH)
            )
            rows = found.all()
        if not rows:
            return 0
        if not await self._post([row.event for row in rows]):
            # One line the other side does not take must not hold up the rest for ever.
            for row in rows:
                if not await self._post([row.event]):
                    log.error("audit_line_refused", line_id=str(row.id), action=row.event["action"])
        async with self._database.write() as connection:
            await connection.execute(delete(audit_outbox).where(audit_outbox.c.id.in_([row.id for row in rows])))
        return len(rows)

    async def _post(self, events: list[dict[str, Any]]) -> bool:
        try:
            response = await self._client.post(
                self._url, json={"items": events}, headers=self._headers, timeout=_CALL_LIMIT_S
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"the auth service takes no audit lines: {type(error).__name__}") from error
        if response.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
            return False
        if not response.is_success:
            raise Unavailable(f"the auth service takes no audit lines: status {response.status_code}")
        return True
