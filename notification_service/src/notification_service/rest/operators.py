"""Pages for operators and developers: open in development, in production only with the internal key."""

from __future__ import annotations

import hmac

from fastapi import Request

from notification_service.errors import NotAuthenticated
from notification_service.settings import Environment, Settings
from shared_contracts.headers import INTERNAL_KEY


class OperatorsOnly:
    """A dependency of such a page's route."""

    def __init__(self, settings: Settings) -> None:
        self._is_open = settings.environment is not Environment.PRODUCTION
        self._keys = tuple(key.encode() for key in settings.internal_keys)

    async def __call__(self, request: Request) -> None:
        """Let the request through.

        Raises:
            NotAuthenticated: In production, without the key.
        """
        given = request.headers.get(INTERNAL_KEY, "").encode()
        if not self._is_open and not any(hmac.compare_digest(given, known) for known in self._keys):
            raise NotAuthenticated("this page needs the internal key")
