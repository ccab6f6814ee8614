"""What templates can name: `data`, `user`, `tenant`, `event_type`. Pure."""

from __future__ import annotations

from typing import Any

from notification_service.event_types.entity import EventType, Settings
from notification_service.identity.directory import Person


def describe_user(person: Person | None) -> dict[str, Any]:
    """The `user` of a template."""
    if person is None:
        return {}
    return {
        "id": str(person.id),
        "username": person.username,
        "email": person.email,
        "locale": person.locale,
        "timezone": person.timezone,
    }


def describe_tenant(slug: str, settings: Settings) -> dict[str, Any]:
    """The `tenant` of a template: its branding, and a name in any case."""
    return {"name": slug, **settings.branding, "slug": slug}


def describe_type(type_: EventType) -> dict[str, Any]:
    """The `event_type` of a template."""
    return {
        "code": type_.code,
        "name": type_.name,
        "category": type_.category,
        "description": type_.description,
        "priority": str(type_.priority),
    }


def make_context(data: dict[str, Any], type_: EventType, slug: str, settings: Settings) -> dict[str, Any]:
    """Everything but the user, who is added where a template asks for one."""
    return {"data": data, "tenant": describe_tenant(slug, settings), "event_type": describe_type(type_)}
