"""Writing, previewing and rendering templates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import metrics
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.dialects import insert_into
from notification_service.db.engine import Database
from notification_service.errors import InvalidSchema, NotFound
from notification_service.event_types.catalog import Catalog, TenantCatalog, raise_version
from notification_service.event_types.entity import PLAIN_MESSAGE, EventType
from notification_service.identity.access import Caller
from notification_service.identity.audit import record
from notification_service.identity.directory import Person
from notification_service.identity.repository import find_people
from notification_service.templates.built_in import generate
from notification_service.templates.context import describe_tenant, describe_user, make_context
from notification_service.templates.entity import Key, Rendered, Source, Template
from notification_service.templates.layout import apply_layout
from notification_service.templates.locales import normalize
from notification_service.templates.models import template_versions, templates
from notification_service.templates.sandbox import Compiled, RenderFailed, TemplateRefused, VariableMissing
from notification_service.templates.store import TemplateStore, where_template
from shared_contracts.error_codes import ErrorCode
from shared_contracts.problems import FieldError
from shared_contracts.requests import Channel


class TemplateError(InvalidSchema):
    """A template that cannot be taken, or not be rendered."""

    code = ErrorCode.TEMPLATE_ERROR


class MissingVariable(InvalidSchema):
    """A variable of the template is not in the data."""

    code = ErrorCode.MISSING_VARIABLE


class MissingDefaultTemplate(InvalidSchema):
    """An event type is not published while its default locale lacks a template for one of its channels."""

    code = ErrorCode.MISSING_DEFAULT_TEMPLATE

    def __init__(self, channels: Sequence[str], locale: str) -> None:
        super().__init__(
            [
                FieldError(field=f"templates.{channel}.{locale}", message="there is no template in the default locale")
                for channel in channels
            ]
        )


class Templates:
    """Templates of one tenant at a time; every method takes whose."""

    def __init__(self, *, database: Database, catalog: Catalog, store: TemplateStore, clock: Clock) -> None:
        self._database = database
        self._catalog = catalog
        self._store = store
        self._clock = clock

    # --- administration ---------------------------------------------------------------------------------------------

    async def list_all(self, tenant: str, code: str) -> list[AnyRow]:
        """The stored templates of one event type."""
        async with self._database.read() as connection:
            await self._get_type(connection, tenant, code)
            rows = await connection.execute(
                select(templates)
                .where(templates.c.tenant == tenant, templates.c.event_type == code)
                .order_by(templates.c.channel, templates.c.locale)
            )
            return list(rows.all())

    async def get(self, tenant: str, key: Key) -> AnyRow:
        """One stored template.

        Raises:
            NotFound: There is none.
        """
        async with self._database.read() as connection:
            return await _get_row(connection, tenant, key)

    async def put(self, tenant: str, key: Key, source: Source, *, by: Caller) -> AnyRow:
        """Store a new version; used from the next notification on, by every process.

        Raises:
            TemplateError: A text is beyond the language.
            NotFound: There is no such event type.
        """
        check_source(source)
        now = self._clock.now()
        async with self._database.write() as connection:
            await self._get_type(connection, tenant, key[0])
            await write_template(connection, tenant, key, source, author_id=by.id, now=now)
            await raise_version(connection, tenant, now)
            row = await _get_row(connection, tenant, key)
            details = {"version": row.version}
            await record(connection, by, "template.updated", subject=_subject(key), details=details, now=now)
            return row

    async def delete(self, tenant: str, key: Key, *, by: Caller) -> None:
        """Delete a template; readers of its locale get the next one of the chain. Its versions stay."""
        now = self._clock.now()
        async with self._database.write() as connection:
            done = await connection.execute(delete(templates).where(where_template(templates, tenant, key)))
            if not done.rowcount:
                raise NotFound("there is no such template")
            await raise_version(connection, tenant, now)
            await record(connection, by, "template.deleted", subject=_subject(key), now=now)

    async def list_versions(self, tenant: str, key: Key) -> list[AnyRow]:
        """Every version there was, the newest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(template_versions)
                .where(where_template(template_versions, tenant, key))
                .order_by(template_versions.c.version.desc())
                .limit(200)
            )
            return list(rows.all())

    async def roll_back(self, tenant: str, key: Key, version: int, *, by: Caller) -> AnyRow:
        """Make an earlier version the newest one again."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(
                    select(template_versions).where(
                        where_template(template_versions, tenant, key), template_versions.c.version == version
                    )
                )
            ).one_or_none()
        if row is None:
            raise NotFound("there is no such version")
        return await self.put(tenant, key, Source(row.title, row.body, row.html), by=by)

    async def preview(
        self, tenant: str, key: Key, *, data: dict[str, Any], user_id: UUID, draft: Source | None
    ) -> Rendered:
        """What a reader would get, by the same code that sends.

        Raises:
            MissingVariable: The data lacks something.
            TemplateError: It cannot be rendered.
        """
        if draft is not None:
            check_source(draft)
        async with self._database.read() as connection:
            catalog, type_ = await self._get_type(connection, tenant, key[0])
            found = await self._store.load(connection, catalog)
            person = (await find_people(connection, [user_id])).get(user_id)
        if person is not None and person.tenant != tenant:
            raise NotFound("there is no such user")
        channel, locale = Channel(key[1]), key[2]
        template = Template(draft, locale) if draft is not None else found.find(type_, channel, locale)
        context = {**make_context(data, type_, tenant, catalog.settings), "user": describe_user(person)}
        timezone = person.timezone if person else "UTC"
        try:
            return template.render(context, locale=locale, timezone=timezone, cpu_time=self._clock.cpu_time)
        except VariableMissing as error:
            raise MissingVariable([FieldError(field="data", message=str(error))]) from None
        except (RenderFailed, TemplateRefused) as error:
            raise TemplateError([FieldError(field="template", message=str(error))]) from None

    async def _get_type(self, connection: AsyncConnection, tenant: str, code: str) -> tuple[TenantCatalog, EventType]:
        catalog = (await self._catalog.load(connection, {tenant}))[tenant]
        type_ = PLAIN_MESSAGE if code == PLAIN_MESSAGE.code else catalog.types.get(code)
        if type_ is None:
            raise NotFound("there is no such event type")
        return catalog, type_

    # --- sending ----------------------------------------------------------------------------------------------------

    async def render(
        self,
        connection: AsyncConnection,
        *,
        tenant: str,
        event_type: str,
        channel: Channel,
        title: str | None,
        body: str | None,
        data: dict[str, Any],
        person: Person,
        locale: str | None,
        timezone: str | None = None,
        unsubscribe_url: str | None = None,
    ) -> Rendered:
        """The texts of one delivery over an outgoing channel. What the request gave itself is taken as it is.

        Args:
            connection: For the configuration, when it changed.
            title, body: Of the request, if it gave them.
            locale: Of the request, if it gave one; else the reader's.
            timezone: The reader's choice; else the account's.

        Raises:
            VariableMissing: Permanent: reason `missing_variable`.
            RenderFailed, TemplateRefused: Permanent: reason `template_error`.
        """
        catalog = (await self._catalog.load(connection, {tenant}))[tenant]
        wanted = normalize(locale or person.locale)
        type_ = catalog.types.get(event_type)
        if type_ is None or (title is not None and body is not None):
            return Rendered(title, body, None, wanted)
        template = (await self._store.load(connection, catalog)).find(type_, channel, wanted)
        if template.locale != wanted:
            metrics.template_fallbacks.labels(str(channel)).inc()
        context = {**make_context(data, type_, tenant, catalog.settings), "user": describe_user(person)}
        cpu_time = self._clock.cpu_time
        rendered = template.render(context, locale=wanted, timezone=timezone or person.timezone, cpu_time=cpu_time)
        html = rendered.html
        if html is not None:
            html = apply_layout(
                catalog.settings.html_layout,
                html,
                title=title or rendered.title,
                locale=rendered.locale,
                tenant=describe_tenant(tenant, catalog.settings),
                unsubscribe_url=unsubscribe_url,
                cpu_time=cpu_time,
            )
        return Rendered(
            title if title is not None else rendered.title,
            body if body is not None else rendered.body,
            html if body is None else None,
            rendered.locale,
        )


def check_source(source: Source) -> None:
    """Check every text of a template.

    Raises:
        TemplateError: Names each that is beyond the language.
    """
    problems = []
    for name, text, is_html in (
        ("title", source.title, False),
        ("body", source.body, False),
        ("html", source.html, True),
    ):
        if text is None:
            continue
        try:
            Compiled(text, is_html=is_html)
        except TemplateRefused as refused:
            problems.append(FieldError(field=name, message=str(refused)))
    if problems:
        raise TemplateError(problems)


async def write_template(
    connection: AsyncConnection, tenant: str, key: Key, source: Source, *, author_id: UUID | None, now: datetime
) -> int:
    """Store a template as its next version; answers the number. The caller raises the configuration's version."""
    event_type, channel, locale = key
    last = (
        await connection.execute(
            select(func.max(template_versions.c.version)).where(where_template(template_versions, tenant, key))
        )
    ).scalar_one_or_none()
    version = (last or 0) + 1
    identity = {"tenant": tenant, "event_type": event_type, "channel": channel, "locale": locale}
    texts = {"title": source.title, "body": source.body, "html": source.html}
    insertion = insert_into(connection, templates).values(**identity, **texts, version=version, updated_at=now)
    await connection.execute(
        insertion.on_conflict_do_update(
            index_elements=list(identity), set_={**texts, "version": version, "updated_at": now}
        )
    )
    await connection.execute(
        insert(template_versions).values(**identity, **texts, version=version, created_at=now, author_id=author_id)
    )
    return version


