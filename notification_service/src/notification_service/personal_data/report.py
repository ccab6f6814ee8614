"""Signed reports of erasures: a JWS that anybody can check with this installation's public keys, years later too.

The keys are made from the internal service keys, so that there is no further secret to keep: Ed25519 (RFC 8037) from
HKDF (RFC 5869). Pure.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

REPORT_TYPE: Final = "herald-erasure-report+jwt"
"""The `typ` of the header, so that no report passes for another token (RFC 8725, section 3.11)."""

_PURPOSE: Final = b"herald erasure report v1"


class ReportSigner:
    """Signs with the first key, and names the public parts of all.

    Args:
        secrets: The internal service keys, the one in use first.
        issuer: Who says so, for the claim `iss`.
    """

    def __init__(self, secrets: Sequence[str], issuer: str) -> None:
        self._secrets = tuple(secrets)
        self._issuer = issuer

    @cached_property
    def _keys(self) -> list[tuple[Ed25519PrivateKey, dict[str, str]]]:
        keys = [
            Ed25519PrivateKey.from_private_bytes(HKDF(SHA256(), 32, None, _PURPOSE).derive(secret.encode()))
            for secret in self._secrets
        ]
        return [(key, _describe(key)) for key in keys]

    @property
    def public_keys(self) -> dict[str, list[dict[str, str]]]:
        """A JWK set (RFC 7517)."""
        return {"keys": [described for _, described in self._keys]}

    def sign(self, report: Mapping[str, Any], *, user_id: str, now: datetime) -> str:
        """The report as a compact JWS.

        Args:
            report: Its further claims.
            user_id: For the claim `sub`.
            now: For the claim `iat`.
        """
        key, described = self._keys[0]
        claims = {"iss": self._issuer, "sub": user_id, "iat": int(now.timestamp()), **report}
        return jwt.encode(claims, key, algorithm="EdDSA", headers={"typ": REPORT_TYPE, "kid": described["kid"]})


def _describe(key: Ed25519PrivateKey) -> dict[str, str]:
    public = _encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    # RFC 7638: the required members, in the order of their names.
    required = {"crv": "Ed25519", "kty": "OKP", "x": public}
    return {**required, "alg": "EdDSA", "use": "sig", "kid": _encode(hashlib.sha256(orjson.dumps(required)).digest())}


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
