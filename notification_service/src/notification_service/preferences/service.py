"""Own preferences: read, replaced, merged; every device of the user is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import InvalidSchema, NotFound
from notification_service.event_types.catalog import Catalog, TenantCatalog, raise_version
from notification_service.event_types.entity import EventType
from notification_service.identity.access import Caller
from notification_service.identity.audit import record
from notification_service.identity.directory import Person
from notification_service.identity.repository import find_people
from notification_service.preferences.document import Document, find_switched_off, merge
from notification_service.preferences.evaluate import Layer, evaluate_switch
from notification_service.preferences.repository import (
    DefaultsStore,
    find_documents,
    find_for_update,
    make_layers,
    write_defaults,
    write_document,
)
from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import FieldError
from shared_contracts.requests import Channel, describe_errors

TellPreferences = Callable[[UUID, dict[str, Any]], None]
"""Begins to send the `preferences` frame to every device of the user; nobody waits for it."""


class OnSaved(Protocol):
    """What else follows from saved preferences, in the same transaction."""

    async def __call__(
        self, connection: AsyncConnection, person: Person, layers: Sequence[Layer], now: datetime, /
    ) -> None:
        """Called with the user's layers as they are from now on."""


class MandatoryEventType(InvalidSchema):
    """The event type cannot be switched off."""

    code = ErrorCode.MANDATORY_EVENT_TYPE

    def __init__(self, codes: Sequence[str]) -> None:
        super().__init__([FieldError(field=f"event_types.{code}", message="cannot be switched off") for code in codes])


@dataclass(frozen=True, slots=True)
class ScreenRow:
    """One event type of the preference screen: for each channel whether it is on, and who said so."""

    type: EventType
    channels: dict[str, dict[str, Any]]


