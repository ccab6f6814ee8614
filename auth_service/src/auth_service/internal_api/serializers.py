from __future__ import annotations

from typing import Any

from rest_framework import serializers

from auth_service.accounts.serializers import UserOut
from auth_service.api.fields import SecretField, TextField
from auth_service.tokens.liveness import Ending

MAX_TOKENS_PER_CALL = 500


class _Anything(SecretField):
    """Whatever a client showed: too long, empty or odd, it is answered like any other token that does not count."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=None, allow_blank=True, **kwargs)


class IntrospectionIn(serializers.Serializer[Any]):
    """A token to look at."""

    token = _Anything()
    token_type_hint = TextField(max_length=40, required=False)


class IntrospectionBatchIn(serializers.Serializer[Any]):
    """1 to 500 tokens."""

    tokens = serializers.ListField(child=_Anything(), min_length=1, max_length=MAX_TOKENS_PER_CALL)


class IntrospectionOut(serializers.Serializer[Any]):
    """RFC 7662. An inactive token is exactly `{"active": false}`; rights are those of this moment."""

    active = serializers.BooleanField()
    sub = serializers.UUIDField(required=False)
    sid = serializers.UUIDField(required=False)
    jti = serializers.UUIDField(required=False)
    iss = serializers.CharField(required=False)
    aud = serializers.CharField(required=False)
    iat = serializers.IntegerField(required=False)
    nbf = serializers.IntegerField(required=False)
    exp = serializers.IntegerField(required=False)
    scope = serializers.CharField(required=False)
    roles = serializers.ListField(child=serializers.CharField(), required=False)
    tenant = serializers.CharField(required=False)
    token_type = serializers.CharField(required=False)
    token_use = serializers.CharField(required=False)
    username = serializers.CharField(required=False, help_text="Of a user.")
    client_id = serializers.CharField(required=False, help_text="Of a service account.")


class RedemptionOut(IntrospectionOut):
    """What a ticket was worth."""

    access = serializers.CharField(required=False, help_text="The access token the ticket was bought with.")


class IntrospectionBatchOut(serializers.Serializer[Any]):
    """One answer per token, and what ended for it, in their order."""

    items = IntrospectionOut(many=True)
    endings = serializers.ListField(child=serializers.ChoiceField(choices=[*Ending], allow_null=True))


class TicketIn(serializers.Serializer[Any]):
    """A ticket someone showed."""

    ticket = _Anything()


class MirroredGroup(serializers.Serializer[Any]):
    """A group as the mirror keeps it."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()
    tenant = serializers.CharField(source="tenant_id")


class MirroredMembership(serializers.Serializer[Any]):
    """A membership as the mirror keeps it."""

    group_id = serializers.UUIDField()
    user_id = serializers.UUIDField()


class MirroredUser(UserOut):
    """A user as the mirror keeps it."""


class ErasedUser(serializers.Serializer[Any]):
    """Someone who was erased, and the tenant they belonged to."""

    id = serializers.UUIDField()
    tenant = serializers.CharField()


class ErasedUsers(serializers.Serializer[Any]):
    """Those of the users asked for who were erased."""

    items = ErasedUser(many=True)
