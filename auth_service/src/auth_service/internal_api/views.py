from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView
from typing_extensions import override

from auth_service import clock
from auth_service.accounts.examples import USER
from auth_service.accounts.models import User
from auth_service.api.access import Access
from auth_service.api.pagination import WidePages
from auth_service.api.parsers import StrictFormParser, StrictJsonParser
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.audit.actions import do_append_foreign
from auth_service.audit.models import Action, AuditEvent
from auth_service.audit.serializers import AuditEventsIn, AuditEventsWritten
from auth_service.groups.models import Group, Membership
from auth_service.identity_events.actions import get_revision
from auth_service.internal_api.filters import (
    ErasedUsersFilter,
    MembershipsFilter,
    NamedGroupsFilter,
    NamedUsersFilter,
)
from auth_service.internal_api.serializers import (
    ErasedUsers,
    IntrospectionBatchIn,
    IntrospectionBatchOut,
    IntrospectionIn,
    IntrospectionOut,
    MirroredGroup,
    MirroredMembership,
    MirroredUser,
    RedemptionOut,
    TicketIn,
)
from auth_service.metrics import TOKENS_REJECTED
from auth_service.tokens.access_tokens import check_access_token, sign
from auth_service.tokens.actions import do_redeem_ticket
from auth_service.tokens.liveness import Ending, Live, check_all_live, check_live, find_endings
from shared_contracts.access_tokens import RejectedToken
from shared_contracts.scopes import format_scope

INACTIVE = {"active": False}
_ACTIVE = {
    "active": True,
    "sub": "0192f6a0-c0de-7abc-8def-0123456789ab",
    "sid": "0192f6a0-c0de-7abc-8def-0000000000bb",
    "jti": "0192f6a0-c0de-7abc-8def-0000000000ee",
    "iss": "http://127.0.0.1:8000",
    "aud": "herald",
    "iat": 1767323045,
    "nbf": 1767323045,
    "exp": 1767323945,
    "scope": "inbox messages:send",
    "roles": ["user"],
    "tenant": "default",
    "token_type": "Bearer",
    "token_use": "access",
    "username": "ada",
}

_GROUP = {"id": "0192f6a0-c0de-7abc-8def-00000000beef", "slug": "ops", "name": "Ops", "tenant": "default"}
_MEMBERSHIP = {"group_id": _GROUP["id"], "user_id": _ACTIVE["sub"]}


def introspect(token: str) -> dict[str, Any]:
    """The answer for this token, in two queries at most."""
    try:
        return _answer(check_live(check_access_token(token)))
    except RejectedToken as rejected:
        return _answer(rejected)


def introspect_all(tokens: Sequence[str]) -> tuple[list[dict[str, Any]], list[Ending | None]]:
    """The answers for these tokens and what ended, in four queries at most."""
    checked = [_check(token) for token in tokens]
    signed = [claims for claims in checked if not isinstance(claims, RejectedToken)]
    found = check_all_live(signed)
    alive = iter(zip(found, find_endings(list(zip(signed, found, strict=True))), strict=True))
    both = [(claims, None) if isinstance(claims, RejectedToken) else next(alive) for claims in checked]
    return [_answer(each) for each, _ in both], [ending for _, ending in both]


class IntrospectionView(ApiView):
    """Whether one token counts at this moment."""

    access = {"POST": Access.INTERNAL}
    serializer_class = IntrospectionOut
    parser_classes = (StrictJsonParser, StrictFormParser)

    @operation(
        "introspect_token",
        "Look at a token",
        request=IntrospectionIn,
        response=IntrospectionOut,
        sends={"token": "eyJ..."},
        takes_forms=True,
        answers=_ACTIVE,
    )
    def post(self, request: Request) -> Response:
        """RFC 7662. Refresh tokens, tickets and anything else are inactive, without a reason."""
        return Response(introspect(self.read(IntrospectionIn)["token"]))


class IntrospectionBatchView(ApiView):
    """Whether many tokens count at this moment."""

    access = {"POST": Access.INTERNAL}
    serializer_class = IntrospectionBatchOut

    @operation(
        "introspect_tokens",
        "Look at up to 500 tokens",
        request=IntrospectionBatchIn,
        response=IntrospectionBatchOut,
        sends={"tokens": ["eyJ...", "eyJ..."]},
        answers={"items": [_ACTIVE, INACTIVE], "endings": [None, "session_ended"]},
    )
    def post(self, request: Request) -> Response:
        """The same answers as one by one, in four queries altogether: for a gateway whose sockets all came back.

        A gateway that missed an event has to tell a device why its socket is closed, so `endings` says what ended: the
        account or the session; null where a fresh token would do, and for everything we did not sign.
        """
        items, endings = introspect_all(self.read(IntrospectionBatchIn)["tokens"])
        return Response({"items": items, "endings": endings})


class TicketRedemptionView(ApiView):
    """Sockets opened with a ticket."""

    access = {"POST": Access.INTERNAL}
    serializer_class = RedemptionOut

    @operation(
        "redeem_ticket",
        "Redeem a ticket",
        request=TicketIn,
        response=RedemptionOut,
        sends={"ticket": "htk_..."},
        answers={**_ACTIVE, "access": "eyJ..."},
    )
    def post(self, request: Request) -> Response:
        """The introspection answer for the token the ticket was bought with, once; else `{"active": false}`.

        `access` is that token, signed again: with it the socket is looked at like any other while it is open.
        """
        try:
            live = do_redeem_ticket(self.read(TicketIn)["ticket"])
        except RejectedToken as rejected:
            return Response(_answer(rejected))
        return Response({**_answer(live), "access": sign(live.claims)})


