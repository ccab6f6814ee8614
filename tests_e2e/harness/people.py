"""Users, tokens and the REST APIs, as a client program would use them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from harness.stack import Stack
from harness.waiting import eventually


@dataclass
class Person:
    """A user with a valid token."""

    id: str
    username: str
    access: str
    refresh: str | None = None


@dataclass
class Tenancy:
    """Users of a tenant of their own, and a service account that may do everything for them."""

    slug: str
    people: list[Person]
    service_token: str
    client_id: str
    client_secret: str


class Rest:
    """Calls both services in somebody's name."""

    def __init__(self, stack: Stack, client: httpx.AsyncClient) -> None:
        self._stack = stack
        self._client = client

    async def auth(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        """Call the auth service."""
        return await self._call(method, self._stack.system.auth_url + path, token, options)

    async def notify(
        self, method: str, path: str, *, token: str | None = None, node: int = 0, **options: Any
    ) -> httpx.Response:
        """Call one of the notification service's processes."""
        return await self._call(method, self._stack.system.notify_urls[node] + path, token, options)

    async def _call(self, method: str, url: str, token: str | None, options: dict[str, Any]) -> httpx.Response:
        headers = {**options.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return await self._client.request(method, url, headers=headers, **options)

    # --- people ---------------------------------------------------------------------------------------------------

    async def log_in(self, username: str, password: str | None = None) -> Person:
        """A demo account's session."""
        answer = await self.auth(
            "POST", "/api/v1/auth/token", json={"username": username, "password": password or f"herald-{username}"}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return Person(body["user"]["id"], username, body["access"], body["refresh"])

    async def shop_token(self) -> str:
        """The demo service account."""
        return await self._service_token("shop", "herald-shop-secret")

    async def make_people(self, count: int) -> list[Person]:
        """New users with tokens, by the batch calls."""
        admin = await self.log_in("admin")
        return await self._make_people(count, admin.access, await self.shop_token())

    async def make_tenancy(self, count: int) -> Tenancy:
        """A new tenant with these many users."""
        operator = await self.log_in("admin")
        slug, password = f"t-{uuid.uuid4().hex[:12]}", "a phrase for this tenant"
        made = await self.auth("POST", "/api/v1/tenants", token=operator.access, json={"slug": slug, "name": slug})
        assert made.status_code == 201, made.text
        body = {
            "username": f"admin-{slug}",
            "email": f"admin@{slug}.example",
            "password": password,
            "roles": ["user", "admin"],
            "tenant": slug,
        }
        made = await self.auth("POST", "/api/v1/users", token=operator.access, json=body)
        assert made.status_code == 201, made.text
        admin = await self.log_in(f"admin-{slug}", password)
        scopes = ["notifications:send", "notifications:broadcast", "tokens:issue"]
        body = {"name": slug, "scopes": scopes}
        made = await self.auth("POST", "/api/v1/service-accounts", token=admin.access, json=body)
        assert made.status_code == 201, made.text
        client_id, secret = made.json()["client_id"], made.json()["client_secret"]
        token = await self._service_token(client_id, secret)
        return Tenancy(slug, await self._make_people(count, admin.access, token), token, client_id, secret)

    async def renew_tokens(self, tenancy: Tenancy) -> None:
        """Fresh tokens for everybody, as an application gets them before the old ones end."""
        tenancy.service_token = await self._service_token(tenancy.client_id, tenancy.client_secret)
        tokens = await self._issue_tokens([each.id for each in tenancy.people], tenancy.service_token)
        for person, token in zip(tenancy.people, tokens, strict=True):
            person.access = token

    async def _service_token(self, client_id: str, secret: str) -> str:
        body = {"client_id": client_id, "client_secret": secret}
        answer = await self.auth("POST", "/api/v1/auth/service-token", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access"])

    async def _make_people(self, count: int, admin_token: str, issuer_token: str) -> list[Person]:
        names = [f"u-{uuid.uuid4().hex[:16]}" for _ in range(count)]
        ids: list[str] = []
        for start in range(0, count, 1000):
            items = [
                {"username": name, "email": f"{name}@example.org", "external_id": name}
                for name in names[start : start + 1000]
            ]
            answer = await self.auth("POST", "/api/v1/users/batch", token=admin_token, json={"items": items})
            assert answer.status_code in (200, 207), answer.text
            ids += [item["user"]["id"] if "user" in item else item["id"] for item in answer.json()["items"]]
        tokens = await self._issue_tokens(ids, issuer_token)
        return [Person(user_id, name, token) for user_id, name, token in zip(ids, names, tokens, strict=True)]

    async def issue_tokens(self, user_ids: list[str]) -> list[str]:
        """Access tokens for users, as an application that logs its users in itself would get them."""
        return await self._issue_tokens(user_ids, await self.shop_token())

    async def _issue_tokens(self, user_ids: list[str], issuer_token: str) -> list[str]:
        tokens: list[str] = []
        for start in range(0, len(user_ids), 500):
            items = [{"user_id": user_id} for user_id in user_ids[start : start + 500]]
            answer = await self.auth("POST", "/api/v1/auth/user-tokens", token=issuer_token, json={"items": items})
            assert answer.status_code == 200, answer.text
            tokens += [item["access"] for item in answer.json()["items"]]
        return tokens

    async def wait_for_acknowledgements(self, person: Person, device_id: str, *, open_count: int = 0) -> None:
        """Return when the service has written down what this device acknowledged, all but so many items.

        Gateways write acknowledgements together, every half second.
        """

        async def ask() -> int:
            answer = await self.notify(
                "GET", "/api/v1/inbox/sync", token=person.access, params={"device_id": device_id}
            )
            assert answer.status_code == 200, answer.text
            return len(answer.json()["items"])

        await eventually(ask, is_good=lambda count: count == open_count)

    async def make_group(self, members: list[Person]) -> str:
        """A new group with these members."""
        admin = await self.log_in("admin")
        slug = f"g-{uuid.uuid4().hex[:12]}"
        answer = await self.auth("POST", "/api/v1/groups", token=admin.access, json={"name": slug, "slug": slug})
        assert answer.status_code == 201, answer.text
        group_id = str(answer.json()["id"])
        for start in range(0, len(members), 1000):
            answer = await self.auth(
                "POST",
                f"/api/v1/groups/{group_id}/members/batch",
                token=admin.access,
                json={"add": [member.id for member in members[start : start + 1000]]},
            )
            assert answer.status_code == 200, answer.text
        return group_id
