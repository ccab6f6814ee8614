"""Bodies with `items`, each judged alone."""

from __future__ import annotations

from typing import Any

from rest_framework.serializers import BaseSerializer

from auth_service.api.problems import translate
from auth_service.errors import InvalidInput, ServiceError


def read_rows(
    body: Any, shape: type[BaseSerializer[Any]], *, max_count: int
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, ServiceError]]]:
    """The rows that are well-formed, and what is wrong with the others, each with its index.

    Raises:
        InvalidInput: The body holds no list of 1 to `max_count` items.
    """
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not 1 <= len(items) <= max_count:
        raise InvalidInput.of("items", f"must be a list of 1 to {max_count} items")
    good: list[tuple[int, dict[str, Any]]] = []
    refused: list[tuple[int, ServiceError]] = []
    for index, item in enumerate(items):
        row = shape(data=item)
        try:
            row.is_valid(raise_exception=True)
        except Exception as error:
            known = translate(error)
            if not isinstance(known, InvalidInput):
                raise
            refused.append((index, known))
        else:
            good.append((index, dict(row.validated_data)))
    return good, refused
