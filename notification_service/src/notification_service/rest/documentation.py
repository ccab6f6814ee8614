"""What the OpenAPI document says beyond the endpoints' own words: rights, problems, examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from typing_extensions import override

from notification_service.rest.examples import EXAMPLES
from shared_contracts.error_codes import ErrorCode
from shared_contracts.headers import CORRELATION_ID
from shared_contracts.problems import MEDIA_TYPE, Problem, make_problem
from shared_contracts.scopes import Scope

SECURITY_SCHEME: Final = "accessToken"
_PROBLEM: Final = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

DESCRIPTION: Final = """\
Sending notifications, reading one's inbox, and looking after the installation.

Every answer carries `X-Correlation-Id`. Errors are `application/problem+json` (RFC 9457) with a word in `code`;
the words are in `docs/errors.md`. Lists answer `items` and `next_cursor`; give `cursor` back for the next page. A
trailing slash is accepted everywhere. Unknown fields of a body are ignored. WebSocket and RabbitMQ are described by
`/api/asyncapi.json`.
"""

TAGS: Final = {
    "notifications": "Ask for notifications, and see how far they have come.",
    "inbox": "The caller's own items, on every device.",
    "event types": "What can happen, and what it means by default.",
    "templates": "What each event type says, by channel and language.",
    "preferences": "What people want to get, on which channel, and when.",
    "digests and schedules": "What is gathered, and what is sent again and again.",
    "erasures": "What was erased with a user's account, as a signed report.",
    "contacts": "The caller's own addresses on the outgoing channels.",
    "deliveries": "Every channel's try for every user.",
    "presence": "Who is there, and every live connection.",
    "analytics": "How many, how fast, over time.",
    "dead letters": "Messages that were given up: look, replay, discard.",
    "health": "For load balancers and monitoring; no token is needed.",
}
_WHEN: Final = {
    400: "The request cannot be read: invalid JSON, or a cursor that this call did not hand out.",
    401: "No access token, or one that is not valid (any more); `WWW-Authenticate` says which.",
    403: "The token lacks the right.",
    404: "There is no such object, or it is somebody else's.",
    409: "The request does not fit the object's present state.",
    413: "The body is longer than this call takes.",
    415: "The body is not declared as JSON.",
    422: "Fields are wrong; `errors` names each.",
    429: "Too many requests; try again after `Retry-After` seconds.",
    503: "Something Herald depends on does not answer; try again after `Retry-After` seconds.",
}
# What cannot be seen from a route's parameters.
_ALSO: Final[Mapping[tuple[str, str], tuple[int, ...]]] = {
    ("POST", "/api/v1/notifications/send"): (409,),
    ("POST", "/api/v1/event-types"): (409,),
    ("DELETE", "/api/v1/event-types/{code}"): (409,),
    ("POST", "/api/v1/dead-letters/{letter_id}/replay"): (409,),
    ("POST", "/api/v1/inbox/ack"): (400,),
    ("GET", "/api/v1/contacts/web-push-key"): (404,),
    ("POST", "/api/v1/contacts/{contact_id}/send-code"): (429,),
    # The scope decides how much is shown; a caller who has neither of the two sees nothing.
    ("GET", "/api/v1/deliveries"): (403,),
    ("GET", "/api/v1/deliveries/{delivery_id}"): (403,),
    # Whose body or header does not prove where it comes from.
    ("POST", "/api/v1/channels/telegram/updates"): (401,),
    ("POST", "/api/v1/channels/{channel}/status"): (401, 413),
}


def describe_route(route: APIRoute) -> None:
    """Add to a route's documentation which right it needs and which problems it answers; what it says itself stays."""
    scopes = find_scopes(route)
    statuses = set(_guess_statuses(route, scopes))
    for method in route.methods or ():
        statuses.update(_ALSO.get((method, route.path), ()))
    described: dict[int | str, dict[str, Any]] = {status: describe_problem(status) for status in sorted(statuses)}
    route.responses = described | route.responses
    if scopes is not None:
        needed = [str(scope) for scope in scopes]
        route.description += f"\n\nNeeds {' and '.join(f'`{each}`' for each in needed) or 'any access token'}."
        route.openapi_extra = {"security": [{SECURITY_SCHEME: []}], "x-scopes": needed, **(route.openapi_extra or {})}


