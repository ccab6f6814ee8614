"""Checked text and JSON: what every store, queue and browser on the way can hold."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator

MAX_JSON_DEPTH = 32
_INT64 = range(-(2**63), 2**63)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_text(value: str) -> str:
    """Refuse what PostgreSQL (NUL) or UTF-8 (lone surrogates) cannot hold.

    Raises:
        ValueError: The text holds such a character.
    """
    if "\x00" in value:
        raise ValueError("must not contain NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain lone surrogates") from None
    return value


def check_line(value: str) -> str:
    """Text on one line: no control characters, so that it cannot add a header or a log line.

    Raises:
        ValueError: The text holds a control character.
    """
    if _CONTROL.search(value):
        raise ValueError("must be one line without control characters")
    return check_text(value)


def check_json(value: Any) -> Any:
    """Refuse JSON that some reader on the way would refuse or change: too deep, not finite, beyond 64 bits, NUL.

    Raises:
        ValueError: Says what is wrong.
    """
    waiting = [(value, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_JSON_DEPTH} levels")
        match node:
            case dict():
                for key, item in node.items():
                    check_text(key)
                    waiting.append((item, depth + 1))
            case list():
                waiting.extend((item, depth + 1) for item in node)
            case _:
                _check_scalar(node)
    return value


def _check_scalar(value: Any) -> None:
    match value:
        case str():
            check_text(value)
        case bool() | None:
            pass
        case int():
            if value not in _INT64:
                raise ValueError("whole numbers must fit in 64 bits")
        case float():
            if not math.isfinite(value):
                raise ValueError("numbers must be finite")
        case _:
            raise ValueError(f"{type(value).__name__} is not JSON")


Text = Annotated[str, AfterValidator(check_text)]
"""Any text, several lines allowed."""

Line = Annotated[str, AfterValidator(check_line)]
"""Text on one line."""

JsonObject = Annotated[dict[str, Any], AfterValidator(check_json)]
"""A JSON object that every store can hold."""
