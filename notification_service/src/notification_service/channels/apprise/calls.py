"""What Apprise's own HTTP calls came to. Apprise says only yes or no; whether an attempt may be made again depends on
why it said no, and the answer, or the error, of its calls tells.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, Final

import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

from notification_service.channels.http.channel import classify_http_error
from notification_service.channels.http.client import Answer, HttpStatus, lower_names
from notification_service.channels.interface import Failure, FailureKind
from shared_contracts.error_codes import Reason

Result = Answer | Exception
"""Of one call."""

_SILENT: Final = Failure(
    FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, "the service did not take it, and does not say why"
)
_PARTLY: Final = Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, "the service took a part of it")


class _Here(threading.local):
    """The calls of this thread; None: nobody asks."""

    calls: list[Result] | None = None


_here: Final = _Here()


@contextlib.contextmanager
def recorded_calls() -> Iterator[list[Result]]:
    """Every HTTP call that this thread makes through `requests` until the block ends."""
    before, _here.calls = _here.calls, []
    try:
        yield _here.calls
    finally:
        _here.calls = before


def _watch(send: Any) -> Any:
    @wraps(send)
    def watched(*arguments: Any, **options: Any) -> Any:
        calls = _here.calls
        try:
            response = send(*arguments, **options)
        except Exception as error:
            if calls is not None:
                calls.append(error)
            raise
        if calls is not None:
            calls.append(Answer(response.status_code, lower_names(response.headers), b""))
        return response

    return watched


# Apprise's services call the functions of `requests`, which make a session each: there is no other place to stand.
requests.Session.send = _watch(requests.Session.send)  # type: ignore[method-assign]


def classify_calls(calls: Sequence[Result], *, now: datetime) -> Failure:
    """Why Apprise said no. Pure.

    Where any part was taken, or may have been, nobody knows: Apprise would send the whole again.
    """
    if not calls:
        return _SILENT
    if any(isinstance(each, Answer) and each.status < 300 for each in calls):
        return _PARTLY
    failures = [_classify(each, now) for each in calls]
    return next((each for each in failures if each.kind is FailureKind.UNKNOWN), failures[-1])


def _classify(call: Result, now: datetime) -> Failure:
    if isinstance(call, Answer):
        return classify_http_error(HttpStatus(call), now=now, gone=frozenset())
    detail = f"the connection could not be made ({type(call).__name__})"
    if _was_never_connected(call):
        return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)
    detail = f"the connection was lost ({type(call).__name__})"
    return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, detail, blames_provider=True)


def _was_never_connected(error: Exception) -> bool:
    if isinstance(error, requests.ConnectTimeout):
        return True
    inner = error.args[0] if error.args else None
    cause = inner.reason if isinstance(inner, MaxRetryError) else inner
    return isinstance(cause, NewConnectionError | ConnectTimeoutError)
