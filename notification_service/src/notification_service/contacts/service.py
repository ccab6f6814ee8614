"""A user's own contacts: added, proved, removed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from notification_service.clock import Clock
from notification_service.contacts.addresses import hash_address
from notification_service.contacts.code_turns import take_code_turn
from notification_service.contacts.ports import AddressRefused, Directory, NewAddress
from notification_service.contacts.repository import (
    count_code_attempt,
    count_contacts,
    delete_contact,
    find_by_start_code,
    find_contact,
    find_same,
    link_address,
    list_contacts,
    mark_verified,
    set_code,
    upsert_contact,
)
from notification_service.contacts.secrets import SecretBox
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.errors import Conflict, InvalidSchema, NotFound, RateLimited
from shared_contracts.ids import new_id
from shared_contracts.problems import FieldError

log = structlog.get_logger(__name__)

MAX_CONTACTS: Final = 50
CODE_LIFE: Final = timedelta(minutes=15)
_START_CODE_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class Added:
    """What became of adding a contact.

    Attributes:
        is_new: False: the same address was there and was brought up to date.
        secret: Made here, and shown only now; None: the caller gave its own, or the channel needs none.
        start_code: To be presented at the other side; None: a code is sent, or nothing is needed.
    """

    row: AnyRow
    is_new: bool
    secret: str | None = field(default=None, repr=False)
    start_code: str | None = field(default=None, repr=False)
    start_link: str | None = field(default=None, repr=False)


class ContactBook:
    """Contacts. Every method takes whose; nobody reaches another's."""

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        box: SecretBox,
        clock: Clock,
        needs_proof: bool,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.directory = directory
        self._database = database
        self._box = box
        self._clock = clock
        self._needs_proof = needs_proof
        self._spawn = spawn

    async def list(self, user_id: UUID, *, channel: str | None, after: UUID | None, limit: int) -> list[AnyRow]:
        """The user's contacts, oldest first."""
        async with self._database.read() as connection:
            return await list_contacts(connection, user_id, channel=channel, after=after, limit=limit)

    async def get(self, user_id: UUID, contact_id: UUID) -> AnyRow:
        """One contact.

        Raises:
            NotFound: The user has no such contact.
        """
        async with self._database.read() as connection:
            row = await find_contact(connection, user_id, contact_id)
        if row is None:
            raise NotFound("there is no such contact")
        return row

    async def add(
        self, user_id: UUID, tenant: str, *, channel: str, address: str | None, secret: str | None, label: str
    ) -> Added:
        """Add an address. Adding the same one again enables it again, and rotates its secret.

        Raises:
            InvalidSchema: The channel or the address cannot be used.
            Conflict: There are too many.
        """
        if channel not in self.directory.names:
            raise InvalidSchema([FieldError(field="channel", message="must be one of the outgoing channels")])
        checked = await self._check(channel, address, secret)
        address_hash = hash_address(channel, checked.value)
        now = self._clock.now()
        async with self._database.write() as connection:
            before = await find_same(connection, user_id, channel, address_hash)
            if before is None and await count_contacts(connection, user_id) >= MAX_CONTACTS:
                raise Conflict(f"at most {MAX_CONTACTS} contacts are possible")
            row = await upsert_contact(
                connection,
                {
                    "user_id": user_id,
                    "id": new_id(),
                    "tenant": tenant,
                    "channel": channel,
                    "address": self._box.seal(checked.value),
                    "address_hash": address_hash,
                    "hint": checked.hint,
                    "secret": self._seal_secret(before, secret, checked),
                    "label": label,
                    "verified_at": now if checked.proof == "none" else None,
                    "created_at": now,
                },
            )
            code = None
            if checked.proof == "start" and row.verified_at is None:
                code = secrets.token_urlsafe(_START_CODE_BYTES)
                await set_code(connection, row, code_hash=_hash_code(code), now=now, expires_at=now + CODE_LIFE)
        log.info("contact_added", user_id=str(user_id), contact_id=str(row.id), channel=channel)
        if self._needs_proof and before is None and checked.proof == "code" and self.directory.is_configured(channel):
            try:
                await self.send_code(user_id, row.id)
            except RateLimited:
                # The contact is there; its owner asks for a code later.
                log.info("contact_code_held_back", user_id=str(user_id), contact_id=str(row.id))
        generated = checked.secret if secret is None and before is None and checked.proof != "none" else None
        link = self.directory.start_link(channel, code) if code is not None else None
        return Added(row, before is None, generated, code, link)

    async def delete(self, user_id: UUID, contact_id: UUID) -> None:
        """Remove a contact. What is on its way to it is not sent any more.

        Raises:
            NotFound: The user has no such contact.
        """
        async with self._database.write() as connection:
            if not await delete_contact(connection, user_id, contact_id):
                raise NotFound("there is no such contact")
        log.info("contact_deleted", user_id=str(user_id), contact_id=str(contact_id))

    async def send_code(self, user_id: UUID, contact_id: UUID) -> None:
        """Send a new code to an address; it is on its way when this returns.

        Raises:
            NotFound: The user has no such contact.
            Conflict: It is proved already, or its channel is not configured.
            RateLimited: There were too many, to this address or for this user.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            row = await find_contact(connection, user_id, contact_id)
            if row is None:
                raise NotFound("there is no such contact")
            if row.verified_at is not None:
                raise Conflict("the contact is verified already")
            if not self.directory.is_configured(row.channel):
                raise Conflict("this channel is not configured, so no code can be sent")
            wait = await take_code_turn(
                connection, user_id=user_id, channel=row.channel, address_hash=row.address_hash, now=now
            )
            if wait:
                raise RateLimited(wait)
            code = f"{secrets.randbelow(1_000_000):06}"
            await set_code(connection, row, code_hash=_hash_code(code), now=now, expires_at=now + CODE_LIFE)
        # Not waited for: how long it takes says something about the address, and may be 10 s.
        self._spawn(self._prove(row, code))

    async def verify(self, user_id: UUID, contact_id: UUID, code: str) -> AnyRow:
        """Prove an address by the code that was sent there.

        Raises:
            NotFound: The user has no such contact.
            InvalidSchema: The code is wrong, old, or was tried too often.
        """
        row = await self.get(user_id, contact_id)
        if row.verified_at is None:
            now = self._clock.now()
            async with self._database.write() as connection:
                expected = await count_code_attempt(connection, row, now)
            if expected is None or not hmac.compare_digest(expected, _hash_code(code)):
                raise InvalidSchema([FieldError(field="code", message="is wrong, too old, or was tried too often")])
            async with self._database.write() as connection:
                await mark_verified(connection, user_id, contact_id, now=now)
            log.info("contact_verified", user_id=str(user_id), contact_id=str(contact_id), channel=row.channel)
        return await self.get(user_id, contact_id)

    async def link_start_code(self, channel: str, code: str, address: str) -> bool:
        """A start code was presented at this address; answers whether somebody waited for it."""
        now = self._clock.now()
        async with self._database.write() as connection:
            row = await find_by_start_code(connection, channel, _hash_code(code), now=now)
            if row is None:
                return False
            await link_address(
                connection,
                row,
                address=self._box.seal(address),
                address_hash=hash_address(channel, address),
                hint=address,
                now=now,
            )
        log.info("contact_linked", user_id=str(row.user_id), contact_id=str(row.id), channel=channel)
        return True

    async def _check(self, channel: str, address: str | None, secret: str | None) -> NewAddress:
        if address is None:
            if self.directory.start_link(channel, "") is None:
                raise InvalidSchema([FieldError(field="address", message="is needed")])
            # Known when the start code is presented. Until then nothing can be sent there.
            return NewAddress(f"waiting:{new_id()}", "", None, "start")
        try:
            return await self.directory.check(channel, address, secret)
        except AddressRefused as refused:
            raise InvalidSchema([FieldError(field=refused.field_name, message=str(refused))]) from None

    def _seal_secret(self, before: AnyRow | None, given: str | None, checked: NewAddress) -> str | None:
        """The secret to store. While one is rotated both sign, the new one first; the next change drops the old one."""
        if before is not None and before.secret is not None:
            if given is None:
                return str(before.secret)
            current = self._box.open(before.secret).split("\n")[0]
            if checked.proof == "code" and current != given:
                return self._box.seal(f"{given}\n{current}")
        return self._box.seal(checked.secret) if checked.secret is not None else None

    async def _prove(self, row: AnyRow, code: str) -> None:
        is_proved = await self.directory.prove(
            row.channel,
            contact_id=row.id,
            user_id=row.user_id,
            tenant=row.tenant,
            address=self._box.open(row.address),
            secret=self._box.open(row.secret) if row.secret is not None else None,
            code=code,
        )
        if is_proved:
            async with self._database.write() as connection:
                await mark_verified(connection, row.user_id, row.id, now=self._clock.now())
            log.info("contact_verified", user_id=str(row.user_id), contact_id=str(row.id), channel=row.channel)


def _hash_code(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
