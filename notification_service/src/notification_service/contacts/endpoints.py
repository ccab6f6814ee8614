"""Own contacts over REST."""

import hmac
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from notification_service.contacts.service import Added, ContactBook
from notification_service.db.base import AnyRow
from notification_service.errors import NotAuthenticated, NotFound
from notification_service.identity.access import Caller
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import DEFAULT_LIMIT, CursorParameter, Cursors, LimitParameter
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope
from shared_contracts.text import JsonObject, Line, Text


class ContactIn(BaseModel):
    """A new contact. A Web Push subscription may be given as the browser's JSON object."""

    channel: Channel
    address: Annotated[Text, Field(min_length=1, max_length=8192)] | JsonObject | None = Field(
        None, description="Left out for Telegram: the chat is linked by a start code."
    )
    secret: Annotated[Text, Field(max_length=2048)] | None = Field(
        None, description="Signs webhooks; the keys of a Web Push subscription. Never shown again."
    )
    label: Annotated[Line, Field(max_length=100)] = ""


class VerificationOut(BaseModel):
    """How the owner proves the address by a code presented there."""

    method: Literal["start"] = "start"
    code: str
    link: str | None


class ContactOut(BaseModel):
    """One contact."""

    id: UUID
    channel: str
    address: str = Field(description="What may be shown of it: addresses that let whoever has them write are cut.")
    label: str
    verified: bool
    enabled: bool
    disabled_reason: str | None
    created_at: AwareDatetime


class NewContactOut(ContactOut):
    """A contact with what is shown once."""

    secret: str | None = Field(None, description="Only when Herald made it, and only now.")
    verification: VerificationOut | None = None


class ContactsOut(BaseModel):
    """A page of contacts, the oldest first."""

    items: list[ContactOut]
    next_cursor: str | None


class ContactQuery(BaseModel):
    """Which contacts."""

    channel: Channel | None = None
    limit: LimitParameter = DEFAULT_LIMIT
    cursor: CursorParameter = None


class CodeIn(BaseModel):
    """The code that was sent to the address."""

    code: Annotated[Line, Field(min_length=4, max_length=64)]


class WebPushKeyOut(BaseModel):
    """What a browser subscribes with."""

    public_key: str = Field(description="`applicationServerKey`: the public key, base64url.")


def make_contact_router(book: ContactBook, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/contacts` and everything below it."""
    router = APIRouter(prefix="/api/v1/contacts", tags=["contacts"], route_class=JsonRoute)
    Owner = Annotated[Caller, Depends(callers.needs(Scope.INBOX))]  # noqa: N806 - a type

    @router.get("", summary="List own contacts")
    async def list_own(caller: Owner, query: Annotated[ContactQuery, Query()]) -> ContactsOut:
        """The oldest first."""
        scope = f"contacts:{caller.id}:{query.channel}"
        after = cursors.read(scope, query.cursor)
        rows = await book.list(
            caller.id, channel=query.channel, after=UUID(after) if after else None, limit=query.limit + 1
        )
        page = rows[: query.limit]
        more = len(rows) > query.limit
        return ContactsOut(
            items=[ContactOut(**_describe(row)) for row in page],
            next_cursor=cursors.write(scope, str(page[-1].id)) if more else None,
        )

    @router.post(
        "",
        status_code=201,
        summary="Add a contact",
        responses={200: {"model": NewContactOut, "description": "The address was there."}},
    )
    async def add(given: ContactIn, caller: Owner, response: Response) -> NewContactOut:
        """201, or 200 when the same address was there: it is enabled again, and takes the new secret and label."""
        address = orjson.dumps(given.address).decode() if isinstance(given.address, dict) else given.address
        added = await book.add(
            caller.id, caller.tenant, channel=given.channel, address=address, secret=given.secret, label=given.label
        )
        if not added.is_new:
            response.status_code = 200
        return NewContactOut(**_describe(added.row), secret=added.secret, verification=_describe_start(added))

    @router.get("/web-push-key", summary="The key browsers subscribe with")
    async def get_key(_caller: Owner) -> WebPushKeyOut:
        """404 while Web Push is not configured."""
        key = book.directory.web_push_key
        if key is None:
            raise NotFound("Web Push is not configured")
        return WebPushKeyOut(public_key=key)

    @router.get("/{contact_id}", summary="One contact")
    async def get_one(contact_id: UUID, caller: Owner) -> ContactOut:
        """Of the caller."""
        return ContactOut(**_describe(await book.get(caller.id, contact_id)))

    @router.delete("/{contact_id}", status_code=204, summary="Remove a contact")
    async def remove(contact_id: UUID, caller: Owner) -> Response:
        """Nothing is sent there any more, not even what waits."""
        await book.delete(caller.id, contact_id)
        return Response(status_code=204)

    @router.post(
        "/{contact_id}/send-code",
        status_code=202,
        response_class=Response,
        summary="Send a code to the address",
    )
    async def send_code(contact_id: UUID, caller: Owner) -> Response:
        """At most one a minute. A webhook proves itself by answering with the `challenge` it is sent."""
        await book.send_code(caller.id, contact_id)
        return Response(status_code=202)

    @router.post("/{contact_id}/verify", summary="Prove the address by its code")
    async def verify(contact_id: UUID, given: CodeIn, caller: Owner) -> ContactOut:
        """A code works for 15 minutes and five tries."""
        return ContactOut(**_describe(await book.verify(caller.id, contact_id, given.code)))

    return router


def make_telegram_router(book: ContactBook, secret: str | None) -> APIRouter:
    """`/channels/telegram/updates`: the bot's webhook, which links chats by their start codes."""
    router = APIRouter(prefix="/api/v1/channels/telegram", tags=["contacts"], route_class=JsonRoute)

    @router.post("/updates", summary="Updates of the Telegram bot")
    async def on_update(
        update: JsonObject,
        token: Annotated[str, Header(alias="X-Telegram-Bot-Api-Secret-Token")] = "",
    ) -> dict[str, bool]:
        """For Telegram alone: it sends the secret the webhook was set with."""
        if secret is None or not hmac.compare_digest(token.encode(), secret.encode()):
            raise NotAuthenticated("the secret token of the bot's webhook is needed")
        message = update.get("message")
        text, chat = (message.get("text"), message.get("chat")) if isinstance(message, dict) else (None, None)
        linked = False
        if isinstance(text, str) and text.startswith("/start ") and isinstance(chat, dict) and "id" in chat:
            linked = await book.link_start_code("telegram", text.removeprefix("/start ").strip(), str(chat["id"]))
        return {"linked": linked}

    return router


def _describe(row: AnyRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "channel": row.channel,
        "address": row.hint,
        "label": row.label,
        "verified": row.verified_at is not None,
        "enabled": row.disabled_at is None,
        "disabled_reason": row.disabled_reason,
        "created_at": row.created_at,
    }


def _describe_start(added: Added) -> VerificationOut | None:
    return VerificationOut(code=added.start_code, link=added.start_link) if added.start_code is not None else None