class Preferences:
    """Preferences of users and their defaults; every method takes whose."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        defaults: DefaultsStore,
        clock: Clock,
        tell: TellPreferences,
        on_saved: OnSaved | None = None,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._defaults = defaults
        self._clock = clock
        self._tell = tell
        self._on_saved = on_saved

    async def get(self, user_id: UUID, tenant: str) -> dict[str, Any]:
        """A user's preferences as clients see them."""
        async with self._database.read() as connection:
            person = (await find_people(connection, [user_id])).get(user_id)
            document = (await find_documents(connection, [user_id])).get(user_id)
            layers = await self._find_layers(connection, tenant, person, document)
        return describe(document or {}, person, layers)

    async def get_screen(self, user_id: UUID, tenant: str) -> list[ScreenRow]:
        """Every active event type with every channel: what the evaluator says now."""
        async with self._database.read() as connection:
            person = (await find_people(connection, [user_id])).get(user_id)
            document = (await find_documents(connection, [user_id])).get(user_id)
            catalog = (await self._catalog.load(connection, {tenant}))[tenant]
            layers = await self._find_layers(connection, tenant, person, document)
        return [
            ScreenRow(type_, {str(channel): _describe_switch(channel, type_, layers) for channel in Channel})
            for _, type_ in sorted(catalog.types.items())
            if type_.is_active
        ]

    async def replace(self, user_id: UUID, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
        """PUT: what is left out is unset."""
        return await self._save(user_id, tenant, lambda _: given)

    async def patch(self, user_id: UUID, tenant: str, given: dict[str, Any]) -> dict[str, Any]:
        """PATCH: merges (RFC 7396).

        Raises:
            InvalidSchema: Something in it is no preference, or switches off what is mandatory.
        """
        return await self._save(user_id, tenant, lambda before: merge(before, given))

    async def _save(
        self, user_id: UUID, tenant: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        now = self._clock.now()
        async with self._database.write() as connection:
            catalog = (await self._catalog.load(connection, {tenant}))[tenant]
            document = check_document(change(await find_for_update(connection, user_id)), catalog)
            await write_document(connection, user_id=user_id, tenant=tenant, document=document, now=now)
            person = (await find_people(connection, [user_id])).get(user_id)
            layers = await self._find_layers(connection, tenant, person, document)
            if self._on_saved is not None and person is not None:
                await self._on_saved(connection, person, layers, now)
        described = describe(document, person, layers)
        self._tell(user_id, described)
        return described

    async def check_member(self, user_id: UUID, tenant: str) -> None:
        """Make sure an administrator's user exists.

        Raises:
            NotFound: Nobody of this tenant.
        """
        async with self._database.read() as connection:
            person = (await find_people(connection, [user_id])).get(user_id)
        if person is None or person.tenant != tenant:
            raise NotFound("there is no such user")

    async def get_defaults(self, tenant: str, role: str) -> dict[str, Any]:
        """The default document of a tenant ('') or of one of its roles."""
        async with self._database.read() as connection:
            catalog = (await self._catalog.load(connection, {tenant}))[tenant]
            defaults = await self._defaults.load(connection, tenant, catalog.version)
        return describe_document(defaults.documents.get(role, {}))

    async def replace_defaults(self, tenant: str, role: str, given: dict[str, Any], *, by: Caller) -> dict[str, Any]:
        """Replace a default document; it counts at once for everybody who has not said otherwise."""
        now = self._clock.now()
        async with self._database.write() as connection:
            catalog = (await self._catalog.load(connection, {tenant}))[tenant]
            document = check_document(given, catalog)
            await write_defaults(connection, tenant=tenant, role=role, document=document, now=now)
            await raise_version(connection, tenant, now)
            subject = ("preference_defaults", role or tenant)
            await record(connection, by, "preference_defaults.updated", subject=subject, now=now)
        return describe_document(document)

    async def _find_layers(
        self, connection: AsyncConnection, tenant: str, person: Person | None, document: dict[str, Any] | None
    ) -> tuple[Layer, ...]:
        catalog = (await self._catalog.load(connection, {tenant}))[tenant]
        defaults = await self._defaults.load(connection, tenant, catalog.version)
        return make_layers(document, defaults.layers_for(person.roles if person else ()))


def check_document(given: dict[str, Any], catalog: TenantCatalog) -> dict[str, Any]:
    """The document as it is kept.

    Raises:
        InvalidSchema: Not a preferences document.
        MandatoryEventType: It switches off what cannot be.
    """
    try:
        document = Document.model_validate(given).stored()
    except ValidationError as error:
        fields = [FieldError(field=field, message=message) for field, message in describe_errors(error.errors())]
        raise InvalidSchema(fields) from None
    except ValueError as error:
        raise InvalidSchema([FieldError(field="preferences", message=str(error))]) from None
    known = catalog.types
    locked = [code for code in find_switched_off(document) if code in known and known[code].mandatory]
    if locked:
        raise MandatoryEventType(sorted(locked))
    return document


def describe_document(document: dict[str, Any]) -> dict[str, Any]:
    """A document with every field present."""
    values = {
        "channels": {},
        "categories": {},
        "event_types": {},
        "quiet_hours": {"enabled": False},
        "digest": {},
        "digest_time": None,
        "digest_day": None,
        "locale": None,
        "timezone": None,
        "devices": {},
        "sync_dismissals": True,
        **document,
    }
    quiet: dict[str, Any] = {
        "start": "22:00",
        "end": "07:00",
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
        **values["quiet_hours"],
    }
    return {**values, "quiet_hours": quiet}


def describe(document: dict[str, Any], person: Person | None, layers: Sequence[Layer]) -> dict[str, Any]:
    """A user's own preferences; where they said nothing about a single field, what counts for them."""
    values = dict(document)
    for name in ("quiet_hours", "digest_time", "digest_day", "locale", "timezone", "sync_dismissals"):
        if name not in values:
            for layer in layers:
                if layer.document.get(name) is not None:
                    values[name] = layer.document[name]
                    break
    values.setdefault("locale", person.locale if person else None)
    values.setdefault("timezone", person.timezone if person else None)
    return describe_document(values)


def _describe_switch(channel: Channel, type_: EventType, layers: Sequence[Layer]) -> dict[str, Any]:
    switch = evaluate_switch(channel, type_.rules, layers)
    return {
        "enabled": switch.is_on,
        "locked": type_.mandatory,
        "reason": switch.reason,
        "rules": [rule.describe() for rule in switch.rules],
    }
