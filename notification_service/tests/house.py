"""A tenant of the test's own, with an administrator and a shop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from service import Person, Service
from waiting import until


@dataclass
class House:
    """One tenant and shortcuts for what tests of the engine do all the time."""

    service: Service
    tenant: str
    admin: Person
    shop: Person
    codes: list[str] = field(default_factory=list)

    def person(self, role: str = "user", **fields: Any) -> Person:
        return self.service.add_person(role, tenant=self.tenant, **fields)

    async def ask(self, method: str, path: str, person: Person, body: Any = None, *, status: int = 200) -> Any:
        options = {} if body is None else {"json": body}
        answer = await self.service.call(method, f"/api/v1{path}", person, **options)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def make_type(self, code: str = "order.shipped", **fields: Any) -> dict[str, Any]:
        body = {"code": code, "name": "Order shipped", "category": "orders", **fields}
        made: dict[str, Any] = await self.ask("POST", "/event-types", self.admin, body, status=201)
        return made

    async def send(self, *people: Person, deliver: bool = True, **fields: Any) -> UUID:
        request = {"event_type": "order.shipped", "title": None, **fields}
        request = {name: value for name, value in request.items() if value is not None}
        body = {"recipients": {"users": [str(each.id) for each in people]}, **request}
        made = await self.ask("POST", "/notifications/send", self.shop, body, status=202)
        notification_id = UUID(made["id"])
        if deliver:
            await self.until_routed(notification_id)
        return notification_id

    async def until_routed(self, notification_id: UUID) -> None:
        async def is_routed() -> bool:
            answer = await self.service.get(f"/api/v1/notifications/status/{notification_id}", self.shop)
            return answer.json().get("status") in ("dispatched", "processing")

        await until(is_routed)

    async def trace(self, notification_id: UUID, person: Person, *, asker: Person | None = None) -> dict[str, Any]:
        path = f"/notifications/{notification_id}/trace?user_id={person.id}"
        found: dict[str, Any] = await self.ask("GET", path, asker or self.shop)
        return found

    async def inbox(self, person: Person, query: str = "") -> list[dict[str, Any]]:
        page = await self.ask("GET", f"/inbox{query}", person)
        items: list[dict[str, Any]] = page["items"]
        return items

    async def prefer(self, person: Person, **preferences: Any) -> dict[str, Any]:
        # The mirror learns of people when they are first named.
        saved: dict[str, Any] = await self.ask("PATCH", "/preferences", person, preferences)
        return saved


def make_house(service: Service) -> House:
    """A tenant no other test uses."""
    tenant = service.add_tenant()
    admin = service.add_person("admin", tenant=tenant)
    shop = service.add_service_account("notifications:send", "notifications:broadcast", tenant=tenant)
    return House(service, tenant, admin, shop)
