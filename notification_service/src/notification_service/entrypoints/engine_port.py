"""Templates and preferences as the outgoing channels see them: their ports, filled with this service's functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.ports import GO_ON, Pending, Rendered, Unrenderable, Verdict
from notification_service.db.engine import Database
from notification_service.digests.collect import Addition, add_to_digests
from notification_service.entrypoints.deciding import Deciding
from notification_service.event_types.catalog import Catalog, TenantCatalog
from notification_service.event_types.entity import PLAIN_MESSAGE
from notification_service.identity.directory import Person
from notification_service.preferences.evaluate import Outcome
from notification_service.routing.decide import Recipient, decide_step
from notification_service.templates.sandbox import RenderFailed, TemplateRefused, VariableMissing
from notification_service.templates.service import Templates
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Channel


class TemplateRenderer:
    """`channels.ports.Renderer`."""

    def __init__(self, database: Database, catalog: Catalog, deciding: Deciding, templates: Templates) -> None:
        self._database = database
        self._catalog = catalog
        self._deciding = deciding
        self._templates = templates

    async def render(self, wanted: Sequence[Pending]) -> Sequence[Rendered | Unrenderable]:
        """What to say, for each, in the language and time zone the recipient wants now."""
        answers: list[Rendered | Unrenderable] = []
        async with self._database.read() as connection:
            tenants = {each.notification.tenant for each in wanted}
            catalogs = await self._catalog.load(connection, tenants)
            recipients: dict[UUID, Recipient] = {}
            for tenant in tenants:
                people = {each.recipient.id: _to_person(each) for each in wanted if each.notification.tenant == tenant}
                recipients |= await self._deciding.find_recipients(connection, list(people.values()), catalogs[tenant])
            for each in wanted:
                notification, recipient = each.notification, recipients[each.recipient.id]
                try:
                    rendered = await self._templates.render(
                        connection,
                        tenant=notification.tenant,
                        event_type=notification.event_type,
                        channel=Channel(each.channel),
                        title=notification.asked_title,
                        body=notification.asked_body,
                        data=notification.data,
                        person=recipient.person,
                        locale=notification.locale or recipient.locale,
                        timezone=recipient.timezone,
                    )
                except VariableMissing as error:
                    answers.append(Unrenderable(Reason.MISSING_VARIABLE, str(error)))
                except (RenderFailed, TemplateRefused) as error:
                    answers.append(Unrenderable(Reason.TEMPLATE_ERROR, str(error)))
                else:
                    title = rendered.title or notification.title or notification.event_type
                    answers.append(Rendered(title, rendered.body or "", rendered.html, rendered.locale))
        return answers


class PreferenceGate:
    """`channels.ports.Gate`: the same evaluator once more, with the preferences of the moment of sending."""

    def __init__(self, catalog: Catalog, deciding: Deciding) -> None:
        self._catalog = catalog
        self._deciding = deciding

    async def check(self, connection: AsyncConnection, wanted: Sequence[Pending], now: datetime) -> Sequence[Verdict]:
        """What the preferences say now. What quiet hours hold goes into the summary that ends them."""
        catalogs = await self._catalog.load(connection, {each.notification.tenant for each in wanted})
        recipients = await self._find_recipients(connection, wanted, catalogs)
        verdicts: list[Verdict] = []
        held: list[Addition] = []
        for each in wanted:
            notification = each.notification
            recipient = recipients[notification.tenant, each.recipient.id]
            type_ = catalogs[notification.tenant].types.get(notification.event_type, PLAIN_MESSAGE)
            channel = Channel(each.channel)
            decision = decide_step(notification, type_, [channel], recipient, now)[0][1]
            if decision.outcome is Outcome.SEND:
                verdicts.append(GO_ON)
                continue
            if decision.outcome is Outcome.HOLD and decision.due_at is not None and decision.key is not None:
                held.append(
                    Addition(
                        tenant=notification.tenant,
                        user_id=each.recipient.id,
                        channel=str(channel),
                        key=decision.key,
                        due_at=decision.due_at,
                        notification_id=notification.id,
                    )
                )
            rules = [rule.describe() for rule in decision.rules]
            verdicts.append(Verdict(DeliveryState.SUPPRESSED, decision.reason, None, rules))
        await add_to_digests(connection, held, now=now)
        return verdicts

    async def _find_recipients(
        self, connection: AsyncConnection, wanted: Sequence[Pending], catalogs: Mapping[str, TenantCatalog]
    ) -> dict[tuple[str, UUID], Recipient]:
        """By tenant and id; one query per tenant of the batch."""
        people: dict[str, dict[UUID, Person]] = {}
        for each in wanted:
            people.setdefault(each.notification.tenant, {})[each.recipient.id] = _to_person(each)
        return {
            (tenant, user_id): recipient
            for tenant, own in people.items()
            for user_id, recipient in (
                await self._deciding.find_recipients(connection, list(own.values()), catalogs[tenant])
            ).items()
        }


def _to_person(each: Pending) -> Person:
    given = each.recipient
    return Person(
        given.id,
        each.notification.tenant,
        True,  # noqa: FBT003 - deliveries to inactive accounts were ended before
        given.locale,
        given.timezone,
        given.username,
        given.email,
        given.roles,
    )
