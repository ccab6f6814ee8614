"""JSON bodies, read strictly: what some store, queue or browser on the way could not hold is refused here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any, Final, NoReturn
from urllib.parse import parse_qsl

from django.conf import settings
from rest_framework.parsers import BaseParser
from typing_extensions import override

from auth_service.errors import BadRequest, InvalidJson, TooLarge
from shared_contracts.text import MAX_JSON_DEPTH

_MAX_FORM_FIELDS: Final = 20


class StrictJsonParser(BaseParser):
    """Reads application/json.

    Of two members with the same name the last counts, in both services (E05). Numbers beyond 64 bits or not finite, and
    nesting deeper than 32 levels, are refused (E03). Text is judged by the fields it is meant for (E04).
    """

    media_type = "application/json"

    @override
    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Read one body.

        Raises:
            TooLarge: Longer than the limit; the rest is not read.
            InvalidJson: Not JSON, or not JSON that every part of Herald can hold.
        """
        limit = settings.HERALD.max_body_bytes
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise TooLarge
        try:
            value = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise InvalidJson from None
        _check_shape(value)
        return value


class StrictFormParser(BaseParser):
    """Reads application/x-www-form-urlencoded, where a standard names it: RFC 7009 and RFC 7662."""

    media_type = "application/x-www-form-urlencoded"

    @override
    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """Read one form; of two members with the same name the last counts, as in JSON.

        Raises:
            TooLarge: Longer than the limit; the rest is not read.
            BadRequest: Not a form.
        """
        limit = settings.HERALD.max_body_bytes
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise TooLarge
        try:
            pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FORM_FIELDS, errors="strict")
        except ValueError:
            raise BadRequest("The body is not a form.") from None
        return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _check_shape(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_JSON_DEPTH:
            raise InvalidJson(f"The body is nested deeper than {MAX_JSON_DEPTH} levels.")
        match node:
            case dict():
                waiting.extend((inner, depth + 1) for inner in node.values())
            case list():
                waiting.extend((inner, depth + 1) for inner in node)
            case bool():
                pass
            case int() if not -(2**63) <= node < 2**63:
                raise InvalidJson("A number does not fit in 64 bits.")
            case float() if not math.isfinite(node):
                raise InvalidJson("A number is not finite.")
