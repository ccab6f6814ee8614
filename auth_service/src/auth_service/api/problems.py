"""Every error answer, whoever raises it: problem+json (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import BadRequest as DjangoBadRequest
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse
from pydantic import ValidationError as PydanticValidationError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from auth_service.api.correlation import get_correlation_id
from auth_service.errors import (
    BadRequest,
    InternalError,
    InvalidInput,
    InvalidJson,
    MethodNotAllowed,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServiceError,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from auth_service.metrics import RATE_LIMITED
from shared_contracts.problems import MEDIA_TYPE, FieldError, Problem, make_problem

log = structlog.get_logger(__name__)

_BY_DRF_STATUS: Mapping[int, type[ServiceError]] = {
    400: InvalidJson,
    401: NotAuthenticated,
    403: PermissionDenied,
    404: NotFound,
    415: UnsupportedMediaType,
}


def make_body(error: ServiceError) -> Problem:
    """The problem that tells a caller of this error."""
    return make_problem(
        status=error.status,
        code=error.code,
        detail=str(error),
        correlation_id=get_correlation_id(),
        errors=error.errors or ([] if error.status == InvalidInput.status else None),
    )


def make_response(error: ServiceError) -> HttpResponse:
    """The answer to a request that never reached a view of the API."""
    body = make_body(error).model_dump_json(exclude_none=True)
    return HttpResponse(body, status=error.status, content_type=MEDIA_TYPE, headers=error.headers)


def handle_exception(error: Exception, _context: Mapping[str, Any]) -> Response:
    """What the REST framework asks when a view raised."""
    known = translate(error)
    if isinstance(known, RateLimited):
        RATE_LIMITED.inc()
    body = make_body(known).model_dump(mode="json", exclude_none=True)
    return Response(body, status=known.status, content_type=MEDIA_TYPE, headers=known.headers)


def translate(error: BaseException) -> ServiceError:  # noqa: C901 - one line per kind
    """Any exception as one of ours. What nobody expected is logged with its traceback and answers 500."""
    match error:
        case ServiceError():
            return error
        case drf.ValidationError():
            return InvalidInput(errors=list(_flatten(error.get_full_details())))
        case drf.MethodNotAllowed():
            return MethodNotAllowed()
        case drf.APIException() if error.status_code in _BY_DRF_STATUS:
            return _BY_DRF_STATUS[error.status_code]()
        case Http404():
            return NotFound()
        case DjangoPermissionDenied():
            return PermissionDenied()
        case RequestDataTooBig():
            return TooLarge()
        case SuspiciousOperation() | DjangoBadRequest():
            return BadRequest()
        case OperationalError() | InterfaceError():
            log.warning("database_unavailable", error=type(error).__name__, exc_info=error)
            if not connection.in_atomic_block:
                connection.close()
            return Unavailable()
        case _:
            log.error("request_failed", error=type(error).__name__, exc_info=error)
            return InternalError()


def from_pydantic(error: PydanticValidationError) -> InvalidInput:
    """What a pydantic model found wrong."""
    return InvalidInput(
        errors=[
            FieldError(field=".".join(map(str, problem["loc"])), message=problem["msg"])
            for problem in error.errors(include_input=False, include_url=False, include_context=False)
        ]
    )


def bad_request(_request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400."""
    return make_response(translate(exception) if isinstance(exception, RequestDataTooBig) else BadRequest())


def permission_denied(_request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's names
    """Django's handler403."""
    return make_response(PermissionDenied())


def page_not_found(_request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001 - Django's names
    """Django's handler404."""
    return make_response(NotFound())


def server_error(_request: HttpRequest) -> HttpResponse:
    """Django's handler500, for what middleware and the admin raise."""
    return make_response(InternalError())


def csrf_failure(_request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form of the admin that was not sent from the admin."""
    log.warning("csrf_refused", reason=reason, secure=settings.CSRF_COOKIE_SECURE)
    return make_response(PermissionDenied("This form was not sent from here, or is too old. Load the page again."))


def _flatten(details: Any, path: str = "") -> Iterator[FieldError]:
    """Field errors from the framework's nested lists and dicts."""
    match details:
        case {"message": str(message), "code": _}:
            yield FieldError(field=path, message=message)
        case dict():
            for name, inner in details.items():
                own = path if name == "non_field_errors" else f"{path}.{name}" if path else str(name)
                yield from _flatten(inner, own)
        case list():
            for place, inner in enumerate(details):
                is_message = isinstance(inner, dict) and set(inner) == {"message", "code"}
                yield from _flatten(inner, path if is_message else f"{path}.{place}" if path else str(place))
        case _:
            yield FieldError(field=path, message=str(details))
