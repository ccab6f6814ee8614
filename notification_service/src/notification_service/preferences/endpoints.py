"""Preferences over REST: the caller's own, another user's for administrators, and the defaults."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, Field

from notification_service.identity.access import Caller
from notification_service.preferences.service import Preferences
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from shared_contracts.scopes import Scope
from shared_contracts.text import JsonObject

Given = Annotated[JsonObject, Body(description="A preferences document; see the guide.")]
RoleName = Annotated[str, Query(max_length=32, pattern=r"^[a-z0-9_\-]*$", description="Left out: the whole tenant.")]


class SwitchOut(BaseModel):
    """One channel of one event type."""

    enabled: bool
    locked: bool = Field(description="Mandatory: it cannot be switched off.")
    reason: str | None
    rules: list[dict[str, Any]] = Field(description="What was read, and whose it is.")


class ScreenRowOut(BaseModel):
    """One event type of the preference screen."""

    code: str
    name: str
    category: str | None
    mandatory: bool
    channels: dict[str, SwitchOut]


class ScreenOut(BaseModel):
    """The whole preference screen."""

    items: list[ScreenRowOut]


def make_preferences_router(preferences: Preferences, callers: Callers) -> APIRouter:
    """`/preferences`, `/preferences/defaults` and `/users/{id}/preferences`."""
    router = APIRouter(prefix="/api/v1", tags=["preferences"], route_class=JsonRoute)
    Owner = Annotated[Caller, Depends(callers.needs(Scope.INBOX))]  # noqa: N806 - a type
    Admin = Annotated[Caller, Depends(callers.needs(Scope.USERS_WRITE))]  # noqa: N806 - a type

    @router.get("/preferences", summary="Own preferences")
    async def get_own(caller: Owner) -> dict[str, Any]:
        """What the caller set, and what counts where they set nothing."""
        return await preferences.get(caller.id, caller.tenant)

    @router.put("/preferences", summary="Replace own preferences")
    async def replace_own(given: Given, caller: Owner) -> dict[str, Any]:
        """What is left out is unset; the defaults count for it again."""
        return await preferences.replace(caller.id, caller.tenant, given)

    @router.patch("/preferences", summary="Change own preferences")
    async def patch_own(given: Given, caller: Owner) -> dict[str, Any]:
        """Merges (RFC 7396): objects merge, null unsets."""
        return await preferences.patch(caller.id, caller.tenant, given)

    @router.get("/preferences/effective", summary="What is on, and why")
    async def get_screen(caller: Owner) -> ScreenOut:
        """Every event type and channel as the evaluator decides it now."""
        rows = await preferences.get_screen(caller.id, caller.tenant)
        return ScreenOut(
            items=[
                ScreenRowOut(
                    code=row.type.code,
                    name=row.type.name,
                    category=row.type.category,
                    mandatory=row.type.mandatory,
                    channels={name: SwitchOut.model_validate(switch) for name, switch in row.channels.items()},
                )
                for row in rows
            ]
        )

    @router.get("/preferences/defaults", summary="Default preferences")
    async def get_defaults(caller: Admin, role: RoleName = "") -> dict[str, Any]:
        """Of the tenant, or of one role."""
        return await preferences.get_defaults(caller.tenant, role)

    @router.put("/preferences/defaults", summary="Replace default preferences")
    async def replace_defaults(given: Given, caller: Admin, role: RoleName = "") -> dict[str, Any]:
        """They count at once for everybody who has not said otherwise."""
        return await preferences.replace_defaults(caller.tenant, role, given, by=caller)

    @router.get("/users/{user_id}/preferences", summary="A user's preferences")
    async def get_user(user_id: UUID, caller: Admin) -> dict[str, Any]:
        """For administrators."""
        await preferences.check_member(user_id, caller.tenant)
        return await preferences.get(user_id, caller.tenant)

    @router.put("/users/{user_id}/preferences", summary="Replace a user's preferences")
    async def replace_user(user_id: UUID, given: Given, caller: Admin) -> dict[str, Any]:
        """For administrators; the user's devices are told."""
        await preferences.check_member(user_id, caller.tenant)
        return await preferences.replace(user_id, caller.tenant, given)

    return router
