"""Encryption of the few secrets that must be read again (second-factor secrets), with keys from the secret key."""

from __future__ import annotations

import base64

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


def encrypt(text: str) -> str:
    """The text, readable only with the secret key."""
    return _vault().encrypt(text.encode()).decode()


def decrypt(stored: str) -> str | None:
    """The text; None when neither the secret key nor a fallback opens it."""
    try:
        return _vault().decrypt(stored.encode()).decode()
    except InvalidToken:
        return None


def _vault() -> MultiFernet:
    herald = settings.HERALD
    return MultiFernet(
        [Fernet(_derive(key.get_secret_value())) for key in (herald.secret_key, *herald.secret_key_fallbacks)]
    )


def _derive(secret: str) -> bytes:
    # A key of its own: what signs cursors must not open second factors.
    derived = HKDF(SHA256(), length=32, salt=None, info=b"herald second factor").derive(secret.encode())
    return base64.urlsafe_b64encode(derived)
