"""Reports of erasures over REST: what was erased about whom, signed, and the keys that prove it."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy import select

from notification_service.clock import Clock
from notification_service.db.engine import Database
from notification_service.errors import NotFound
from notification_service.identity.access import Caller
from notification_service.personal_data.models import erasures
from notification_service.personal_data.report import ReportSigner
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from shared_contracts.scopes import Scope


class ErasureOut(BaseModel):
    """How far the erasure of one user's data has come."""

    user_id: UUID
    tenant: str
    requested_at: AwareDatetime
    sweeps: int = Field(description="How often everything was searched for the user; three times in 20 minutes.")
    is_complete: bool = Field(description="Nothing more is searched.")
    erased: dict[str, int] = Field(description="What was found and erased, by kind.")
    report: str = Field(
        description="The same as a JWS (RFC 7515, EdDSA, type `herald-erasure-report+jwt`) with `iss`, `sub`, `iat`."
    )


class KeySetOut(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, str]]


def make_erasure_router(database: Database, clock: Clock, callers: Callers, signer: ReportSigner) -> APIRouter:
    """`/erasures`."""
    router = APIRouter(prefix="/api/v1/erasures", tags=["erasures"], route_class=JsonRoute)
    Auditor = Annotated[Caller, Depends(callers.needs(Scope.AUDIT_READ))]  # noqa: N806 - a type

    @router.get("/keys", summary="Keys that prove reports of erasures")
    async def keys() -> KeySetOut:
        """For everybody. Keys that were replaced stay here as long as `INTERNAL_SERVICE_KEY` names their secrets."""
        return KeySetOut.model_validate(signer.public_keys)

    @router.get("/{user_id}", summary="Report of an erasure")
    async def get_one(user_id: UUID, caller: Auditor) -> ErasureOut:
        """What this service found and erased of a user of the caller's tenant whose account was erased."""
        async with database.read() as connection:
            found = await connection.execute(
                select(erasures).where(erasures.c.user_id == user_id, erasures.c.tenant == caller.tenant)
            )
            row = found.one_or_none()
        if row is None:
            raise NotFound("no erasure of this user is known")
        told: dict[str, Any] = {
            "tenant": row.tenant,
            "requested_at": row.requested_at,
            "sweeps": row.sweeps,
            "is_complete": row.next_sweep_at is None,
            "erased": dict(sorted(row.report.items())),
        }
        claims = {**told, "requested_at": row.requested_at.isoformat()}
        report = signer.sign(claims, user_id=str(user_id), now=clock.now())
        return ErasureOut(user_id=user_id, report=report, **told)

    return router
