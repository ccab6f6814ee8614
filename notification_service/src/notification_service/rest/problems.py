"""Every error as application/problem+json (RFC 9457), whoever raised it."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from notification_service.errors import InvalidSchema, NotAuthenticated, ServiceError, TooLarge
from shared_contracts.error_codes import ErrorCode
from shared_contracts.headers import correlation_id_from
from shared_contracts.problems import MEDIA_TYPE, FieldError, make_problem
from shared_contracts.requests import describe_errors

_CODES = {
    400: ErrorCode.BAD_REQUEST,
    401: ErrorCode.NOT_AUTHENTICATED,
    403: ErrorCode.PERMISSION_DENIED,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    406: ErrorCode.NOT_ACCEPTABLE,
    413: ErrorCode.TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    422: ErrorCode.INVALID_SCHEMA,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.UNAVAILABLE,
}


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of this application as a problem."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answer_error(error, request.scope)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # The first part of the location names where it was: body, query, path or header.
    described = describe_errors([{**each, "loc": each["loc"][1:]} for each in error.errors()])
    errors = [FieldError(field=field, message=message) for field, message in described]
    return answer_error(InvalidSchema(errors), request.scope)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):
        return answer_error(error.__cause__, request.scope)
    code = _CODES.get(error.status_code, ErrorCode.BAD_REQUEST)
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _find_methods(request)):
        # All of the resource's (RFC 9110, section 10.2.1); the framework names those of one of its routes.
        return answer_other_method(request.scope, methods)
    return _respond(request.scope, status=error.status_code, code=code, detail=str(error.detail), headers=headers)


def _find_methods(request: Request) -> set[str]:
    """The methods of all routes with the path of the one that matched."""
    path = getattr(request.scope.get("route"), "path", None)
    routes = iter_route_contexts(request.app.routes)
    return {method for route in routes if route.path == path for method in route.methods or ()}


def find_fixed_paths(app: FastAPI) -> dict[str, set[str]]:
    """Methods of each path without a parameter."""
    found: dict[str, set[str]] = {}
    for route in iter_route_contexts(app.routes):
        if route.path is not None and "{" not in route.path and route.methods:
            found.setdefault(route.path, set()).update(route.methods)
    return found


def answer_other_method(scope: Scope, methods: set[str]) -> Response:
    """405 for a path that has only these methods."""
    detail = HTTPStatus.METHOD_NOT_ALLOWED.phrase
    code = ErrorCode.METHOD_NOT_ALLOWED
    return _respond(scope, status=405, code=code, detail=detail, headers={"Allow": ", ".join(sorted(methods))})


def answer_fault(scope: Scope) -> Response:
    """The answer to an error nobody foresaw: it tells nothing, and can be found in the log by its correlation id."""
    return _respond(scope, status=500, code=ErrorCode.INTERNAL_ERROR, detail="an error on our side; it was logged")


def answer_error(error: ServiceError, scope: Scope) -> Response:
    """The answer to an error raised on purpose."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, ceil(error.retry_after.total_seconds())))
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if error.invalid_token else "Bearer"
    if isinstance(error, TooLarge):
        headers["Connection"] = "close"
    errors = error.errors if isinstance(error, InvalidSchema) else None
    return _respond(scope, status=error.status, code=error.code, detail=error.detail, headers=headers, errors=errors)


def too_large_app(limit: int) -> Any:
    """An ASGI application that answers 413."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await answer_error(TooLarge(limit), scope)(scope, receive, send)

    return answer


def _respond(
    scope: Scope,
    *,
    status: int,
    code: ErrorCode,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: list[FieldError] | None = None,
) -> Response:
    correlation_id = scope.get("state", {}).get("correlation_id") or correlation_id_from(None)
    problem = make_problem(
        status=HTTPStatus(status), code=code, detail=detail, correlation_id=correlation_id, errors=errors
    )
    return Response(
        problem.model_dump_json(exclude_none=True), status_code=status, media_type=MEDIA_TYPE, headers=headers
    )
