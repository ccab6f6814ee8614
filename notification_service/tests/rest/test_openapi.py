"""The OpenAPI document: valid, complete, and true about rights (contract section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from fastapi import FastAPI

from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import MEDIA_TYPE
from shared_contracts.scopes import Scope

# Without an access token: pages for machines, public keys, and links that carry a proof of their own. Everything else
# needs one.
PUBLIC = re.compile(
    r"/(health|metrics|api/v1/unsubscribe|api/v1/erasures/keys|api/v1/channels/(telegram/updates|[^/]+/status))(/|$)"
)


@pytest.fixture
def document(api_app: FastAPI) -> dict[str, Any]:
    return api_app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.validate(whole, value, validate_formats=True)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    schemathesis.openapi.from_dict(document).validate()


def test_every_operation_has_a_name_of_its_own_a_summary_a_description_and_a_described_tag(
    document: dict[str, Any],
) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for where, operation in operations(document):
        assert operation["summary"], where
        assert operation["description"].strip(), where
        assert set(operation["tags"]) <= tags, where
        for status, response in operation["responses"].items():
            assert response["description"] != "Successful Response", (where, status)


def test_every_operation_but_the_public_ones_says_which_token_it_needs(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["accessToken"]["scheme"] == "bearer"
    for where, operation in operations(document):
        if PUBLIC.search(where.partition(" ")[2]):
            assert "security" not in operation, where
            continue
        assert operation["security"] == [{"accessToken": []}], where
        assert set(operation["x-scopes"]) <= set(Scope), where
        assert "401" in operation["responses"], where
        assert ("403" in operation["responses"]) == (bool(operation["x-scopes"]) or "/deliveries" in where), where


def test_rights_are_the_ones_of_the_contract(document: dict[str, Any]) -> None:
    scopes = {where: operation.get("x-scopes") for where, operation in operations(document)}
    assert scopes["POST /api/v1/notifications/send"] == ["notifications:send"]
    assert scopes["GET /api/v1/inbox"] == ["inbox"]
    assert scopes["POST /api/v1/event-types"] == ["event-types:write"]
    assert scopes["GET /api/v1/dead-letters"] == ["dead-letters"]


def test_problems_are_described_as_problems(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) < 400 or where.startswith("GET /health"):
                continue
            schema = response["content"][MEDIA_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, (where, status)
            assert "X-Correlation-Id" in response["headers"], (where, status)
    problem = document["components"]["schemas"]["Problem"]
    validate(document, problem, problem["example"])
    assert problem["example"]["code"] in set(ErrorCode)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    """The example of a new body belongs into `rest/examples.py`, or into the model's own configuration."""
    checked = 0
    for where, operation in operations(document):
        bodies = [("request", operation.get("requestBody"))]
        bodies += [(status, each) for status, each in operation["responses"].items() if status.startswith("2")]
        for which, body in bodies:
            content = (body or {}).get("content", {}).get("application/json")
            if content is None or "$ref" not in content["schema"]:
                continue
            name = content["schema"]["$ref"].rpartition("/")[2]
            own = document["components"]["schemas"][name].get("examples", [])
            examples = [content["example"]] if "example" in content else own
            assert examples, f"{where}, {which}: {name} has no example"
            for example in examples:
                validate(document, content["schema"], example)
                checked += 1
    assert checked > 20


def test_no_field_of_a_body_leads_to_a_schema_named_after_a_module(document: dict[str, Any]) -> None:
    """Two models of one name make long names with the module in them; rename one."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []
