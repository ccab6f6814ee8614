from __future__ import annotations

from typing import Any

from rest_framework import serializers

from auth_service.api.fields import MomentField
from auth_service.sessions.models import Session


class SessionOut(serializers.Serializer[Any]):
    """A device that is logged in. Nothing in it lets anyone act for it (B11)."""

    id = serializers.UUIDField(read_only=True)
    device_id = serializers.CharField(read_only=True, help_text="Empty when the device did not name itself.")
    device_name = serializers.CharField(read_only=True, allow_null=True)
    ip = serializers.CharField(read_only=True, allow_null=True)
    user_agent = serializers.CharField(read_only=True)
    created_at = MomentField()
    last_seen_at = MomentField()
    expires_at = MomentField()
    current = serializers.SerializerMethodField(help_text="Whether this is the session that asks.")

    def get_current(self, session: Session) -> bool:
        """Compare with the session of the caller's token."""
        return session.id == self.context.get("current_id")
