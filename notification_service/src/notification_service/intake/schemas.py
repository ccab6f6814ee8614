"""Bodies of the intake's REST calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from shared_contracts.problems import FieldError
from shared_contracts.requests import MAX_BATCH_ITEMS


class AcceptedOut(BaseModel):
    """The notification was accepted and stored; it will not be lost."""

    id: UUID
    status: Literal["accepted", "scheduled"] = Field(description="`scheduled`: `deliver_at` lies ahead.")


class BatchIn(BaseModel):
    """Requests, each checked by itself: a wrong one does not hurt the others."""

    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_BATCH_ITEMS)]


class BatchItemOut(BaseModel):
    """Outcome of one item: `status` 202 with `id`, or the refusal."""

    index: int
    status: int
    id: UUID | None = None
    code: str | None = None
    detail: str | None = None
    errors: list[FieldError] | None = None


class BatchOut(BaseModel):
    """One outcome per item, in order."""

    items: list[BatchItemOut]
