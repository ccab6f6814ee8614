"""The OpenAPI document: complete, free of warnings, shown without any other host."""

from __future__ import annotations

import re
from typing import Any

import pytest
from auth_kit import Api
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema
from test_routes import ROUTES

pytestmark = pytest.mark.only_on("sqlite")

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    GENERATOR_STATS.reset()
    made: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    assert not GENERATOR_STATS._warn_cache
    assert not GENERATOR_STATS._error_cache
    return made


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    ]


def test_the_document_is_valid_and_makes_no_warning(document: dict[str, Any]) -> None:
    validate_schema(document)  # type: ignore[no-untyped-call]


def test_every_route_is_in_it(document: dict[str, Any]) -> None:
    documented = {(re.sub(r"\{(\w+)\}", r"<\1>", path), method) for path, method, _ in operations(document)}
    expected = {
        (re.sub(r"<\w+:(\w+)>", r"<\1>", f"/{path}"), method.lower())
        for path, rules in ROUTES.items()
        if path not in {"api/schema", "api/docs"}
        for method in rules
    }
    assert documented == expected


def test_every_call_has_a_name_words_and_examples(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert len(operation["description"]) > 20, (path, method)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content.get("examples"), (path, method, "request")
        good = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        for media_type, content in good.get("content", {}).items():
            assert content.get("examples") or media_type != "application/json", (path, method, "answer")


def test_every_refusal_is_a_documented_problem(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert set(response["content"]) <= {"application/problem+json", "application/json"}, (path, method)
        if operation.get("security"):
            assert "401" in operation["responses"], (path, method)


def test_the_document_and_its_page_are_served_and_ask_no_other_host(api: Api) -> None:
    served = api.get("/api/schema")
    assert (served.status, served.body["openapi"].split(".")[0]) == (200, "3")
    page = api.get("/api/docs")
    assert page.status == 200
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert address.startswith("/static/"), address
        assert api.get(address).status == 200, address
    assert not re.findall(r"https?://(?!127\.0\.0\.1)", page.text)
