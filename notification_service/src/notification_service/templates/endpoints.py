"""Templates over REST. Only for those who may write them: they say what everybody reads."""

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Path, Response
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from notification_service.db.base import AnyRow
from notification_service.identity.access import Caller
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from notification_service.templates.entity import Key, Source
from notification_service.templates.locales import normalize
from notification_service.templates.service import Templates
from shared_contracts.json_types import Whole
from shared_contracts.requests import Channel
from shared_contracts.scopes import Scope
from shared_contracts.text import JsonObject, Line, Text

log = structlog.get_logger(__name__)

Code = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.\-]{0,99}$")]
Locale = Annotated[str, Path(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*$", max_length=35)]
Title = Annotated[Line, Field(max_length=2_000)]
LongText = Annotated[Text, Field(max_length=32 * 1024)]


class TemplateIn(BaseModel):
    """The texts; variables live under `data`, `user`, `tenant`, `event_type`."""

    title: Title | None = None
    body: LongText | None = None
    html: LongText | None = None

    @model_validator(mode="after")
    def _check_something(self) -> "TemplateIn":
        if self.title is None and self.body is None:
            raise ValueError("title or body must be given")
        return self


class TemplateOut(BaseModel):
    """A template."""

    event_type: str
    channel: Channel
    locale: str
    title: str | None
    body: str | None
    html: str | None
    version: int = Field(description="Rises with every change.")
    updated_at: AwareDatetime


class TemplatesOut(BaseModel):
    """All templates of one event type."""

    items: list[TemplateOut]
    next_cursor: str | None = None


class VersionOut(BaseModel):
    """One version there was."""

    version: int
    title: str | None
    body: str | None
    html: str | None
    created_at: AwareDatetime
    author_id: UUID | None


class VersionsOut(BaseModel):
    """Versions, the newest first."""

    items: list[VersionOut]
    next_cursor: str | None = None


class RollbackIn(BaseModel):
    """Which version comes back."""

    version: Annotated[Whole, Field(ge=1)]


class PreviewIn(BaseModel):
    """What to render with; texts given here are rendered in place of the stored ones."""

    data: JsonObject = Field(default_factory=dict)
    user_id: UUID | None = Field(default=None, description="Left out: the caller.")
    title: Title | None = None
    body: LongText | None = None
    html: LongText | None = None


class PreviewOut(BaseModel):
    """What a reader would get."""

    title: str | None
    body: str | None
    html: str | None
    locale: str = Field(description="Of the template that was used.")


def make_template_router(templates: Templates, callers: Callers) -> APIRouter:
    """`/event-types/{code}/templates` and everything below it."""
    router = APIRouter(prefix="/api/v1/event-types/{code}/templates", tags=["templates"], route_class=JsonRoute)
    Writer = Annotated[Caller, Depends(callers.needs(Scope.TEMPLATES_WRITE))]  # noqa: N806 - a type

    @router.get("", summary="List an event type's templates")
    async def list_templates(code: Code, caller: Writer) -> TemplatesOut:
        """Stored ones; where there is none, the chain of the guide decides."""
        return TemplatesOut(items=[_describe(row) for row in await templates.list_all(caller.tenant, code)])

    @router.get("/{channel}/{locale}", summary="One template")
    async def get_template(code: Code, channel: Channel, locale: Locale, caller: Writer) -> TemplateOut:
        """As written."""
        return _describe(await templates.get(caller.tenant, _key(code, channel, locale)))

    @router.put("/{channel}/{locale}", summary="Write a template")
    async def put_template(
        code: Code, channel: Channel, locale: Locale, given: TemplateIn, caller: Writer
    ) -> TemplateOut:
        """Checked, stored as the next version, and used from the next notification on."""
        source = Source(given.title, given.body, given.html)
        row = await templates.put(caller.tenant, _key(code, channel, locale), source, by=caller)
        _note("template_changed", caller, code=code, channel=channel, locale=row.locale, version=row.version)
        return _describe(row)

    @router.delete("/{channel}/{locale}", status_code=204, summary="Delete a template")
    async def delete_template(code: Code, channel: Channel, locale: Locale, caller: Writer) -> Response:
        """Its readers get the next one of the chain."""
        await templates.delete(caller.tenant, _key(code, channel, locale), by=caller)
        _note("template_deleted", caller, code=code, channel=channel, locale=locale, version=None)
        return Response(status_code=204)

    @router.post("/{channel}/{locale}/preview", summary="Render without sending")
    async def preview(code: Code, channel: Channel, locale: Locale, given: PreviewIn, caller: Writer) -> PreviewOut:
        """By the same code that sends; what is missing is an error (422 `missing_variable`)."""
        draft = None
        if given.title is not None or given.body is not None or given.html is not None:
            draft = Source(given.title, given.body, given.html)
        rendered = await templates.preview(
            caller.tenant,
            _key(code, channel, locale),
            data=given.data,
            user_id=given.user_id or caller.id,
            draft=draft,
        )
        return PreviewOut(title=rendered.title, body=rendered.body, html=rendered.html, locale=rendered.locale)

    @router.get("/{channel}/{locale}/versions", summary="Every version there was")
    async def list_versions(code: Code, channel: Channel, locale: Locale, caller: Writer) -> VersionsOut:
        """The newest first."""
        rows = await templates.list_versions(caller.tenant, _key(code, channel, locale))
        return VersionsOut(items=[VersionOut.model_validate(dict(row._mapping)) for row in rows])  # noqa: SLF001

    @router.post("/{channel}/{locale}/rollback", summary="Bring an earlier version back")
    async def roll_back(code: Code, channel: Channel, locale: Locale, given: RollbackIn, caller: Writer) -> TemplateOut:
        """As a new version, so that nothing is lost."""
        key = _key(code, channel, locale)
        row = await templates.roll_back(caller.tenant, key, given.version, by=caller)
        _note("template_rolled_back", caller, code=code, channel=channel, locale=row.locale, version=row.version)
        return _describe(row)

    return router


def _key(code: str, channel: Channel, locale: str) -> Key:
    return code, str(channel), normalize(locale)


def _note(event: str, caller: Caller, *, code: str, channel: Channel, locale: str, version: int | None) -> None:
    log.info(event, code=code, channel=str(channel), locale=locale, version=version, user_id=str(caller.id))


def _describe(row: AnyRow) -> TemplateOut:
    return TemplateOut.model_validate(dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public name
