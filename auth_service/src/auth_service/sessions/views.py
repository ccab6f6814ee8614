from __future__ import annotations

from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response

from auth_service.accounts.actions import get_user
from auth_service.api.access import Access
from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.sessions.actions import (
    do_end_session,
    do_log_out_everywhere,
    find_sessions,
    get_session,
)
from auth_service.sessions.models import EndReason
from auth_service.sessions.serializers import SessionOut
from shared_contracts.scopes import Scope

_SESSION = {
    "id": "0192f6a0-c0de-7abc-8def-0000000000bb",
    "device_id": "phone-1",
    "device_name": "Ada's phone",
    "ip": "192.0.2.1",
    "user_agent": "Herald/1.0",
    "created_at": "2026-01-02T03:04:05Z",
    "last_seen_at": "2026-01-03T08:00:00Z",
    "expires_at": "2026-04-02T03:04:05Z",
    "current": True,
}


class LogoutView(ApiView):
    """Ends the session of the token."""

    access = {"POST": Access.USER}
    serializer_class = SessionOut

    @operation("log_out", "End this session", status=204)
    def post(self, request: Request) -> Response:
        """Its refresh token, its access tokens and its sockets end; other devices stay."""
        do_end_session(get_session(self.user.id, self.session_id), EndReason.LOGOUT, self.origin)
        return Response(status=204)


class LogoutAllView(ApiView):
    """Ends every session of the user."""

    access = {"POST": Access.USER}
    serializer_class = SessionOut

    @operation("log_out_all", "End all sessions", status=204)
    def post(self, request: Request) -> Response:
        """Every device has to log in again, this one too."""
        do_log_out_everywhere(self.user, self.origin)
        return Response(status=204)


class MySessionsView(ApiView):
    """The devices one is logged in on."""

    access = {"GET": Access.USER}
    serializer_class = SessionOut
    pagination_class = CursorPages
    orderings = ("-created_at", "created_at")

    @operation("list_my_sessions", "List one's own sessions", response=SessionOut(many=True), answers=_SESSION)
    def get(self, request: Request) -> Response:
        """Living sessions, newest first."""
        page = self.paginate_queryset(find_sessions(self.user.id)) or []
        return self.get_paginated_response(SessionOut(page, many=True, context={"current_id": self.session_id}).data)


class MySessionView(ApiView):
    """One device one is logged in on."""

    access = {"DELETE": Access.USER}
    serializer_class = SessionOut

    @operation("end_my_session", "End one of one's own sessions", status=204)
    def delete(self, request: Request, session_id: UUID) -> Response:
        """Someone else's session is 404, as is one that is over."""
        do_end_session(get_session(self.user.id, session_id), EndReason.REVOKED_BY_USER, self.origin)
        return Response(status=204)


class UserSessionsView(ApiView):
    """The devices a user is logged in on, for administrators."""

    access = {"GET": Scope.USERS_WRITE, "DELETE": Scope.USERS_WRITE}
    serializer_class = SessionOut
    pagination_class = CursorPages
    orderings = ("-created_at", "created_at")

    @operation("list_user_sessions", "List the sessions of a user", response=SessionOut(many=True), answers=_SESSION)
    def get(self, request: Request, user_id: UUID) -> Response:
        """Living sessions, newest first."""
        page = self.paginate_queryset(find_sessions(get_user(self.caller, user_id).id)) or []
        return self.get_paginated_response(SessionOut(page, many=True).data)

    @operation("end_user_sessions", "End all sessions of a user", status=204)
    def delete(self, request: Request, user_id: UUID) -> Response:
        """The user may log in again at once."""
        user = get_user(self.caller, user_id)
        self.caller.check_may_grant(user.roles)
        do_log_out_everywhere(user, self.origin, reason=EndReason.REVOKED_BY_ADMIN)
        return Response(status=204)
