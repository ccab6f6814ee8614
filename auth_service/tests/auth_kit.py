"""What the tests of this service share: a small client that speaks JSON, and ways to make users and tokens."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.test import Client, override_settings

from auth_service.accounts.actions import NewUser, do_create_user
from auth_service.accounts.models import User
from auth_service.audit.origin import SYSTEM
from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY
from auth_service.service_accounts.actions import do_create_account
from auth_service.service_accounts.models import ServiceAccount
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.scopes import Role

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


_clients = threading.local()


def _client() -> Client:
    """One per thread: a new one would load the middleware, and look through all static files, for each request."""
    if not hasattr(_clients, "client"):
        _clients.client = Client(raise_request_exception=False)
    found: Client = _clients.client
    return found


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The machine word of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.text
        return str(self.body["code"])

    @property
    def fields(self) -> set[str]:
        """The fields a 422 names."""
        return {error["field"] for error in self.body["errors"]}


@dataclass
class Api:
    """Calls the service in this process, as one client at one address."""

    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send JSON, or bytes as they are; `headers` by their HTTP names with underscores."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        content_type = sent.pop("Content-Type", "application/json")
        data: Any = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body)
        client = _client()
        client.cookies.clear()
        response = client.generic(method, path, data, content_type=content_type, headers=sent, REMOTE_ADDR=self.address)
        content = b"".join(response) if response.streaming else response.content
        return Answer(response.status_code, content.decode(errors="replace"), response.headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("PATCH", path, body, **headers)

    def delete(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("DELETE", path, body, **headers)


@dataclass
class Device(Api):
    """A client that is logged in."""

    refresh: str = ""
    session_id: str = ""
    user: User = field(default_factory=User)

    def renew(self, **headers: str) -> Answer:
        """Refresh, and go on with the new tokens."""
        answer = Api(headers=self.headers, address=self.address).post(
            "/api/v1/auth/token/refresh", {"refresh": self.refresh}, **headers
        )
        if answer.status == 200:
            self.token, self.refresh = answer.body["access"], answer.body["refresh"]
        return answer


def make_user(
    username: str | None = None,
    *roles: Role,
    tenant: str = DEFAULT_TENANT,
    password: str | None = PASSWORD,
    **fields: Any,
) -> User:
    """A new user of the database, as an administrator would make one."""
    name = username or f"person{next(_numbers)}"
    given = tuple(str(role) for role in roles or (Role.USER,))
    return do_create_user(
        NewUser(
            username=name,
            email=fields.pop("email", f"{name}@example.org"),
            password=password,
            roles=given,
            tenant=tenant,
            **fields,
        ),
        SYSTEM,
    )


def log_in(user: User, *, device_id: str = "", password: str = PASSWORD, **headers: str) -> Device:
    """A new session of the user."""
    api = Api(headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = api.post("/api/v1/auth/token", {"username": user.username, "password": password, "device_id": device_id})
    assert answer.status == 200, answer.text
    tokens = answer.body
    return Device(tokens["access"], api.headers, refresh=tokens["refresh"], session_id=tokens["session_id"], user=user)


def make_admin(**fields: Any) -> Device:
    """An administrator who is logged in."""
    return log_in(make_user(None, Role.USER, Role.ADMIN, **fields))


def make_service(*scopes: str, tenant: str = DEFAULT_TENANT) -> tuple[ServiceAccount, Api]:
    """A service account with these scopes, and a client that is logged in as it."""
    name = f"service{next(_numbers)}"
    account, secret = do_create_account(name=name, scopes=scopes, tenant=tenant, by=SYSTEM)
    answer = Api().post("/api/v1/auth/service-token", {"client_id": account.client_id, "client_secret": secret})
    assert answer.status == 200, answer.text
    return account, Api(answer.body["access"])


def internal() -> Api:
    """Another service of Herald."""
    return Api(headers={"X-Internal-Key": DEVELOPMENT_INTERNAL_KEY})


def introspect(token: str) -> dict[str, Any]:
    """What the other service is told about a token."""
    answer = internal().post("/internal/v1/tokens/introspect", {"token": token})
    assert answer.status == 200, answer.text
    body: dict[str, Any] = answer.body
    return body


def is_active(token: str) -> bool:
    """Whether a token counts."""
    return bool(introspect(token)["active"])


def with_settings(**changes: Any) -> override_settings:
    """Other settings of ours, for a `with` block."""
    return override_settings(HERALD=settings.HERALD.model_copy(update=changes))


def pages_of(api: Api, path: str) -> Iterable[dict[str, Any]]:
    """All items of a list, page by page."""
    cursor: str | None = ""
    while cursor is not None:
        separator = "&" if "?" in path else "?"
        answer = api.get(path + (f"{separator}cursor={cursor}" if cursor else ""))
        assert answer.status == 200, answer.text
        yield from answer.body["items"]
        cursor = answer.body["next_cursor"]


NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
Work = Callable[[], Any]


def as_uuid(text: str) -> UUID:
    return UUID(text)
