"""The body of every error answer over HTTP (RFC 9457), the same from both services."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import BaseModel, Field

from shared_contracts.error_codes import ErrorCode

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:herald:problem:"


class FieldError(BaseModel):
    """One thing wrong with one field."""

    field: str = Field(description="Dotted path, for example `recipients.users.0`; empty for the body as a whole.")
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem."""

    type: str = Field(examples=[f"{TYPE_PREFIX}invalid_schema"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["1 field is wrong."])
    code: str = Field(description="Machine word; never renamed.", examples=["invalid_schema"])
    correlation_id: str
    errors: list[FieldError] | None = Field(default=None, description="Only on 422.")


def make_problem(
    *, status: int, code: ErrorCode, detail: str, correlation_id: str, errors: list[FieldError] | None = None
) -> Problem:
    """Build a problem; its `title` is the status phrase, its `type` comes from the code."""
    return Problem(
        type=f"{TYPE_PREFIX}{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        correlation_id=correlation_id,
        errors=errors,
    )
