"""Every route of the table, whoever adds it: no access without a token, none without the right (C01, C02, A09)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from auth_site import make_claims, sign
from fastapi.routing import APIRoute
from service import Person, Service

from notification_service.entrypoints.web_app import make_api_routers

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = re.compile(
    r"/(health(/.*)?|metrics|api/(openapi\.json|asyncapi\.json|docs.*))?"
    # A link in a mail: its token, which only the mail holds, is the right.
    r"|/api/v1/unsubscribe/\{token\}"
    # Public keys.
    r"|/api/v1/erasures/keys"
)
"""What anybody may call (metrics and documents only in development). A new public route is added here, by a person."""


def routes_of(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            for inner in ("app", "router", "original_router"):
                if hasattr(getattr(route, inner, None), "routes"):
                    yield from routes_of(getattr(route, inner))
                    break


def calls(service: Service) -> list[tuple[str, str, set[str]]]:
    """(method, path, needed scopes) of every route that is not public."""
    found = []
    for process, parts in service.parts.items():
        if process != "api":
            continue
        for router in make_api_routers(parts):
            for route in routes_of(router):
                if PUBLIC.fullmatch(route.path):
                    continue
                scopes = {str(scope) for scope in _needed(route.dependant)}
                found += [(method, route.path, scopes) for method in route.methods or () if method != "HEAD"]
    return found


def _needed(dependant: Any) -> set[Any]:
    own = set(getattr(dependant.call, "needed_scopes", ()))
    return own.union(*(_needed(each) for each in dependant.dependencies)) if dependant.dependencies else own


def fill(path: str) -> str:
    """The path with a value in every parameter."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda match: _VALUES.get(match[1], str(uuid4())), path)


_VALUES = {"code": "order.shipped", "channel": "email", "locale": "en"}


async def attempt(service: Service, method: str, path: str, person: Person | None) -> Any:
    body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
    return await service.call(method, fill(path), person, **body)


async def test_the_table_is_found(service: Service) -> None:
    paths = {path for _, path, _ in calls(service)}
    assert {"/api/v1/inbox", "/api/v1/notifications/send", "/api/v1/dead-letters", "/api/v1/event-types"} <= paths
    assert len(calls(service)) >= 19


@pytest.mark.req("C02")
async def test_no_route_answers_without_a_token(service: Service) -> None:
    for method, path, _ in calls(service):
        answer = await attempt(service, method, path, None)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.req("C02")
async def test_no_route_answers_without_its_right(service: Service) -> None:
    nobody = service.add_service_account()
    lowest = service.add_person("user")
    for method, path, scopes in calls(service):
        if scopes:
            answer = await attempt(service, method, path, nobody)
            assert answer.status_code == 403, (method, path)
        if scopes - {"inbox", "messages:send"}:
            answer = await attempt(service, method, path, lowest)
            assert answer.status_code == 403, (method, path)


@pytest.mark.req("A09")
async def test_a_service_account_has_no_inbox_and_no_other_token_opens_anything(service: Service) -> None:
    shop = service.add_service_account("notifications:send", "notifications:broadcast")
    kinds = {
        "refresh": sign(make_claims(token_use="refresh")),
        "ticket": str(uuid4()),
        "typ JWT": sign(make_claims(), typ="JWT"),
    }
    for method, path, scopes in calls(service):
        if "inbox" in scopes:
            assert (await attempt(service, method, path, shop)).status_code == 403, (method, path)
        for name, token in kinds.items():
            answer = await attempt(service, method, path, Person(uuid4(), "default", token))
            assert answer.status_code == 401, (method, path, name)


@pytest.mark.req("C01")
async def test_what_belongs_to_another_does_not_exist(service: Service) -> None:
    sender, ada, eve = service.add_person("publisher"), service.add_person(), service.add_person()
    notification_id = await service.deliver(sender, ada)
    path = f"/api/v1/inbox/{notification_id}"
    before = (await service.get(path, ada)).json()
    targets: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", path, {}),
        ("PATCH", path, {"json": {"read": True}}),
        ("DELETE", path, {}),
        ("GET", f"/api/v1/notifications/status/{notification_id}", {}),
    )
    for method, target, options in targets:
        answer = await service.call(method, target, eve, **options)
        assert answer.status_code == 404, (method, target)
        # Word for word what an id that never was gets.
        unknown = await service.call(method, target.replace(str(notification_id), str(uuid4())), eve, **options)
        assert {**answer.json(), "correlation_id": ""} == {**unknown.json(), "correlation_id": ""}
    batch = await service.post("/api/v1/inbox/batch", eve, {"action": "read", "ids": [str(notification_id)]})
    assert batch.json()["changed"] == 0
    assert (await service.get(path, ada)).json() == before
