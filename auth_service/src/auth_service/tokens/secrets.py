"""Random secrets that are handed out once and kept as a hash (requirement A17)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

MAX_SECRET_LENGTH = 512
"""Characters of a secret that are looked at; ours have 47. Longer ones are no secret of ours."""


def make_secret(prefix: str) -> str:
    """A new secret of 256 random bits. The prefix lets scanners find one that leaked."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """What is stored. Plain SHA-256 is enough: there is nothing to guess in 256 random bits (ADR 0024)."""
    return hashlib.sha256(secret[:MAX_SECRET_LENGTH].encode(errors="replace")).hexdigest()


def is_secret(given: str, stored_hash: str) -> bool:
    """Whether a given secret has this hash, in constant time."""
    return hmac.compare_digest(hash_secret(given), stored_hash)


def derive_secret(prefix: str, *, key: str, parent: str, salt: str) -> str:
    """A secret that follows from another one, from a salt kept in the database and from a key kept outside it.

    All three are needed. It lets a lost answer be given again without storing what was in it.
    """
    digest = hmac.new(key.encode(), f"{salt}\x00{parent}".encode(errors="replace"), hashlib.sha256).digest()
    return f"{prefix}_{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
