"""Every place where personal data lies. A test compares this list with the tables that name users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import exists, update
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service.channels.models import deliveries, delivery_attempts
from notification_service.contacts.models import contacts, suppressions
from notification_service.dead_letters.personal_data import PERSONAL_DATA as DEAD_LETTERS
from notification_service.digests.personal_data import PERSONAL_DATA as DIGESTS
from notification_service.event_types.models import throttle_counters
from notification_service.identity.models import memberships, users
from notification_service.identity.personal_data import PersonalData, Subject, rows_of
from notification_service.intake.models import idempotency_keys
from notification_service.mailbox.personal_data import PERSONAL_DATA as MAILBOX
from notification_service.notifications.personal_data import PERSONAL_DATA as NOTIFICATIONS
from notification_service.preferences.models import user_preferences
from notification_service.presence.models import last_seen
from notification_service.templates.models import template_versions

_CONTACTS: Final = rows_of(
    "contacts",
    contacts,
    contacts.c.user_id,
    # Addresses are shown by their hints: whole, some of them let whoever reads the export write to a chat.
    hidden=("address", "address_hash", "secret", "code_hash", "code_expires_at", "code_sent_at", "code_attempts"),
    order_by=contacts.c.created_at,
)


async def _erase_contacts(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    is_own = exists().where(
        contacts.c.user_id == subject.user_id,
        contacts.c.tenant == suppressions.c.tenant,
        contacts.c.channel == suppressions.c.channel,
        contacts.c.address_hash == suppressions.c.address_hash,
    )
    is_theirs = is_own | (suppressions.c.user_id == subject.user_id)
    # The list goes on protecting an address that was refused or complained; of the person only its hash is left, which
    # finds the address again and does not show it.
    shows_person = (suppressions.c.user_id == subject.user_id) | (suppressions.c.hint != "")
    hidden = await connection.execute(update(suppressions).where(is_theirs, shows_person).values(user_id=None, hint=""))
    return {"suppressions": hidden.rowcount, **await _CONTACTS.erase(connection, subject)}


async def _forget_author(connection: AsyncConnection, subject: Subject) -> Mapping[str, int]:
    author = template_versions.c.author_id
    changed = await connection.execute(
        update(template_versions).where(author == subject.user_id).values(author_id=None)
    )
    return {"template_versions": changed.rowcount}


PERSONAL_DATA: Final[tuple[PersonalData, ...]] = (
    rows_of("profile", users, users.c.id),
    rows_of("groups", memberships, memberships.c.user_id),
    *MAILBOX,
    NOTIFICATIONS,
    rows_of("preferences", user_preferences, user_preferences.c.user_id),
    PersonalData("contacts", (contacts, suppressions), _erase_contacts, _CONTACTS.export),
    rows_of("deliveries", deliveries, deliveries.c.user_id, hidden=("rules",), order_by=deliveries.c.created_at),
    rows_of("delivery_attempts", delivery_attempts, delivery_attempts.c.user_id, hidden=("route",)),
    *DIGESTS,
    rows_of("presence", last_seen, last_seen.c.user_id),
    PersonalData("throttles", (throttle_counters,), rows_of("", throttle_counters, throttle_counters.c.user_id).erase),
    PersonalData("idempotency", (idempotency_keys,), rows_of("", idempotency_keys, idempotency_keys.c.caller_id).erase),
    PersonalData("templates", (template_versions,), _forget_author),
    DEAD_LETTERS,
)
