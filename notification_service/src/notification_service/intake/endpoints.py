"""Sending over REST: HTTP in, HTTP out; decisions are in `accept`."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Response
from pydantic import ValidationError

from notification_service.errors import InvalidSchema, ServiceError, TooLarge
from notification_service.identity.access import Caller
from notification_service.intake.accept import Acceptor, Wanted
from notification_service.intake.schemas import AcceptedOut, BatchIn, BatchItemOut, BatchOut
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from shared_contracts.headers import IDEMPOTENCY_KEY
from shared_contracts.problems import FieldError
from shared_contracts.requests import MAX_REQUEST_BYTES, NotificationRequest, describe_errors
from shared_contracts.scopes import Scope

BODY_LIMITS = {
    "/api/v1/notifications/send": MAX_REQUEST_BYTES,
    # A thousand requests of 8 KiB; one of them may still have 64 KiB.
    "/api/v1/notifications/send/batch": 8 * 1024 * 1024,
}

_KEY_RULE = "1 to 250 visible characters; a UUID becomes the notification's id, like `message_id` over AMQP."
IdempotencyKey = Annotated[
    str | None,
    Header(alias=IDEMPOTENCY_KEY, min_length=1, max_length=250, pattern=r"^[\x21-\x7e]+$", description=_KEY_RULE),
]


def make_intake_router(acceptor: Acceptor, callers: Callers) -> APIRouter:
    """`POST /notifications/send` and `/send/batch`."""
    router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"], route_class=JsonRoute)
    SenderCaller = Annotated[Caller, Depends(callers.needs(Scope.NOTIFICATIONS_SEND))]  # noqa: N806 - a type

    @router.post("/send", status_code=202, summary="Send a notification")
    async def send(
        request: NotificationRequest, caller: SenderCaller, response: Response, idempotency_key: IdempotencyKey = None
    ) -> AcceptedOut:
        """Accept a notification. It is stored when this answers; delivery follows."""
        outcome = (await acceptor.accept(caller, [Wanted(request, idempotency_key)]))[0]
        if isinstance(outcome, ServiceError):
            raise outcome
        response.headers["Location"] = f"/api/v1/notifications/status/{outcome.id}"
        return AcceptedOut(id=outcome.id, status="scheduled" if outcome.is_scheduled else "accepted")

    @router.post("/send/batch", status_code=202, summary="Send up to 1,000 notifications")
    async def send_batch(batch: BatchIn, caller: SenderCaller, idempotency_key: IdempotencyKey = None) -> BatchOut:
        """Accept many notifications in one transaction; each item has its own outcome."""
        read = [_read_item(item) for item in batch.items]
        wanted = [
            Wanted(each, f"{idempotency_key}:{index}" if idempotency_key else None)
            for index, each in enumerate(read)
            if isinstance(each, NotificationRequest)
        ]
        outcomes = iter(await acceptor.accept(caller, wanted)) if wanted else iter(())
        items = []
        for index, each in enumerate(read):
            outcome = each if isinstance(each, ServiceError) else next(outcomes)
            if isinstance(outcome, ServiceError):
                items.append(_describe_refusal(index, outcome))
            else:
                items.append(BatchItemOut(index=index, status=202, id=outcome.id))
        return BatchOut(items=items)

    return router


def _read_item(item: dict[str, Any]) -> NotificationRequest | ServiceError:
    try:
        size_bytes = len(orjson.dumps(item))
    except orjson.JSONEncodeError:
        return InvalidSchema([FieldError(field=_find_unwritable(item), message="holds a number beyond 64 bits")])
    if size_bytes > MAX_REQUEST_BYTES:
        return TooLarge(MAX_REQUEST_BYTES)
    try:
        return NotificationRequest.model_validate(item)
    except ValidationError as error:
        return InvalidSchema(
            [FieldError(field=field, message=message) for field, message in describe_errors(error.errors())]
        )


def _find_unwritable(item: dict[str, Any]) -> str:
    for name, value in item.items():
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError:
            return name
    return ""


def _describe_refusal(index: int, error: ServiceError) -> BatchItemOut:
    errors = error.errors if isinstance(error, InvalidSchema) else None
    return BatchItemOut(index=index, status=error.status, code=error.code, detail=error.detail, errors=errors)
