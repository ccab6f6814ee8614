"""An event type as the stages use it, and what a tenant set about all of its types. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

import jsonschema_rs

from notification_service.preferences.evaluate import TypeRules
from shared_contracts.requests import DEFAULT_EVENT_TYPE, Channel, Priority

EVERY_TENANT: Final = "*"
"""Under this tenant stands what is built in."""

MAX_SCHEMA_ERRORS: Final = 20
_MAX_MESSAGE_LENGTH: Final = 300


@dataclass(frozen=True, eq=False)
class EventType:
    """One row; `tenant` is `*` for built-in types. Each is one object while the configuration is the same."""

    tenant: str
    code: str
    name: str
    description: str = ""
    category: str | None = None
    channels: tuple[Channel, ...] | None = None
    default_enabled: bool = True
    mandatory: bool = False
    priority: Priority = Priority.NORMAL
    is_active: bool = True
    data_schema: dict[str, Any] | None = None
    retention_days: int | None = None
    throttle: Mapping[str, Any] | None = None
    digest: Mapping[str, Any] | None = None
    escalation: Mapping[str, Any] | None = None
    version: int = 1

    @cached_property
    def rules(self) -> TypeRules:
        """What preferences are evaluated against."""
        return TypeRules(self.code, self.category, self.mandatory, self.default_enabled, self.digest)

    @property
    def steps(self) -> Sequence[Mapping[str, Any]]:
        """The escalation plan: `after_seconds` and `channels` of each step."""
        found: Sequence[Mapping[str, Any]] = (self.escalation or {}).get("steps", ())
        return found

    @cached_property
    def _validator(self) -> Any:
        return make_validator(self.data_schema) if self.data_schema is not None else None

    def check_data(self, data: dict[str, Any]) -> list[tuple[str, str]]:
        """What is wrong with a request's data, as (field, sentence); at most 20."""
        if self._validator is None:
            return []
        problems = []
        for error in self._validator.iter_errors(data):
            path = ".".join(("data", *(str(part) for part in error.instance_path)))
            problems.append((path, str(error.message)[:_MAX_MESSAGE_LENGTH]))
            if len(problems) == MAX_SCHEMA_ERRORS:
                break
        return problems


PLAIN_MESSAGE: Final = EventType(tenant=EVERY_TENANT, code=DEFAULT_EVENT_TYPE, name="Message")
"""What a notification without an event type is."""


def make_validator(schema: dict[str, Any]) -> Any:
    """A compiled JSON Schema (draft 2020-12 unless it names another).

    References leave the document for nowhere, and patterns are matched in linear time: schemas come from users.

    Raises:
        ValueError: It is no valid schema.
    """
    try:
        return jsonschema_rs.validator_for(
            schema, retriever=_refuse_reference, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(f"is not a valid JSON Schema: {str(error).splitlines()[0][:200]}") from None


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"references to other documents are not followed: {uri}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a tenant set about all of its notifications."""

    default_locale: str = "en"
    unknown_event_types: Literal["refuse", "create"] = "refuse"
    branding: dict[str, Any] = field(default_factory=dict)
    html_layout: str | None = None
