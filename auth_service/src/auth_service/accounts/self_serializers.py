"""Bodies of what users do with their own account: password, links, second factor."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from typing_extensions import override

from auth_service.api.fields import AddressField, SecretField


class PasswordChangeIn(serializers.Serializer[Any]):
    """The password one has, and the one to have."""

    current_password = SecretField()
    new_password = SecretField()


class AddressIn(serializers.Serializer[Any]):
    """Where to send a mail."""

    email = AddressField()


class MailAccepted(serializers.Serializer[Any]):
    """The same for known and unknown addresses."""

    detail = serializers.CharField()


class ResetConfirmIn(serializers.Serializer[Any]):
    """What the link carried, and the new password (`password` is taken for it too)."""

    token = SecretField()
    new_password = SecretField(required=False)
    password = SecretField(required=False)

    @override
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One of the two names must be there.

        Raises:
            ValidationError: Neither is.
        """
        password = attrs.get("new_password") or attrs.get("password")
        if not password:
            raise serializers.ValidationError({"new_password": "This field is required."})
        return {"token": attrs["token"], "new_password": password}


class LinkIn(serializers.Serializer[Any]):
    """What the link carried."""

    token = SecretField()


class EnrolmentOut(serializers.Serializer[Any]):
    """For an authenticator application, shown this once."""

    secret = serializers.CharField(help_text="Base32, for typing.")
    otpauth_uri = serializers.CharField(help_text="For a QR code.")


class OtpIn(serializers.Serializer[Any]):
    """A code of the authenticator application."""

    otp = SecretField(max_length=64)


class RecoveryCodesOut(serializers.Serializer[Any]):
    """Ten codes that stand in for a lost device, each once; shown this once."""

    recovery_codes = serializers.ListField(child=serializers.CharField())


class ProofIn(serializers.Serializer[Any]):
    """Proof that the owner is asking; not needed shortly after a login."""

    otp = SecretField(max_length=64, required=False)
    password = SecretField(required=False)
