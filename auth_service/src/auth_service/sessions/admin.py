from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from auth_service.config.admin_site import LookOnlyAdmin, act_on_all, get_admin_caller
from auth_service.sessions.actions import do_end_session
from auth_service.sessions.models import EndReason, Session


@admin.register(Session)
class SessionAdmin(LookOnlyAdmin):
    """Who is logged in, on what, since when."""

    tenant_field = "user__tenant"
    list_display = ("user", "device_name", "ip", "user_agent", "created_at", "last_seen_at", "ended_at", "end_reason")
    list_filter = (("ended_at", admin.EmptyFieldListFilter), "end_reason", "created_at")
    search_fields = ("user__username_key", "ip", "device_id")
    search_help_text = "Part of a username, an address or a device id"
    list_select_related = ("user",)
    ordering = ("-created_at",)
    actions = ("end_sessions",)

    @admin.action(description="End these sessions")
    def end_sessions(self, request: HttpRequest, sessions: QuerySet[Session]) -> None:
        """End the chosen sessions."""
        caller = get_admin_caller(request)

        def act(session: Session) -> None:
            caller.check_may_grant(session.user.roles if caller.is_admin else ["admin"])
            do_end_session(session, EndReason.REVOKED_BY_ADMIN, caller.origin)

        act_on_all(request, sessions, act, "ended")
