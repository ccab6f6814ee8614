"""The inbox over REST: HTTP in, HTTP out. Every item is the caller's own; another user's does not exist here (404)."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import Field, ValidationError

from notification_service.errors import BadRequest, InvalidSchema, NotFound
from notification_service.identity.access import Caller
from notification_service.mailbox.actions import Action
from notification_service.mailbox.inbox import InboxCursor, InboxFilter
from notification_service.mailbox.schemas import (
    AckIn,
    CountsOut,
    FilterIn,
    InboxBatchIn,
    InboxBatchOut,
    InboxOut,
    ItemOut,
    ItemPatch,
    ListQuery,
    StateName,
    SyncOut,
)
from notification_service.mailbox.service import Inbox
from notification_service.notifications.kept import Counts
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.rest.pages import Cursors
from shared_contracts.problems import FieldError
from shared_contracts.requests import describe_errors
from shared_contracts.scopes import Scope
from shared_contracts.ws.positions import parse_position


def make_inbox_router(inbox: Inbox, callers: Callers, cursors: Cursors) -> APIRouter:
    """`/inbox` and everything below it."""
    router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"], route_class=JsonRoute)
    Owner = Annotated[Caller, Depends(callers.needs(Scope.INBOX))]  # noqa: N806 - a type

    @router.get("", summary="List items, the newest first")
    async def list_items(caller: Owner, query: Annotated[ListQuery, Query()]) -> InboxOut:
        """A page; archived and snoozed items only when asked for. Pages stay put while new items arrive."""
        scope = f"inbox:{caller.id}"
        values = cursors.read(scope, query.cursor)
        page = await inbox.get_page(
            caller.id,
            caller.tenant,
            _make_filter(query),
            limit=query.limit,
            cursor=InboxCursor(*values) if values else None,
        )
        following = page.next
        return InboxOut(
            items=[ItemOut.model_validate(item) for item in page.items],
            next_cursor=cursors.write(scope, [following.before_seq, following.before_broadcast]) if following else None,
        )

    @router.get("/counts", summary="Unread, unseen, total")
    async def count(
        caller: Owner,
        state: Annotated[list[StateName] | None, Query(max_length=6)] = None,
        filters_given: Annotated[
            list[Annotated[str, Field(max_length=1000)]] | None,
            Query(alias="filter", max_length=10, description='A filter as JSON: `{"state": "unread", "tag": "x"}`.'),
        ] = None,
    ) -> CountsOut:
        """The counts kept for the caller. `state` and `filter`, given several times, add a count for each, in order."""
        filters = [InboxFilter(state=each) for each in state or ()]
        filters += [_make_filter(_read_filter(each)) for each in filters_given or ()]
        counts, found = await inbox.count(caller.id, caller.tenant, filters)
        return _describe_counts(counts, found if filters else None)

    @router.get("/sync", summary="What changed since a position")
    async def sync(
        caller: Owner,
        position: Annotated[str | None, Query(max_length=200)] = None,
        device_id: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9._:@\-]{1,64}$")] = None,
    ) -> SyncOut:
        """The frames a socket would send. Without a position: since the device's last acknowledgement."""
        found = await inbox.sync(caller.id, caller.tenant, device_id or str(caller.session_id), position)
        return SyncOut(
            items=found.frames,
            position=found.position,
            has_more=found.has_more,
            resume="reset" if found.resume == "reset" else "recovered",
            counts=_describe_counts(found.counts),
        )

    @router.post("/ack", status_code=204, summary="Acknowledge without a socket")
    async def acknowledge(ack: AckIn, caller: Owner) -> Response:
        """Everything up to the position has been received by this device."""
        position = parse_position(ack.position)
        if position is None:
            raise BadRequest("the position was not given out by this server")
        await inbox.acknowledge(caller.id, caller.tenant, ack.device_id or str(caller.session_id), position)
        return Response(status_code=204)

    @router.post("/batch", summary="One action on many items")
    async def change_many(batch: InboxBatchIn, caller: Owner) -> InboxBatchOut:
        """By ids, or by a filter (an empty one means everything). Ids that are not the caller's are passed over."""
        action = Action(batch.action)
        if batch.ids is not None:
            change = await inbox.change(caller.id, caller.tenant, action, batch.ids, until=batch.snoozed_until)
            return InboxBatchOut(changed=change.changed_count, counts=_describe_counts(change.counts))
        assert batch.filter is not None
        changed, counts = await inbox.change_filtered(
            caller.id, caller.tenant, action, _make_filter(batch.filter), until=batch.snoozed_until
        )
        return InboxBatchOut(changed=changed, counts=_describe_counts(counts))

    @router.get("/{notification_id}", summary="One item")
    async def get_item(notification_id: UUID, caller: Owner) -> ItemOut:
        """Also archived ones."""
        return ItemOut.model_validate(await inbox.get_item(caller.id, caller.tenant, notification_id))

    @router.patch("/{notification_id}", summary="Change an item")
    async def patch_item(notification_id: UUID, patch: ItemPatch, caller: Owner) -> ItemOut:
        """Read, unread, seen, archive, snooze or pin one item, or undo it; every device learns of it at once."""
        await inbox.get_item(caller.id, caller.tenant, notification_id)
        for action in _actions_of(patch):
            until = patch.snoozed_until if action is Action.SNOOZE else None
            await inbox.change(caller.id, caller.tenant, action, [notification_id], until=until)
        return ItemOut.model_validate(await inbox.get_item(caller.id, caller.tenant, notification_id))

    @router.delete("/{notification_id}", status_code=204, summary="Remove an item")
    async def delete_item(notification_id: UUID, caller: Owner) -> Response:
        """From this inbox, on every device."""
        change = await inbox.change(caller.id, caller.tenant, Action.DELETE, [notification_id])
        if not change.changed_count:
            raise NotFound("there is no such item in this inbox")
        return Response(status_code=204)

    return router


def _make_filter(given: FilterIn) -> InboxFilter:
    return InboxFilter(
        state=given.state,
        event_type=given.event_type,
        category=given.category,
        tag=given.tag,
        priority=given.priority,
        group_id=given.group_id,
        pinned=given.pinned,
        since=given.since,
        until=given.until,
        text=given.text,
    )


def _actions_of(patch: ItemPatch) -> list[Action]:
    actions = []
    if patch.seen:
        actions.append(Action.SEEN)
    if patch.read is not None:
        actions.append(Action.READ if patch.read else Action.UNREAD)
    if patch.archived is not None:
        actions.append(Action.ARCHIVE if patch.archived else Action.UNARCHIVE)
    if "snoozed_until" in patch.model_fields_set:
        actions.append(Action.SNOOZE if patch.snoozed_until is not None else Action.UNSNOOZE)
    if patch.pinned is not None:
        actions.append(Action.PIN if patch.pinned else Action.UNPIN)
    return actions


def _read_filter(text: str) -> FilterIn:
    try:
        return FilterIn.model_validate_json(text)
    except ValidationError as error:
        raise InvalidSchema(
            [FieldError(field=f"filter.{field}", message=message) for field, message in describe_errors(error.errors())]
        ) from None


def _describe_counts(counts: Counts, found: list[int] | None = None) -> CountsOut:
    return CountsOut(unread=counts.unread, unseen=counts.unseen, total=counts.total, filtered=found)
