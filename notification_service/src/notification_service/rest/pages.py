"""Lists in pages: opaque cursors that only the list and the caller they were made for can use."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from notification_service.errors import InvalidCursor

MAX_LIMIT: Final = 200
DEFAULT_LIMIT: Final = 50
_MAC_BYTES: Final = 12
_MAX_LENGTH: Final = 1024

LimitParameter = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Rows of a page.")]
CursorParameter = Annotated[str | None, Field(max_length=_MAX_LENGTH, description="From the page before.")]


class Cursors:
    """Writes and reads cursors. A cursor of another list, another caller, or of nobody, is refused (400)."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"cursors:" + secret.encode()).digest()

    def write(self, scope: str, values: Any) -> str:
        """A cursor that holds these JSON values.

        Args:
            scope: Names the list and whose it is.
        """
        payload = orjson.dumps(values)
        return base64.urlsafe_b64encode(self._sign(scope, payload) + payload).rstrip(b"=").decode()

    def read(self, scope: str, cursor: str | None) -> Any:
        """The values of a cursor; None when there is none.

        Raises:
            InvalidCursor: Not one that was made for this.
        """
        if cursor is None:
            return None
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            payload = raw[_MAC_BYTES:]
            if not hmac.compare_digest(raw[:_MAC_BYTES], self._sign(scope, payload)):
                raise InvalidCursor
            return orjson.loads(payload)
        except (ValueError, binascii.Error):
            raise InvalidCursor from None

    def _sign(self, scope: str, payload: bytes) -> bytes:
        return hmac.digest(self._key, scope.encode() + b"\x00" + payload, "sha256")[:_MAC_BYTES]
