"""What the notification service holds about a user, for the export: asked for with the internal key, kept in a file."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator
from typing import IO, Final
from urllib import request as urllib_request
from urllib.error import URLError
from uuid import UUID

import structlog
from django.conf import settings

from auth_service.api.correlation import get_correlation_id
from auth_service.errors import Unavailable
from auth_service.internal_api.keys import get_internal_keys
from shared_contracts.headers import CORRELATION_ID, INTERNAL_KEY

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 512 * 1024 * 1024
"""A mailbox of 10,000 items of 40 KiB each. More than that is answered with 503: somebody should look at it."""

_IN_MEMORY_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
# Between two reads, not for the whole: a long export takes as long as it takes.
_READ_LIMIT_S: Final = 10.0

# Environment proxies are for the world outside, not for Herald's own services.
_opener = urllib_request.build_opener(urllib_request.ProxyHandler({}))


def fetch_foreign_export(user_id: UUID) -> IO[bytes]:
    """A JSON object in a file, at its beginning. Complete: nothing of it is answered before all of it is here.

    Raises:
        Unavailable: The notification service does not answer, or not to the end.
    """
    keys = get_internal_keys()
    url = f"{settings.HERALD.notification_url.rstrip('/')}/internal/v1/users/{user_id}/export"
    wanted = urllib_request.Request(  # noqa: S310 - the scheme is checked where the setting is read
        url, headers={INTERNAL_KEY: keys[0] if keys else "", CORRELATION_ID: get_correlation_id()}
    )
    kept: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115 - `join` closes it
    try:
        with _opener.open(wanted, timeout=_READ_LIMIT_S) as answer:
            length = 0
            while chunk := answer.read(_CHUNK_BYTES):
                length += len(chunk)
                if length > MAX_BYTES:
                    raise ValueError("too long")  # noqa: TRY301 - one way out for all that goes wrong here
                kept.write(chunk)
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:
        kept.close()
        log.warning("foreign_export_failed", user_id=str(user_id), problem=f"{type(error).__name__}: {error}")
        raise Unavailable(
            "The notification service does not answer, and an export holds what it knows too. Try again soon."
        ) from error
    kept.seek(0)
    return kept


def join(own: bytes, name: str, foreign: IO[bytes]) -> Iterator[bytes]:
    """The own object with the other one in it under this name; closes the file."""
    with foreign:
        yield own.removesuffix(b"}") + f',"{name}":'.encode()
        while chunk := foreign.read(_CHUNK_BYTES):
            yield chunk
        yield b"}"
