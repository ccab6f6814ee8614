"""Reading an upgrade request: may this origin connect, and which way does it authenticate. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from pydantic import ValidationError

from shared_contracts.error_codes import ErrorCode
from shared_contracts.ws.frames import BEARER_SUBPROTOCOL_PREFIX, SUBPROTOCOL, AckMode, Hello

PATHS: Final = frozenset({"/ws", "/ws/"})
_MAX_PATH_LENGTH: Final = 4096
_TOKEN_PARAMETERS: Final = frozenset({"token", "access_token", "jwt", "authorization", "bearer"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answer with this status instead of an upgrade."""

    status: HTTPStatus
    code: ErrorCode
    detail: str


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An upgrade that may go on.

    Attributes:
        hello: Stands for the `hello` frame when the request authenticated; None: the frame must follow.
        ticket: To be redeemed for claims, in place of a token.
        subprotocol: To be selected.
    """

    hello: Hello | None
    ticket: str | None
    subprotocol: str | None


@dataclass(frozen=True, slots=True)
class OriginRule:
    """Which origins may connect; compared whole."""

    allowed: frozenset[str]
    allow_missing: bool

    def permits(self, origin: str | None) -> bool:
        """Whether a request with this Origin header may go on."""
        return self.allow_missing if origin is None else origin in self.allowed


def read_upgrade(
    target: str,
    *,
    origins: Sequence[str],
    authorization: Sequence[str],
    offered_subprotocols: Iterable[str],
    rule: OriginRule,
) -> Upgrade | Refusal:
    """Decide about an upgrade request (contract section 5, ways (a) to (d)).

    Args:
        target: Path and query as sent.
        origins: All Origin headers.
        authorization: All Authorization headers.
        offered_subprotocols: In the client's order.
        rule: Of this server.
    """
    path, _, query = target.partition("?")
    if path not in PATHS:
        return Refusal(HTTPStatus.NOT_FOUND, ErrorCode.NOT_FOUND, "WebSockets are served at /ws")
    if len(origins) > 1 or not rule.permits(origins[0] if origins else None):
        return Refusal(HTTPStatus.FORBIDDEN, ErrorCode.PERMISSION_DENIED, "this origin is not allowed")
    if len(query) > _MAX_PATH_LENGTH:
        return Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, ErrorCode.TOO_LARGE, "the query is too long")
    try:
        parameters = parse_qs(query, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return Refusal(HTTPStatus.BAD_REQUEST, ErrorCode.BAD_REQUEST, "the query cannot be read")
    if _TOKEN_PARAMETERS & {name.lower() for name in parameters}:
        # It would end in logs of every proxy on the way (RFC 6750, section 5.3).
        detail = "tokens are not taken from the query; use a ticket"
        return Refusal(HTTPStatus.BAD_REQUEST, ErrorCode.BAD_REQUEST, detail)
    offered = list(offered_subprotocols)
    token = _find_token(authorization, offered)
    ticket = parameters.get("ticket", [None])[0]
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
    if token is None and ticket is None:
        return Upgrade(None, None, subprotocol)
    try:
        hello = Hello(
            token=token or "ticket",
            device_id=_first(parameters, "device_id"),
            position=_first(parameters, "position"),
            ack=AckMode(_first(parameters, "ack") or AckMode.CLIENT),
        )
    except (ValidationError, ValueError):
        return Refusal(HTTPStatus.BAD_REQUEST, ErrorCode.BAD_REQUEST, "device_id, position or ack cannot be used")
    return Upgrade(hello, ticket if token is None else None, subprotocol)


def _find_token(authorization: Sequence[str], offered: Sequence[str]) -> str | None:
    if authorization:
        scheme, _, token = authorization[0].partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None
    for name in offered:
        if name.startswith(BEARER_SUBPROTOCOL_PREFIX):
            return name.removeprefix(BEARER_SUBPROTOCOL_PREFIX) or None
    return None


def _first(parameters: dict[str, list[str]], name: str) -> str | None:
    return parameters[name][0] or None if name in parameters else None
