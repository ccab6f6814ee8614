from __future__ import annotations

from typing import Any

from rest_framework import serializers

from auth_service.api.fields import LineField, MomentField, SlugField
from shared_contracts.ids import new_id


class AuditEventOut(serializers.Serializer[Any]):
    """Who did what to whom, when, from where."""

    id = serializers.UUIDField(read_only=True)
    occurred_at = MomentField()
    action = serializers.CharField(read_only=True)
    actor_type = serializers.ChoiceField(["user", "service", "system", "anonymous"], read_only=True)
    actor_id = serializers.UUIDField(read_only=True, allow_null=True)
    subject_type = serializers.CharField(read_only=True)
    subject_id = serializers.CharField(read_only=True)
    tenant = serializers.CharField(read_only=True)
    ip = serializers.CharField(read_only=True, allow_null=True)
    user_agent = serializers.CharField(read_only=True)
    correlation_id = serializers.CharField(read_only=True)
    details = serializers.DictField(read_only=True)


class AuditEventIn(serializers.Serializer[Any]):
    """An event of another service. The same id twice is one event."""

    id = serializers.UUIDField(default=new_id)
    occurred_at = serializers.DateTimeField(required=False)
    action = SlugField(r"[a-z_]+(\.[a-z_]+)+", max_length=64)
    actor_type = serializers.ChoiceField(["user", "service", "system", "anonymous"])
    actor_id = serializers.UUIDField(required=False, allow_null=True)
    subject_type = LineField(max_length=40, required=False, allow_blank=True)
    subject_id = LineField(max_length=200, required=False, allow_blank=True)
    tenant = LineField(max_length=63)
    ip = serializers.IPAddressField(required=False, allow_null=True)
    user_agent = LineField(max_length=300, required=False, allow_blank=True)
    correlation_id = LineField(max_length=64, required=False, allow_blank=True)
    details = serializers.DictField(required=False)


class AuditEventsIn(serializers.Serializer[Any]):
    """1 to 500 events."""

    items = serializers.ListField(child=AuditEventIn(), min_length=1, max_length=500)


class AuditEventsWritten(serializers.Serializer[Any]):
    """How many were new."""

    written = serializers.IntegerField()
