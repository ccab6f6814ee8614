"""The REST API, a worker and a scheduler of one installation, wired as in production, in the test's own event loop."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from amqp import Bystander, bystander
from auth_site import INTERNAL_KEY, ISSUER, AuthSite, make_claims, make_group, make_user, sign
from waiting import until
from web import serving

from notification_service.entrypoints.api import make_api
from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.scheduler import make_scheduler
from notification_service.entrypoints.worker import make_worker
from notification_service.settings import Settings

_MAKERS = {"api": make_api, "worker": make_worker, "scheduler": make_scheduler}


@dataclass(frozen=True)
class Person:
    """A user, or a service account, and a valid token."""

    id: UUID
    tenant: str
    token: str = field(repr=False)


class Service:
    """Calls the API as somebody.

    Attributes:
        urls: Address by process.
        parts: Objects by process, for looking inside.
    """

    def __init__(self, auth: AuthSite, client: httpx.AsyncClient) -> None:
        self.auth = auth
        self.client = client
        self.urls: dict[str, str] = {}
        self.parts: dict[str, Parts] = {}
        self.outside: Bystander = None  # type: ignore[assignment]  # set before anybody sees this

    def add_tenant(self) -> str:
        """A name no other test uses: what tests see of each other ends at the tenant."""
        return f"t-{uuid.uuid4().hex[:12]}"

    def add_person(self, role: str = "user", *, tenant: str = "default", **fields: Any) -> Person:
        """A user the auth service knows; no event tells of them, they are asked for when first named."""
        user = make_user(tenant=tenant, roles=[role], **fields)
        self.auth.users.append(user)
        claims = make_claims(sub=user["id"], roles=[role], tenant=tenant)
        return Person(UUID(user["id"]), tenant, sign(claims))

    def add_service_account(self, *scopes: str, tenant: str = "default") -> Person:
        claims = make_claims(roles=["service"], tenant=tenant, scope=" ".join(scopes))
        self.auth.overrides[claims["sub"]] = {"username": None, "client_id": "shop"}
        return Person(UUID(claims["sub"]), tenant, sign(claims))

    def add_group(self, *members: Person, tenant: str = "default") -> UUID:
        group = make_group(tenant=tenant)
        self.auth.groups.append(group)
        self.auth.memberships += [{"group_id": group["id"], "user_id": str(each.id)} for each in members]
        return UUID(group["id"])

    async def call(
        self, method: str, path: str, person: Person | None = None, *, process: str = "api", **options: Any
    ) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if person is not None:
            headers["Authorization"] = f"Bearer {person.token}"
        return await self.client.request(method, self.urls[process] + path, headers=headers, **options)

    async def get(self, path: str, person: Person | None = None, **options: Any) -> httpx.Response:
        return await self.call("GET", path, person, **options)

    async def post(self, path: str, person: Person | None = None, body: Any = None, **options: Any) -> httpx.Response:
        return await self.call("POST", path, person, json=body, **options)

    async def send(self, sender: Person, *recipients: Person, **fields: Any) -> UUID:
        """Send over REST; the request gets a title and these recipients unless given. Not waited for."""
        request = {"title": "Hello", "recipients": {"users": [str(each.id) for each in recipients]}, **fields}
        answer = await self.post("/api/v1/notifications/send", sender, request)
        assert answer.status_code == 202, answer.text
        return UUID(answer.json()["id"])

    async def deliver(self, sender: Person, *recipients: Person, **fields: Any) -> UUID:
        """Send, and return when it is in everybody's inbox."""
        notification_id = await self.send(sender, *recipients, **fields)

        async def is_dispatched() -> bool:
            answer = await self.get(f"/api/v1/notifications/status/{notification_id}", sender)
            return bool(answer.json()["status"] == "dispatched")

        await until(is_dispatched)
        return notification_id


def make_settings(auth_url: str, amqp_url: str, database_url: str, run_dir: Path, **changes: Any) -> Settings:
    """Settings of a process, independent of this machine's environment."""
    values: dict[str, Any] = {
        "environment": "development",
        "run_dir": run_dir,
        "internal_service_key": INTERNAL_KEY,
        "amqp_url": amqp_url,
        "database_url": database_url.replace("+aiosqlite", "").replace("+asyncpg", ""),
        "auth_issuer": ISSUER,
        "auth_url": auth_url,
        **changes,
    }
    return Settings(_env_file=None, **values)


@contextlib.asynccontextmanager
async def running_service(
    auth: AuthSite,
    *,
    amqp_url: str,
    database_url: str,
    run_dir: Path,
    processes: tuple[str, ...] = ("api", "worker", "scheduler"),
    ready: bool = True,
    outside_url: str | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """Processes of one installation; ready when the block begins, unless told not to wait."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        service = Service(auth, client)
        for process in processes:
            parts = Parts(make_settings(auth.url, amqp_url, database_url, run_dir, **settings), process=process)
            service.parts[process] = parts
            service.urls[process] = await stack.enter_async_context(serving(_MAKERS[process](parts)))
        if ready:
            for process in processes:
                await until(lambda name=process: _is_ready(service, name), within_s=60)
        service.outside = await stack.enter_async_context(bystander(outside_url or amqp_url))
        yield service


async def _is_ready(service: Service, process: str) -> bool:
    return (await service.get("/health/ready", process=process)).status_code == 200


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port of loopback at which nothing answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
