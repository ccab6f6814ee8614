"""Templates that come with Herald, and the one every new event type begins with. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from notification_service.event_types.entity import EventType
from shared_contracts.requests import Channel

Texts = tuple[str | None, str | None, str | None]
"""Title, body, HTML."""

_LINES_EN: Final = (
    "{% for each in data.entries %}• {{ each.title }}\n{% endfor %}"
    "{% if data.left %}{{ data.left | plural(one='… and # more', other='… and # more') }}\n{% endif %}"
)
_LINES_DE: Final = (
    "{% for each in data.entries %}• {{ each.title }}\n{% endfor %}"
    "{% if data.left %}{{ data.left | plural(one='… und # weitere', other='… und # weitere') }}\n{% endif %}"
)
_HTML: Final = (
    "<ul>{% for each in data.entries %}<li><strong>{{ each.title }}</strong>"
    "{% if each.body %}<br>{{ each.body | truncate(200) | linebreaks }}{% endif %}</li>{% endfor %}</ul>"
)
_SUMMARY: Final = MappingProxyType(
    {
        "en": ("{{ data.count | plural(one='# notification', other='# notifications') }} you missed", _LINES_EN),
        "de": ("{{ data.count | plural(one='# verpasste Nachricht', other='# verpasste Nachrichten') }}", _LINES_DE),
    }
)
_WEEKLY: Final = MappingProxyType(
    {
        "en": (
            "Your week: {{ data.count | plural(one='# unread notification', other='# unread notifications') }}",
            _LINES_EN,
        ),
        "de": (
            "Ihre Woche: {{ data.count | plural(one='# ungelesene Nachricht', other='# ungelesene Nachrichten') }}",
            _LINES_DE,
        ),
    }
)
_TEXTS: Final = MappingProxyType({"digest.summary": _SUMMARY, "digest.weekly": _WEEKLY})


def find_built_in(event_type: str, channel: Channel, locale: str) -> Texts | None:
    """The built-in texts; None when there are none for this type and locale."""
    of_type = _TEXTS.get(event_type)
    texts = of_type.get(locale) if of_type is not None else None
    if texts is None:
        return None
    return (*texts, _HTML if channel is Channel.EMAIL else None)


def generate(type_: EventType) -> Texts:
    """What every event type begins with: its name, its description, and a line for each required value."""
    schema = type_.data_schema or {}
    properties = schema.get("properties")
    required = schema.get("required")
    lines = []
    if isinstance(properties, dict) and isinstance(required, list):
        for name in required[:20]:
            described = properties.get(name)
            if isinstance(name, str) and name.isidentifier() and not name.startswith("_") and _is_plain(described):
                lines.append(f"{name.replace('_', ' ').capitalize()}: {{{{ data.{name} }}}}")
    head = "{% if event_type.description %}{{ event_type.description }}{% endif %}"
    return "{{ event_type.name }}", head + ("\n" if lines and type_.description else "") + "\n".join(lines), None


def _is_plain(described: object) -> bool:
    return isinstance(described, dict) and described.get("type") in ("string", "integer", "number", "boolean")
