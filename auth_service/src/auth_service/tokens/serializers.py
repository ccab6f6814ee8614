from __future__ import annotations

from typing import Any

from rest_framework import serializers
from typing_extensions import override

from auth_service.accounts.serializers import UserOut
from auth_service.api.fields import LineField, SecretField
from auth_service.sessions.models import MAX_DEVICE_ID_LENGTH, MAX_DEVICE_NAME_LENGTH
from auth_service.tokens.actions import IssuedTokens


class LoginIn(serializers.Serializer[Any]):
    """Name or address, and password."""

    username = LineField(max_length=254, required=False, allow_null=True)
    email = LineField(max_length=254, required=False, allow_null=True)
    password = SecretField()
    otp = SecretField(
        max_length=64, required=False, allow_null=True, help_text="Code of the second factor, or a recovery code."
    )
    device_id = LineField(
        max_length=MAX_DEVICE_ID_LENGTH,
        required=False,
        allow_blank=True,
        allow_null=True,
        help_text="The same at every login.",
    )
    device_name = LineField(max_length=MAX_DEVICE_NAME_LENGTH, required=False, allow_blank=True, allow_null=True)

    @override
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two names must be there.

        Raises:
            ValidationError: Neither is.
        """
        if attrs.get("username") is None and attrs.get("email") is None:
            raise serializers.ValidationError({"username": "username or email is needed"})
        return attrs


class RefreshIn(serializers.Serializer[Any]):
    """A refresh token. `device_id` tells a retry from a theft where the address may change between the two."""

    refresh = SecretField()
    device_id = LineField(max_length=MAX_DEVICE_ID_LENGTH, required=False, allow_blank=True, allow_null=True)


class TokenIn(serializers.Serializer[Any]):
    """A refresh or access token."""

    token = SecretField(max_length=16_384)
    token_type_hint = LineField(max_length=40, required=False, help_text="RFC 7009; not needed here.")


class TokensOut(serializers.Serializer[Any]):
    """What a login and a refresh answer."""

    access = serializers.CharField(read_only=True)
    refresh = serializers.CharField(read_only=True, help_text="Good for one use.")
    token_type = serializers.CharField(read_only=True)
    expires_in = serializers.IntegerField(read_only=True, help_text="Seconds until the access token expires.")
    session_id = serializers.UUIDField(read_only=True)
    user = UserOut(read_only=True)


class TicketOut(serializers.Serializer[Any]):
    """A ticket for one socket."""

    ticket = serializers.CharField(read_only=True)
    expires_in = serializers.IntegerField(read_only=True, help_text="Seconds.")


class KeySetOut(serializers.Serializer[Any]):
    """RFC 7517."""

    keys = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))


class MetadataOut(serializers.Serializer[Any]):
    """RFC 8414."""

    issuer = serializers.CharField()
    jwks_uri = serializers.CharField()
    token_endpoint = serializers.CharField()
    revocation_endpoint = serializers.CharField()
    introspection_endpoint = serializers.CharField()
    registration_endpoint = serializers.CharField(required=False)
    response_types_supported = serializers.ListField(child=serializers.CharField())
    grant_types_supported = serializers.ListField(child=serializers.CharField())
    scopes_supported = serializers.ListField(child=serializers.CharField())
    token_endpoint_auth_methods_supported = serializers.ListField(child=serializers.CharField())
    service_documentation = serializers.CharField()


def as_tokens(issued: IssuedTokens) -> dict[str, Any]:
    """The answer to a login or a refresh."""
    return {
        "access": issued.access.token,
        "refresh": issued.refresh,
        "token_type": "Bearer",
        "expires_in": issued.access.expires_in_s,
        "session_id": str(issued.session.id),
        "user": UserOut(issued.user).data,
    }
