"""Bodies with `items`, each judged alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction
from rest_framework import serializers
from typing_extensions import override

from auth_service.api.problems import translate
from auth_service.errors import InvalidInput, ServiceError


class RowError(serializers.Serializer[Any]):
    """One thing wrong with one field of an item."""

    field = serializers.CharField()
    message = serializers.CharField()


class RowsField(serializers.ListField):
    """1 to `max_count` items of a shape. Whatever an item is, the call is answered: its outcome says what is wrong."""

    def __init__(self, shape: type[serializers.Serializer[Any]], *, max_count: int, **kwargs: Any) -> None:
        super().__init__(min_length=1, max_length=max_count, **kwargs)
        self.shape = shape


class RowsFieldSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Shows the shape in the OpenAPI document, and that an item of another shape does not fail the call."""

    target_class = RowsField

    @override
    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """The field as JSON Schema."""
        row = auto_schema.resolve_serializer(self.target.shape, direction).ref
        items = {"anyOf": [row, {"description": "Anything else: refused in its outcome."}]}
        return {"type": "array", "minItems": 1, "maxItems": self.target.max_length, "items": items}


def read_rows(
    items: Sequence[Any], shape: type[serializers.Serializer[Any]]
) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, ServiceError]]]:
    """The rows that are well-formed, and what is wrong with the others, each with its index."""
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


def make_refused_row(index: int, error: ServiceError) -> dict[str, Any]:
    """The outcome of an item that was refused."""
    row = {"index": index, "status": error.status, "code": error.code, "detail": str(error)}
    errors = [each.model_dump() for each in error.errors]
    return {**row, "errors": errors} if errors else row
