"""Pages of a list, by cursor: constant cost however far one reads, and no row twice or never while rows come and go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.core import signing
from django.db.models import Model, Q
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from typing_extensions import override

from auth_service import clock
from auth_service.errors import InvalidCursor, InvalidInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR_AGE = timedelta(days=1)

_SALT = "auth_service.api.pagination"


@dataclass(frozen=True)
class Ordering:
    """What a list is sorted by. The key always comes last, so that no two rows are equal."""

    field: str
    descending: bool = False
    key: str = "id"

    @classmethod
    def parse(cls, text: str, columns: Mapping[str, str], key: str) -> Ordering:
        """`name`, or `-name` for the other way round."""
        name = text.removeprefix("-")
        return cls(columns.get(name, name), text.startswith("-"), key)

    @property
    def order_by(self) -> tuple[str, ...]:
        """For the database."""
        sign = "-" if self.descending else ""
        return tuple(f"{sign}{name}" for name in self._names)

    def after(self, values: Sequence[Any]) -> Q:
        """Rows behind this one. Written so that an index on the two columns is entered at the right place."""
        word = "lt" if self.descending else "gt"
        if self.field == self.key:
            return Q(**{f"{self.key}__{word}": values[-1]})
        first, last = values
        behind = Q(**{f"{self.field}__{word}": first}) | Q(**{f"{self.key}__{word}": last})
        return Q(**{f"{self.field}__{word}e": first}) & behind

    def values_of(self, row: Model) -> list[Any]:
        """Where a row stands."""
        return [getattr(row, name) for name in self._names]

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.key,) if self.field == self.key else (self.field, self.key)


class CursorPages(BasePagination):
    """`{"items": [...], "next_cursor": ...}`. Views give `orderings`, the allowed words, the default first, and
    `ordering_columns` where a word is not its column's name, and `ordering_key` where rows have no `id`.
    """

    max_limit = MAX_LIMIT

    def __init__(self) -> None:
        self.next_cursor: str | None = None

    @override
    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any]:
        """One page.

        Raises:
            InvalidInput: `limit` or `ordering` is wrong.
            InvalidCursor: Not given by this list, for these filters, to this caller, within a day.
        """
        orderings: Sequence[str] = getattr(view, "orderings", ("id",))
        ordering = Ordering.parse(
            self._read_ordering(request, orderings),
            getattr(view, "ordering_columns", {}),
            getattr(view, "ordering_key", "id"),
        )
        limit = self._read_limit(request)
        scope = self._scope_of(request)
        cursor = request.query_params.get("cursor")
        if cursor:
            queryset = queryset.filter(ordering.after(_open_cursor(cursor, scope)))
        rows = list(queryset.order_by(*ordering.order_by)[: limit + 1])
        if len(rows) > limit:
            rows = rows[:limit]
            self.next_cursor = _make_cursor(ordering.values_of(rows[-1]), scope)
        return rows

    @override
    def get_paginated_response(self, data: Any) -> Response:
        """The page as it is answered."""
        return Response({"items": data, "next_cursor": self.next_cursor})

    @override
    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The page as it is documented."""
        return {
            "type": "object",
            "required": ["items", "next_cursor"],
            "properties": {
                "items": schema,
                "next_cursor": {
                    "type": "string",
                    "nullable": True,
                    "description": "null: this was the last page.",
                    "example": "eyJ2IjpbWyJ1I...",
                },
            },
        }

    @override
    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """`limit`, `cursor` and, where there is a choice, `ordering`."""
        parameters: list[dict[str, Any]] = [
            {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": self.max_limit, "default": DEFAULT_LIMIT},
            },
            {"name": "cursor", "in": "query", "schema": {"type": "string"}, "description": "`next_cursor` of a page."},
        ]
        orderings: Sequence[str] = getattr(view, "orderings", ("id",))
        if len(orderings) > 1:
            choice = {"type": "string", "enum": list(orderings), "default": orderings[0]}
            parameters.append({"name": "ordering", "in": "query", "schema": choice})
        return parameters

    def _read_limit(self, request: Request) -> int:
        text = request.query_params.get("limit", str(DEFAULT_LIMIT))
        limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        if not 1 <= limit <= self.max_limit:
            raise InvalidInput.of("limit", f"must be a whole number from 1 to {self.max_limit}")
        return limit

    def _read_ordering(self, request: Request, allowed: Sequence[str]) -> str:
        text = request.query_params.get("ordering", allowed[0])
        if text not in allowed:
            raise InvalidInput.of("ordering", f"must be one of {', '.join(allowed)}")
        return text

    def _scope_of(self, request: Request) -> str:
        """What a cursor is good for: this list, these filters, this order, this caller."""
        given = request.query_params.lists()
        filters = sorted((name, value) for name, values in given for value in values if name not in _PAGING)
        caller = getattr(request.user, "id", "")
        return hashlib.sha256(f"{request.path.rstrip('/')}?{urlencode(filters)}#{caller}".encode()).hexdigest()[:32]


_PAGING = frozenset({"cursor", "limit"})


class WidePages(CursorPages):
    """For the mirror of the other service."""

    max_limit = 1_000


def _make_cursor(values: Sequence[Any], scope: str) -> str:
    packed = [_pack(value) for value in values]
    return signing.dumps({"v": packed, "s": scope, "t": clock.timestamp_s()}, salt=_SALT, compress=False)


def _open_cursor(cursor: str, scope: str) -> list[Any]:
    try:
        content = signing.loads(cursor, salt=_SALT)
        age_s = clock.timestamp_s() - content["t"]
        if content["s"] != scope or age_s > MAX_CURSOR_AGE.total_seconds():
            raise InvalidCursor
        return [_unpack(value) for value in content["v"]]
    except (signing.BadSignature, ValueError, KeyError, TypeError):
        raise InvalidCursor from None


def _pack(value: Any) -> list[str]:
    match value:
        case datetime():
            return ["t", value.isoformat()]
        case UUID():
            return ["u", str(value)]
        case _:
            return ["s", str(value)]


def _unpack(packed: list[str]) -> Any:
    kind, text = packed
    match kind:
        case "t":
            return datetime.fromisoformat(text)
        case "u":
            return UUID(text)
        case _:
            return text
