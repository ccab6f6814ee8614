"""The analytics summary over REST, from rolled-up hours."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from notification_service.analytics.latency import add, percentile
from notification_service.analytics.repository import COUNTS, hour_of, read_hours
from notification_service.clock import Clock
from notification_service.db.base import AnyRow
from notification_service.db.engine import Database
from notification_service.identity.access import Caller
from notification_service.rest.callers import Callers
from notification_service.rest.json_route import JsonRoute
from shared_contracts.json_types import Moment
from shared_contracts.scopes import Scope

MAX_DAYS = 92


class OutcomesOut(BaseModel):
    """Deliveries by how far they came; one that was read was delivered and sent, too."""

    sent: int = 0
    delivered: int = 0
    acked: int = 0
    read: int = 0
    failed: int = 0
    suppressed: int = 0


class LatencyOut(BaseModel):
    """Until a delivery was handed over, in milliseconds (upper bounds of classes); null when there is nothing."""

    p50_ms: int | None
    p95_ms: int | None
    p99_ms: int | None


class BucketOut(OutcomesOut):
    """One bucket of time."""

    start: AwareDatetime


class SummaryOut(BaseModel):
    """What went out in a time."""

    since: AwareDatetime = Field(serialization_alias="from")
    until: AwareDatetime = Field(serialization_alias="to")
    bucket: Literal["hour", "day"]
    totals: OutcomesOut
    by_channel: dict[str, OutcomesOut]
    by_event_type: dict[str, OutcomesOut]
    buckets: list[BucketOut]
    latency: LatencyOut
    latency_by_channel: dict[str, LatencyOut]


class SummaryQuery(BaseModel):
    """Which time; left out: the last seven days."""

    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = Field(default=None, alias="to")
    bucket: Literal["hour", "day"] = "day"

    @model_validator(mode="after")
    def _check_length(self) -> "SummaryQuery":
        if self.since is not None and self.until is not None:
            if self.since >= self.until:
                raise ValueError("from must be before to")
            if self.until - self.since > timedelta(days=MAX_DAYS):
                raise ValueError(f"at most {MAX_DAYS} days at once")
        return self


def make_analytics_router(database: Database, clock: Clock, callers: Callers) -> APIRouter:
    """`/analytics/summary`."""
    router = APIRouter(prefix="/api/v1/analytics", tags=["analytics"], route_class=JsonRoute)

    @router.get("/summary", summary="How many went which way")
    async def get_summary(
        caller: Annotated[Caller, Depends(callers.needs(Scope.ANALYTICS_READ))],
        query: Annotated[SummaryQuery, Query()],
    ) -> SummaryOut:
        """Of the caller's tenant, by whole hours; at most a minute behind."""
        until = query.until or clock.now()
        since = hour_of(query.since or until - timedelta(days=7))
        async with database.read() as connection:
            rows = await read_hours(connection, tenant=caller.tenant, since=since, until=until)
        return summarise(rows, since=since, until=until, bucket=query.bucket)

    return router


def summarise(
    rows: Sequence[AnyRow], *, since: datetime, until: datetime, bucket: Literal["hour", "day"]
) -> SummaryOut:
    """Add hours up by channel, by event type, and by bucket."""
    totals = OutcomesOut()
    by_channel: dict[str, OutcomesOut] = {}
    by_type: dict[str, OutcomesOut] = {}
    buckets: dict[datetime, BucketOut] = {}
    latencies: dict[str, dict[str, int]] = {}
    for row in rows:
        start = row.hour if bucket == "hour" else row.hour.replace(hour=0)
        for counts in (
            totals,
            by_channel.setdefault(row.channel, OutcomesOut()),
            by_type.setdefault(row.event_type, OutcomesOut()),
            buckets.setdefault(start, BucketOut(start=start)),
        ):
            for name in COUNTS:
                setattr(counts, name, getattr(counts, name) + getattr(row, name))
        latencies[row.channel] = add(latencies.get(row.channel, {}), row.latencies)
    everything: dict[str, int] = {}
    for histogram in latencies.values():
        everything = add(everything, histogram)
    return SummaryOut(
        since=since,
        until=until,
        bucket=bucket,
        totals=totals,
        by_channel=by_channel,
        by_event_type=by_type,
        buckets=[buckets[start] for start in sorted(buckets)],
        latency=_describe(everything),
        latency_by_channel={channel: _describe(histogram) for channel, histogram in sorted(latencies.items())},
    )


def _describe(histogram: dict[str, int]) -> LatencyOut:
    return LatencyOut(
        p50_ms=percentile(histogram, 0.5), p95_ms=percentile(histogram, 0.95), p99_ms=percentile(histogram, 0.99)
    )
