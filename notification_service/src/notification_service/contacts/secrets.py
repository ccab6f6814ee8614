"""Encryption of addresses and secrets of contacts at rest (Fernet: AES-128-CBC with HMAC-SHA-256)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_PURPOSE = b"herald contacts"


class Unreadable(Exception):
    """A value was encrypted with a key that is not configured any more."""


class SecretBox:
    """Seals with the first key, opens with any: keys are rotated by putting a new one in front."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(_derive(key)) for key in keys])

    def seal(self, value: str) -> str:
        """Encrypt."""
        return self._fernet.encrypt(value.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt.

        Raises:
            Unreadable: No configured key fits.
        """
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise Unreadable("no configured key opens this contact") from None


def _derive(key: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.sha256(_PURPOSE + b"\x00" + key.encode()).digest())
