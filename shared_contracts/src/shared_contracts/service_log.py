"""Logging of every Herald process: one line per event, the process's name in it, no secret in it.

`HERALD_LOG_FORMAT` is `text` (default in development: time, level, process, event, key=value) or `json` (default in
production). Libraries that use the standard library's logging come out in the same form.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

MAX_VALUE_LENGTH: Final = 2_000
"""Characters of one value; the rest is cut, so that no caller can flood the log."""

_MASK: Final = "[masked]"
_SECRET_KEYS = re.compile(
    r"(?:^|_)(?:password|passwd|secret|token|access|refresh|ticket|otp|authorization|cookie|api_?key|internal_?key|"
    r"credentials?)(?:$|_)",
    re.IGNORECASE,
)
# Names that hold a secret's word but no secret.
_HARMLESS_KEYS = frozenset({"token_use", "token_type", "secret_name", "token_kind"})
_SECRET_TEXT = (
    # A JWS: three base64url parts, the first of which is a JSON object.
    (re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), _MASK),
    # What follows the name of a secret in a query string or a header.
    (re.compile(r"(?i)\b(ticket|token|access_token|password|secret)=([^&\s\"']+)"), r"\1=" + _MASK),
    (re.compile(r"(?i)\b(bearer[ .])[A-Za-z0-9._~+/=-]{8,}"), r"\1" + _MASK),
    # Credentials in a URL.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^:/@\s]*:)[^@/\s]+@"), r"\1" + _MASK + "@"),
)

EventDict = MutableMapping[str, Any]
LogFormat = Literal["text", "json"]


def configure_logging(process: str, *, level: str = "INFO", log_format: LogFormat | None = None) -> None:
    """Set up logging of this process. Call once, before anything logs.

    Args:
        process: Short name in every line, for example `gateway`.
        level: Of Herald's own events. Libraries stay at WARNING, or follow when it is DEBUG.
        log_format: None reads `HERALD_LOG_FORMAT`, else decides by `HERALD_ENV`.
    """
    production = os.environ.get("HERALD_ENV") == "production"
    chosen = log_format or os.environ.get("HERALD_LOG_FORMAT") or ("json" if production else "text")
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Named(process),
        fold_exception,
        mask_secrets,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render_json if chosen == "json" else render_text,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    # It logs every failed connection as an error of its own, beside the line its caller writes.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    # It writes every statement with its values, and those are people's.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    for name in ("auth_service", "notification_service", "shared_contracts"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=True)


class _Named:
    """Adds the process's name and number to every event."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        event["process"] = self._process
        event["pid"] = os.getpid()
        return event


def fold_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Turn a traceback into one value, so that an error stays one line."""
    info = event.pop("exc_info", None)
    if not info:
        return event
    if isinstance(info, BaseException):
        error: BaseException | None = info
    else:
        error = (info if isinstance(info, tuple) else sys.exc_info())[1]
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error))[-4 * MAX_VALUE_LENGTH :]
    return event


def mask_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace secrets by name and by shape, and cut long values (requirements G01, G02)."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key) and key not in _HARMLESS_KEYS and value is not None:
            event[key] = _MASK
        elif isinstance(value, str):
            event[key] = mask_text(value, limit=4 * MAX_VALUE_LENGTH if key == "exception" else MAX_VALUE_LENGTH)
        elif isinstance(value, (dict, list, tuple, bytes)):
            event[key] = mask_text(str(value))
    return event


def mask_text(text: str, *, limit: int = MAX_VALUE_LENGTH) -> str:
    """The text without anything that looks like a token, a ticket or credentials, cut to `limit` characters."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text)} characters)"
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return text


def render_text(_logger: Any, _method: str, event: EventDict) -> str:
    """One line for a person. Control characters are escaped, so that no value can forge a line or a colour."""
    head = f"{event.pop('timestamp', '')} {event.pop('level', ''):<7} {event.pop('process', ''):<9}"
    event.pop("pid", None)
    name = _one_line(str(event.pop("event", "")))
    return f"{head} {name}" + "".join(f" {key}={_value(value)}" for key, value in event.items())


def render_json(_logger: Any, _method: str, event: EventDict) -> str:
    """One JSON object for a machine."""
    return json.dumps(event, default=str, ensure_ascii=True)


def _value(value: Any) -> str:
    text = str(value)
    if text and all(character.isprintable() and character not in ' "=' for character in text):
        return text
    return json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