def name_operation(route: APIRoute) -> str:
    """The `operationId`: what generated clients call their functions, for example `inbox_list_items`."""
    return f"{route.tags[0]}_{route.name}".replace(" ", "_") if route.tags else route.name


def find_scopes(route: APIRoute) -> tuple[Scope, ...] | None:
    """The scopes a caller needs; empty: any valid token will do; None: no token is needed."""
    for dependant in _walk(route.dependant):
        scopes: tuple[Scope, ...] | None = getattr(dependant.call, "needed_scopes", None)
        if scopes is not None:
            return scopes
    return None


def _walk(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _walk(each)


def _guess_statuses(route: APIRoute, scopes: tuple[Scope, ...] | None) -> Iterator[int]:
    if scopes is not None:
        yield 401
    if scopes:
        yield 403
    takes_query = any(each.query_params for each in _walk(route.dependant))
    takes_header = any(each.header_params for each in _walk(route.dependant))
    if route.dependant.path_params:
        yield 404
    if route.body_field is not None:
        yield from (400, 413, 415)
    if takes_query:
        yield 400
    if route.body_field is not None or takes_query or takes_header or route.dependant.path_params:
        yield 422
    yield 503


def describe_problem(status: int) -> dict[str, Any]:
    """The `responses` entry of a problem."""
    headers: dict[str, Any] = {CORRELATION_ID: {"$ref": "#/components/headers/CorrelationId"}}
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/WwwAuthenticate"}
    return {"description": _WHEN[status], "headers": headers, "content": _PROBLEM}


class DocumentedApi(FastAPI):
    """A FastAPI application whose OpenAPI document is complete."""

    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = complete_document(super().openapi())
        return self.openapi_schema


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Add what holds for the whole API: the security scheme, problems, headers, words for tags, examples."""
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {})
    schemas["Problem"] = problem | {"example": _example_problem()}
    components["securitySchemes"] = {
        SECURITY_SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token of the auth service. `x-scopes` of an operation lists the rights it needs.",
        }
    }
    components["headers"] = {
        "CorrelationId": _text_header("Names this request in every log; echoed when the caller sent a valid one."),
        "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
        "WwwAuthenticate": _text_header("`Bearer`, with `error` when a token was given (RFC 6750)."),
    }
    used = {tag for path in document["paths"].values() for operation in path.values() for tag in operation["tags"]}
    document["tags"] = [{"name": tag, "description": TAGS[tag]} for tag in TAGS if tag in used]
    document["tags"] += [{"name": tag} for tag in sorted(used - TAGS.keys())]
    for path in document["paths"].values():
        for operation in path.values():
            _add_examples(operation)
            _name_successes(operation)
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                operation["responses"]["422"] = describe_problem(422)  # FastAPI's own, of a route that is no JsonRoute
    return document


def _text_header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _add_examples(operation: dict[str, Any]) -> None:
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        content = body.get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name in EXAMPLES and "example" not in content and "examples" not in content:
            content["example"] = EXAMPLES[name]


def _name_successes(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if response["description"] == "Successful Response":
            response["description"] = HTTPStatus(int(status)).phrase


def _example_problem() -> dict[str, Any]:
    error = {"field": "recipients.users.0", "message": "must be a UUID or 'ext:<external id>'"}
    problem = make_problem(
        status=422,
        code=ErrorCode.INVALID_SCHEMA,
        detail="1 field is wrong",
        correlation_id="0198c0de0000700080000000000000aa",
    )
    return {**problem.model_dump(exclude_none=True), "errors": [error]}
