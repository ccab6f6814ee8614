"""The internal service key: how Herald's services know each other."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from rest_framework.request import Request
from typing_extensions import override

from auth_service.api.client_address import get_client_address
from auth_service.config.environment import MIN_INTERNAL_KEY_LENGTH
from auth_service.errors import ServiceError
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import check_below, do_count_within
from shared_contracts.error_codes import ErrorCode
from shared_contracts.headers import INTERNAL_KEY

_RECHECK_S = 1.0


class WrongInternalKey(ServiceError):
    """The internal service key is missing or wrong."""

    code, status = ErrorCode.NOT_AUTHENTICATED, 401
    detail = "The internal service key is missing or wrong."

    @override
    @property
    def headers(self) -> dict[str, str]:
        """Names the header, as RFC 9110 wants every 401 to name a way in."""
        return {"WWW-Authenticate": f'InternalKey realm="herald", header="{INTERNAL_KEY}"'}


class KeyFile:
    """Keys in a file, separated by commas or lines; read again when it changes (A27)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamp: tuple[Path, int, int] | None = None
        self._keys: tuple[str, ...] = ()
        self._checked_s = float("-inf")

    def load(self, path: Path) -> tuple[str, ...]:
        """The keys as of the last second; none when the file is gone or holds a short one."""
        with self._lock:
            if time.monotonic() - self._checked_s < _RECHECK_S and self._stamp and self._stamp[0] == path:
                return self._keys
            self._checked_s = time.monotonic()
            try:
                status = path.stat()
                stamp = (path, status.st_mtime_ns, status.st_ino)
                if stamp != self._stamp:
                    keys = tuple(path.read_text().replace(",", " ").split())
                    self._keys = keys if all(len(key) >= MIN_INTERNAL_KEY_LENGTH for key in keys) else ()
                    self._stamp = stamp
            except OSError:
                self._keys, self._stamp = (), None
            return self._keys


_file = KeyFile()


def get_internal_keys() -> Sequence[str]:
    """Every key that is accepted now."""
    path = settings.HERALD.internal_service_key_file
    return _file.load(path) if path is not None else settings.HERALD.internal_keys


def is_internal_key(given: str | None) -> bool:
    """Whether this is one of the keys; takes as long for each of them, and for none."""
    shown = (given or "").encode(errors="replace")
    matches = [hmac.compare_digest(shown, key.encode()) for key in get_internal_keys()]
    return any(matches)


def check_internal_key(request: Request) -> None:
    """Let Herald's services through.

    Raises:
        WrongInternalKey: Missing or wrong. A user's token does not count here.
        RateLimited: Wrong too often from this address. The right key is never limited.
    """
    if is_internal_key(request.headers.get(INTERNAL_KEY)):
        return
    use = limits.wrong_internal_key(get_client_address(request._request))  # noqa: SLF001 - Django's own request
    check_below(use)
    do_count_within(use)
    raise WrongInternalKey
