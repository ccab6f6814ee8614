"""The signature of a webhook: `X-Herald-Signature: t=<unix>,v1=<hex HMAC-SHA256 of "t.body">`. Pure.

While a secret is rotated there are two, and a `v1` for each; a receiver accepts any that fits one of its own.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

_MOMENT: Final = re.compile("[0-9]{1,12}")
TOLERANCE: Final = timedelta(seconds=300)
"""How old a signature may be before a receiver should refuse it as replayed."""


def sign(body: bytes, secrets: Sequence[str], now: datetime) -> str:
    """The header's value."""
    moment = int(now.timestamp())
    return ",".join([f"t={moment}", *(f"v1={_digest(moment, body, secret)}" for secret in secrets)])


def is_genuine(header: str, body: bytes, secret: str, now: datetime, *, tolerance: timedelta = TOLERANCE) -> bool:
    """What a receiver checks: some signature fits, and it is recent."""
    parts = [part.split("=", 1) for part in header.split(",") if "=" in part]
    moments = [value for name, value in parts if name == "t" and _MOMENT.fullmatch(value)]
    if len(moments) != 1 or abs(now.timestamp() - int(moments[0])) > tolerance.total_seconds():
        return False
    expected = _digest(int(moments[0]), body, secret)
    return any(hmac.compare_digest(expected.encode(), value.encode()) for name, value in parts if name == "v1")


def _digest(moment: int, body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), b"%d.%b" % (moment, body), "sha256").hexdigest()
