"""Title and body for each recipient: rendered once per language, per time zone where dates are shown, per user where
the text names the user; never once per recipient without need. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from notification_service.event_types.entity import PLAIN_MESSAGE, EventType, Settings
from notification_service.notifications.entity import RENDERED_BODY, RENDERED_TITLE, Notification
from notification_service.routing.decide import Recipient
from notification_service.templates.context import describe_user, make_context
from notification_service.templates.entity import Rendered, Template, TemplateSet
from notification_service.templates.locales import normalize
from notification_service.templates.sandbox import RenderFailed, TemplateRefused, VariableMissing
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel

_MAX_VARIANT: Final = 80


@dataclass(frozen=True, slots=True)
class RenderProblem:
    """Recipients whose text could not be rendered."""

    user_ids: tuple[UUID, ...]
    reason: Reason
    detail: str


@dataclass(slots=True)
class Contents:
    """What the recipients of one notification read.

    Attributes:
        base: The notification with the title and body of everybody who has no variant.
        groups: The notification as each group reads it, and who that is.
        problems: Who reads nothing, because it cannot be rendered.
    """

    base: Notification
    groups: list[tuple[Notification, list[UUID]]] = field(default_factory=list)
    problems: list[RenderProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Renderer:
    """What rendering needs beside the notification and its readers."""

    templates: TemplateSet
    settings: Settings
    cpu_time: Callable[[], float]
    on_fallback: Callable[[], None] = lambda: None


def needs_rendering(notification: Notification, type_: EventType) -> bool:
    """Whether a template fills in what the request left open."""
    return type_.code != PLAIN_MESSAGE.code and (notification.title is None or notification.body is None)


def make_contents(
    notification: Notification,
    type_: EventType,
    readers: Sequence[Recipient],
    renderer: Renderer,
    *,
    is_whole: bool = True,
) -> Contents:
    """Render for everybody who reads it in-app.

    Args:
        is_whole: Whether these are all readers; in pieces, no text is the notification's own.
    """
    if not needs_rendering(notification, type_):
        return Contents(notification, [(notification, [each.person.id for each in readers])] if readers else [])
    context = make_context(notification.data, type_, notification.tenant, renderer.settings)
    parts: dict[tuple[Any, ...], tuple[Template, str, str, list[Recipient]]] = {}
    wanted_here = normalize(notification.locale) if notification.locale else None
    tags: dict[str, str] = {}
    for reader in readers:
        locale = reader.locale
        wanted = wanted_here or tags.get(locale) or tags.setdefault(locale, normalize(locale))
        template = renderer.templates.find(type_, Channel.IN_APP, wanted)
        timezone = reader.timezone if template.uses_timezone else ""
        key = (wanted, timezone, reader.person.id if template.uses_user else None)
        parts.setdefault(key, (template, wanted, timezone, []))[3].append(reader)
    contents = Contents(notification)
    is_shared = is_whole
    for (_, _, user_id), (template, wanted, timezone, group) in parts.items():
        user_ids = [reader.person.id for reader in group]
        if template.locale != wanted:
            renderer.on_fallback()
        own = {**context, "user": describe_user(group[0].person)} if user_id is not None else context
        try:
            text = template.render(own, locale=wanted, timezone=timezone or "UTC", cpu_time=renderer.cpu_time)
        except VariableMissing as error:
            contents.problems.append(RenderProblem(tuple(user_ids), Reason.MISSING_VARIABLE, str(error)))
            continue
        except (RenderFailed, TemplateRefused) as error:
            contents.problems.append(RenderProblem(tuple(user_ids), Reason.TEMPLATE_ERROR, str(error)))
            continue
        shown = _fill_in(notification, text)
        # The first text is the notification's own, unless it is one person's and others have theirs.
        if is_shared and (user_id is None or len(parts) == 1):
            contents.base = shown
            is_shared = False
        else:
            shown = replace(shown, variant=_name_variant(wanted, timezone, user_id))
        contents.groups.append((shown, user_ids))
    return contents


def _name_variant(locale: str, timezone: str, user_id: UUID | None) -> str:
    if user_id is not None:
        return f"user:{user_id}"
    return (f"{locale} {timezone}" if timezone else locale)[:_MAX_VARIANT]


def make_broadcast_content(
    notification: Notification, type_: EventType, renderer: Renderer
) -> Notification | RenderProblem:
    """A broadcast's one text for everybody: in its own locale, else in the tenant's."""
    if not needs_rendering(notification, type_):
        return notification
    wanted = normalize(notification.locale or renderer.settings.default_locale)
    template = renderer.templates.find(type_, Channel.IN_APP, wanted)
    context: Mapping[str, Any] = make_context(notification.data, type_, notification.tenant, renderer.settings)
    try:
        text = template.render(context, locale=wanted, timezone="UTC", cpu_time=renderer.cpu_time)
    except VariableMissing as error:
        return RenderProblem((), Reason.MISSING_VARIABLE, str(error))
    except (RenderFailed, TemplateRefused) as error:
        return RenderProblem((), Reason.TEMPLATE_ERROR, str(error))
    return _fill_in(notification, text)


def _fill_in(notification: Notification, text: Rendered) -> Notification:
    """The notification with what a template said where the request said nothing."""
    rendered = (RENDERED_TITLE if notification.title is None else 0) | (
        RENDERED_BODY if notification.body is None else 0
    )
    return replace(
        notification,
        title=notification.title if notification.title is not None else text.title,
        body=notification.body if notification.body is not None else text.body,
        rendered=rendered,
    )