async def write_default_templates(
    connection: AsyncConnection, tenant: str, type_: EventType, *, locale: str, now: datetime
) -> None:
    """Give a new event type a template for each of its channels, in the tenant's default locale."""
    for channel in required_channels(type_):
        key = (type_.code, channel, locale)
        known = await connection.execute(select(templates.c.version).where(where_template(templates, tenant, key)))
        if known.scalar_one_or_none() is None:
            await write_template(connection, tenant, key, Source(*generate(type_)), author_id=None, now=now)


async def check_default_templates(connection: AsyncConnection, tenant: str, type_: EventType, *, locale: str) -> None:
    """Make sure an event type can be published.

    Raises:
        MissingDefaultTemplate: The tenant's default locale lacks a template for one of its channels.
    """
    rows = await connection.execute(
        select(templates.c.channel).where(
            templates.c.tenant == tenant, templates.c.event_type == type_.code, templates.c.locale == locale
        )
    )
    there = set(rows.scalars())
    missing = [str(channel) for channel in required_channels(type_) if channel not in there]
    if missing:
        raise MissingDefaultTemplate(missing, locale)


def required_channels(type_: EventType) -> tuple[Channel, ...]:
    """Channels an event type goes to by itself."""
    return type_.channels or (Channel.IN_APP,)


async def _get_row(connection: AsyncConnection, tenant: str, key: Key) -> AnyRow:
    row = (await connection.execute(select(templates).where(where_template(templates, tenant, key)))).one_or_none()
    if row is None:
        raise NotFound("there is no such template")
    return row


def _subject(key: Key) -> tuple[str, str]:
    return "template", "/".join(key)
