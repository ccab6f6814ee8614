"""One template, and all templates of a tenant with the rule which of them is used. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from notification_service.event_types.entity import EventType
from notification_service.templates.built_in import find_built_in, generate
from notification_service.templates.filters import babel_locale
from notification_service.templates.locales import language_of, lookup_chain
from notification_service.templates.sandbox import Compiled
from shared_contracts.requests import Channel

MAX_TITLE_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Source:
    """The texts of one template as written; version 0 comes with Herald or was generated."""

    title: str | None
    body: str | None
    html: str | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a reader gets."""

    title: str | None
    body: str | None
    html: str | None
    locale: str


class Template:
    """A template of one locale, compiled when it is first used."""

    def __init__(self, source: Source, locale: str) -> None:
        self.source = source
        self.locale = locale

    @cached_property
    def _parts(self) -> tuple[Compiled | None, Compiled | None, Compiled | None]:
        source = self.source
        return (
            Compiled(source.title) if source.title is not None else None,
            Compiled(source.body) if source.body is not None else None,
            Compiled(source.html, is_html=True) if source.html is not None else None,
        )

    @cached_property
    def uses_user(self) -> bool:
        """Whether it reads differently for each user."""
        return any("user" in part.uses for part in self._parts if part is not None)

    @cached_property
    def uses_timezone(self) -> bool:
        """Whether it reads differently in each time zone."""
        return any(part.uses_timezone for part in self._parts if part is not None)

    def render(
        self, context: Mapping[str, Any], *, locale: str, timezone: str, cpu_time: Callable[[], float]
    ) -> Rendered:
        """The texts for one reader. Numbers and dates follow the reader's own region where the language is the same.

        Raises:
            VariableMissing: A variable is not in the data.
            RenderFailed: It cannot be rendered.
            TemplateRefused: It was stored by a version with other rules.
        """
        shown = locale if language_of(locale) == language_of(self.locale) else self.locale
        # Before the rendering's time begins: the first use of a language reads its file.
        babel_locale(shown)
        whole = {**context, "_locale": shown, "_timezone": timezone}
        title, body, html = (
            part.render(whole, cpu_time=cpu_time) if part is not None else None for part in self._parts
        )
        if title is not None:
            # One line, as in a request.
            title = " ".join(title.split())[:MAX_TITLE_CHARACTERS]
        return Rendered(title, body, html, self.locale)


Key = tuple[str, str, str]
"""Event type, channel, locale."""


class TemplateSet:
    """All templates of one tenant; built-in and generated ones answer where it has none of its own."""

    def __init__(self, default_locale: str, templates: Mapping[Key, Template]) -> None:
        self.default_locale = default_locale
        self.templates = templates
        self._found: dict[tuple[str, int, Channel, str], Template] = {}

    def find(self, type_: EventType, channel: Channel, locale: str) -> Template:
        """The template for a reader: the channel's, else the in-app one; in each the locale, its parents, the tenant's
        default locale, English; at last one that comes with Herald or is generated from the type.
        """
        key = (type_.code, type_.version, channel, locale)
        found = self._found.get(key)
        if found is None:
            if len(self._found) > _MAX_REMEMBERED:
                self._found.clear()
            found = self._found[key] = self._look_up(type_, channel, locale)
        return found

    def _look_up(self, type_: EventType, channel: Channel, locale: str) -> Template:
        for each in dict.fromkeys((channel, Channel.IN_APP)):
            for tag in lookup_chain(locale, self.default_locale):
                if (own := self.templates.get((type_.code, each, tag))) is not None:
                    return own
        for tag in lookup_chain(locale, self.default_locale):
            if (built_in := find_built_in(type_.code, channel, tag)) is not None:
                return Template(Source(*built_in), tag)
        return Template(Source(*generate(type_)), self.default_locale)


_MAX_REMEMBERED: Final = 20_000
