"""Users with tokens, made by the auth service's batch calls as an application with its own log-in would make them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx

_USERS_PER_CALL = 1000
_TOKENS_PER_CALL = 500


@dataclass(frozen=True)
class Person:
    """A user with a valid token."""

    id: str
    token: str


class People:
    """Makes users when they are first wanted, and fresh tokens whenever they are wanted: those live for minutes."""

    def __init__(self, auth_url: str) -> None:
        self._client = httpx.Client(base_url=auth_url, trust_env=False, timeout=60)
        self._ids: list[str] = []

    def get(self, count: int) -> list[Person]:
        """The first `count` users, the same ones each time."""
        if len(self._ids) < count:
            self._ids += self._make(count - len(self._ids))
        return self._with_tokens(self._ids[:count])

    def get_new(self, count: int) -> list[Person]:
        """Users whom nobody has seen before."""
        return self._with_tokens(self._make(count))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _with_tokens(self, ids: list[str]) -> list[Person]:
        answer = self._post("/auth/service-token", {"client_id": "shop", "client_secret": "herald-shop-secret"})
        shop = str(answer["access"])
        tokens: list[str] = []
        for start in range(0, len(ids), _TOKENS_PER_CALL):
            items = [{"user_id": user_id} for user_id in ids[start : start + _TOKENS_PER_CALL]]
            tokens += [item["access"] for item in self._post("/auth/user-tokens", {"items": items}, shop)["items"]]
        return [Person(user_id, token) for user_id, token in zip(ids, tokens, strict=True)]

    def _make(self, count: int) -> list[str]:
        admin = self._post("/auth/token", {"username": "admin", "password": "herald-admin"})["access"]
        made: list[str] = []
        for size in [min(_USERS_PER_CALL, count - start) for start in range(0, count, _USERS_PER_CALL)]:
            names = [f"bench-{uuid.uuid4().hex[:16]}" for _ in range(size)]
            items = [{"username": name, "email": f"{name}@example.org", "external_id": name} for name in names]
            made += [item["id"] for item in self._post("/users/batch", {"items": items}, str(admin))["items"]]
        return made

    def _post(self, path: str, body: dict[str, object], token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self._client.post(f"/api/v1{path}", json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()
