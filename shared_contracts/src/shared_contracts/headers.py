"""Names of the headers Herald sets and reads, over HTTP and over AMQP."""

from __future__ import annotations

import re
from typing import Final

from shared_contracts.ids import new_id

# HTTP
CORRELATION_ID: Final = "X-Correlation-Id"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
INTERNAL_KEY: Final = "X-Internal-Key"
SIGNATURE: Final = "X-Herald-Signature"

# AMQP
TRACEPARENT: Final = "traceparent"
SEQ: Final = "x-herald-seq"
"""The place of a frame in its user's stream, so that a gateway need not parse the body."""
TENANT: Final = "x-herald-tenant"
"""Whose broadcast a frame on `delivery.fanout` is."""
SENDER_ID: Final = "x-herald-sender-id"
SENDER_NAME: Final = "x-herald-sender-name"
"""Set by Herald's REST API on what it hands to the intake in a user's or service account's name."""
ACCEPTED_AT: Final = "x-herald-accepted-at"
"""When the REST API accepted it (RFC 3339), so that a notification has one age wherever it is read."""
ATTEMPT: Final = "x-herald-attempt"
"""How often this was tried. RabbitMQ's own `x-death` is ignored on re-publish from 4.0 on."""
EPHEMERAL: Final = "x-herald-ephemeral"
"""Present on live events that are never stored and carry no `seq`."""

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._~-]{8,64}")


def correlation_id_from(value: str | None) -> str:
    """The caller's correlation id when it is 8 to 64 plain characters, else a new one."""
    if value is not None and _CORRELATION_ID.fullmatch(value):
        return value
    return new_id().hex