class MirrorPages(WidePages):
    """Pages of a full copy, each with the revision of the last identity event it surely contains."""

    def __init__(self) -> None:
        super().__init__()
        self._revision = 0

    @override
    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        """One page.

        Raises:
            ServiceError: As `CursorPages` does.
        """
        # Read before the rows: what changes in between comes again as an event, which is harmless; the other way round
        # it would be missed.
        self._revision = get_revision()
        return super().paginate_queryset(queryset, request, view)

    @override
    def get_paginated_response(self, data: Any) -> Response:
        """The page as it is answered."""
        return Response({"items": data, "next_cursor": self.next_cursor, "revision": self._revision})

    @override
    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The page as it is documented."""
        shape = super().get_paginated_response_schema(schema)
        shape["required"].append("revision")
        shape["properties"]["revision"] = {"type": "integer", "example": 1042}
        return shape


class MirrorView(ApiView):
    """Base of the full copies, and of parts of them by name."""

    pagination_class = MirrorPages
    filter_backends = (DjangoFilterBackend,)
    orderings = ("id",)
    shape: type[BaseSerializer[Any]]

    def _page(self) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self.shape(page, many=True).data)


class MirroredUsersView(MirrorView):
    """All users of all tenants."""

    access = {"GET": Access.INTERNAL}
    filterset_class = NamedUsersFilter
    queryset = User.objects.all()
    serializer_class = shape = MirroredUser

    @operation("mirror_users", "Copy all users", response=MirroredUser(many=True), answers=USER)
    def get(self, request: Request) -> Response:
        """Up to 1,000 a page. `revision` is that of the last identity event the page surely contains."""
        return self._page()


class MirroredGroupsView(MirrorView):
    """All groups of all tenants."""

    access = {"GET": Access.INTERNAL}
    filterset_class = NamedGroupsFilter
    queryset = Group.objects.all()
    serializer_class = shape = MirroredGroup

    @operation("mirror_groups", "Copy all groups", response=MirroredGroup(many=True), answers=_GROUP)
    def get(self, request: Request) -> Response:
        """Up to 1,000 a page. `revision` is that of the last identity event the page surely contains."""
        return self._page()


class MirroredMembershipsView(MirrorView):
    """All memberships of all tenants."""

    access = {"GET": Access.INTERNAL}
    filterset_class = MembershipsFilter
    queryset = Membership.objects.all()
    serializer_class = shape = MirroredMembership

    @operation(
        "mirror_memberships", "Copy all memberships", response=MirroredMembership(many=True), answers=_MEMBERSHIP
    )
    def get(self, request: Request) -> Response:
        """Up to 1,000 a page. `revision` is that of the last identity event the page surely contains."""
        return self._page()


class ErasedUsersView(ApiView):
    """Which users are gone for good."""

    access = {"GET": Access.INTERNAL}
    serializer_class = ErasedUsers
    filter_backends = (DjangoFilterBackend,)
    filterset_class = ErasedUsersFilter
    queryset = AuditEvent.objects.filter(action=Action.USER_ERASED, subject_type="user")

    @operation(
        "find_erased_users",
        "Which of these users were erased",
        response=ErasedUsers,
        answers={"items": [{"id": "0192f6a0-c0de-7abc-8def-0000000000aa", "tenant": "default"}]},
        parameters=[OpenApiParameter("ids", str, required=True, description="Users' ids, divided by commas.")],
    )
    def get(self, request: Request) -> Response:
        """For a mirror that missed events: it erases only whom this names, never whom a list merely lacks."""
        erased = self.filter_queryset(self.get_queryset())
        rows = erased.values_list("subject_id", "tenant").order_by("subject_id").distinct()
        return Response({"items": [{"id": subject_id, "tenant": tenant} for subject_id, tenant in rows]})


class ForeignAuditEventsView(ApiView):
    """Audit events of Herald's other services."""

    access = {"POST": Access.INTERNAL}
    serializer_class = AuditEventsWritten

    @operation(
        "append_audit_events",
        "Append audit events",
        request=AuditEventsIn,
        response=AuditEventsWritten,
        sends={
            "items": [
                {
                    "id": "0192f6a0-c0de-7abc-8def-0000000000dd",
                    "occurred_at": "2026-01-02T03:04:05Z",
                    "action": "dead_letter.replayed",
                    "actor_type": "user",
                    "actor_id": "0192f6a0-c0de-7abc-8def-0000000000aa",
                    "subject_type": "dead_letter",
                    "subject_id": "0192f6a0-c0de-7abc-8def-0000000000ff",
                    "tenant": "default",
                    "ip": "192.0.2.1",
                }
            ]
        },
        answers={"written": 1},
    )
    def post(self, request: Request) -> Response:
        """So that one log tells of both services. The same id twice is one event."""
        items = self.read(AuditEventsIn)["items"]
        now = clock.now()
        return Response({"written": do_append_foreign({"occurred_at": now, **item} for item in items)})


def _check(token: str) -> Any:
    try:
        return check_access_token(token)
    except RejectedToken as rejected:
        return rejected


def _answer(found: Live | RejectedToken) -> dict[str, Any]:
    if isinstance(found, RejectedToken):
        TOKENS_REJECTED.labels(reason=found.reason).inc()
        return INACTIVE
    claims = found.claims
    name = "client_id" if found.service_account else "username"
    return {
        "active": True,
        "sub": str(claims.sub),
        "sid": str(claims.sid),
        "jti": str(claims.jti),
        "iss": claims.iss,
        "aud": claims.aud,
        "iat": claims.iat,
        "nbf": claims.nbf,
        "exp": claims.exp,
        "scope": format_scope(found.scopes),
        "roles": list(found.roles),
        "tenant": claims.tenant,
        "token_type": "Bearer",
        "token_use": claims.token_use,
        name: found.name,
    }
