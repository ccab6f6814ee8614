"""Types of fields in bodies and parameters: what the documents say, and nothing that could be read as it.

Pydantic takes 0 for false, "5" for 5 and 0.5 for a moment of 1970. Whoever sends that has mixed two fields up.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, Strict

_RFC_3339_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _check_flag_text(value: Any) -> Any:
    if isinstance(value, bool) or value is None or value in ("true", "false"):
        return value
    raise ValueError("must be true or false")


def _check_number(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        # ValueError, as for the others: pydantic makes an error of the field of it.
        raise ValueError("must be a number")  # noqa: TRY004
    return value


def _check_moment(value: Any) -> Any:
    if isinstance(value, datetime) or value is None or (isinstance(value, str) and _RFC_3339_DATE.match(value)):
        return value
    raise ValueError("must be a time as in RFC 3339, for example 2026-01-02T03:04:05Z")


Flag = Annotated[bool, Strict()]
"""In a body: true or false."""

FlagParameter = Annotated[bool, BeforeValidator(_check_flag_text)]
"""In a query, and where a body says the same as a query: true or false."""

Whole = Annotated[int, BeforeValidator(_check_number)]
"""In a body: a whole number. JSON knows one kind of number, so 5.0 is one."""

Moment = Annotated[AwareDatetime, BeforeValidator(_check_moment)]
"""A time as in RFC 3339, with its offset."""
