"""Transactions that are worth a second try."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import IntegrityError, OperationalError
from psycopg.errors import DeadlockDetected

from auth_service.errors import Conflict

_P = ParamSpec("_P")
_R = TypeVar("_R")

_TRIES = 3


def repeated(work: Callable[_P, _R]) -> Callable[_P, _R]:
    """Do a whole transaction again when what it refers to went away, or came, before it could commit.

    References are checked at the commit: whoever adds a row for a user who is being erased at that moment, or erases a
    user for whom a row is being added, learns of it there. Of two that wait for each other PostgreSQL ends one. The
    next try sees what the other one left.

    Raises:
        Conflict: After three tries.
    """

    @wraps(work)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for _ in range(_TRIES):
            try:
                return work(*args, **kwargs)
            except IntegrityError:
                continue
            except OperationalError as error:
                if not isinstance(error.__cause__, DeadlockDetected):
                    raise
        raise Conflict("Others are changing the same thing. Try again.")

    return call
