"""A compact JWS taken apart (RFC 7515, sections 3.1 and 5.2), strictly and before anything is verified."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Final

MAX_TOKEN_LENGTH = 8_192
"""Characters; ours have about 900. Longer ones are refused unread."""

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# What the last character of a part may be, by the part's length modulo four: its spare bits are zero. One character
# alone is no number of bytes.
_LAST: Final = (None, "", "AQgw", "AEIMQUYcgkosw048")


@dataclass(frozen=True, slots=True)
class Jws:
    """One token; nothing in it is verified.

    Attributes:
        header: The protected header.
        signing_input: What the signature is of.
    """

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def read_jws(token: str) -> Jws | None:
    """Take a token apart; None: too long, not three parts of base64url, or its header no JSON object.

    Decoders skip foreign characters and ignore the last character's spare bits, so that several texts are one token to
    them. For revocation lists, caches and logs one token must be one text: any other spelling is refused.
    """
    if len(token) > MAX_TOKEN_LENGTH or _FORM.fullmatch(token) is None:
        return None
    parts = token.split(".")
    if not all(map(_has_one_spelling, parts)):
        return None
    raw_header, payload, signature = map(_decode, parts)
    try:
        header = json.loads(raw_header)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    return Jws(header, payload, token[: -len(parts[2]) - 1].encode(), signature)


def _has_one_spelling(part: str) -> bool:
    last = _LAST[len(part) % 4]
    return last is None or part[-1] in last


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
