from __future__ import annotations

from typing import Any

from rest_framework import serializers
from typing_extensions import override

from auth_service.api.batches import RowError, RowsField
from auth_service.api.fields import ExternalIdField, FlagField, IdField, LineField, MomentField, SecretField, SlugField
from auth_service.service_accounts.models import GRANTABLE_SCOPES, ServiceAccount
from auth_service.service_accounts.user_token_actions import MAX_TOKENS_PER_CALL
from auth_service.sessions.models import MAX_DEVICE_ID_LENGTH
from auth_service.tenants.models import SLUG_PATTERN

_SCOPES = [(str(scope), str(scope)) for scope in GRANTABLE_SCOPES]


class ServiceAccountOut(serializers.Serializer[Any]):
    """A service account, without its secret."""

    id = serializers.UUIDField(read_only=True)
    name = serializers.CharField(read_only=True)
    client_id = serializers.CharField(read_only=True)
    scopes = serializers.SerializerMethodField()
    is_active = serializers.BooleanField(read_only=True)
    tenant = serializers.CharField(read_only=True, source="tenant_id")
    created_at = MomentField()
    secret_rotated_at = MomentField()
    last_used_at = MomentField(allow_null=True)

    def get_scopes(self, account: ServiceAccount) -> list[str]:
        """As a sorted list."""
        return account.scope.split()


class ServiceAccountWithSecretOut(ServiceAccountOut):
    """A service account with its secret: only after making it, and after rotation."""

    client_secret = serializers.CharField(read_only=True, help_text="Shown this once.")


class ServiceAccountChangesIn(serializers.Serializer[Any]):
    """What can be said about a service account."""

    name = LineField(max_length=100, required=False)
    scopes = serializers.ListField(child=serializers.ChoiceField(_SCOPES), max_length=50, required=False)
    is_active = FlagField(required=False)


class ServiceAccountIn(serializers.Serializer[Any]):
    """A new service account."""

    name = LineField(max_length=100)
    scopes = serializers.ListField(child=serializers.ChoiceField(_SCOPES), max_length=50)
    tenant = SlugField(SLUG_PATTERN, required=False)


class ServiceTokenIn(serializers.Serializer[Any]):
    """Id and secret of a service account."""

    client_id = LineField(max_length=140)
    client_secret = SecretField()
    scope = LineField(
        max_length=1_000, required=False, allow_null=True, help_text="Separated by spaces; left out: all it has."
    )


class ServiceTokenOut(serializers.Serializer[Any]):
    """An access token of a service account."""

    access = serializers.CharField(read_only=True)
    token_type = serializers.CharField(read_only=True)
    expires_in = serializers.IntegerField(read_only=True, help_text="Seconds.")
    scope = serializers.CharField(read_only=True)


class UserTokenRowIn(serializers.Serializer[Any]):
    """One user, by id or by external id."""

    user_id = IdField(required=False)
    external_id = ExternalIdField(required=False)
    device_id = LineField(max_length=MAX_DEVICE_ID_LENGTH, required=False, allow_blank=True)

    @override
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two must be there.

        Raises:
            ValidationError: Neither or both are.
        """
        if ("user_id" in attrs) == ("external_id" in attrs):
            raise serializers.ValidationError("name the user by user_id or by external_id")
        return attrs


class UserTokensIn(serializers.Serializer[Any]):
    """1 to 500 users."""

    items = RowsField(UserTokenRowIn, max_count=MAX_TOKENS_PER_CALL)


class UserTokenRowOut(serializers.Serializer[Any]):
    """What became of one item: 201 and a token, or 403, 404 or 422."""

    index = serializers.IntegerField()
    status = serializers.IntegerField()
    user_id = serializers.UUIDField(required=False)
    external_id = serializers.CharField(required=False, allow_null=True)
    access = serializers.CharField(required=False)
    expires_in = serializers.IntegerField(required=False)
    session_id = serializers.UUIDField(required=False)
    code = serializers.CharField(required=False)
    detail = serializers.CharField(required=False)
    errors = RowError(many=True, required=False)  # type: ignore[assignment] # the contract's word


class UserTokensOut(serializers.Serializer[Any]):
    """One outcome per item, in the order of the items."""

    items = UserTokenRowOut(many=True)
