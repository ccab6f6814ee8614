from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection

from auth_service import clock
from auth_service.errors import RateLimited
from auth_service.rate_limits.models import RateCount


@dataclass(frozen=True)
class Limit:
    """At most `count` in `window`. The window opens at the first count and ends by itself; nothing stays locked."""

    name: str
    count: int
    window: timedelta


@dataclass(frozen=True)
class Use:
    """One key counted against one limit."""

    limit: Limit
    key: str

    @property
    def row_key(self) -> str:
        """Hashed: a key may be an address or what someone typed."""
        return hashlib.sha256(f"{self.limit.name}\x00{self.key}".encode()).hexdigest()


def check_below(*uses: Use) -> None:
    """Refuse when one of these has reached its limit. Counts nothing; one query.

    Raises:
        RateLimited: With the time until the longest of the reached windows ends.
    """
    now_ms = _now_ms()
    by_key = {use.row_key: use for use in uses}
    rows = RateCount.objects.filter(key__in=by_key, window_ends_ms__gt=now_ms)
    waits = [row.window_ends_ms - now_ms for row in rows if row.count >= by_key[row.key].limit.count]
    if waits:
        raise RateLimited(timedelta(milliseconds=max(waits)))


def do_count(use: Use) -> int:
    """Count one and answer how many that makes in this window. One atomic statement, outside any transaction."""
    now_ms = _now_ms()
    table = RateCount._meta.db_table  # noqa: SLF001 - Django's documented way to a model's table
    sql = (
        f"INSERT INTO {table} (key, count, window_ends_ms) VALUES (%s, 1, %s) "  # noqa: S608 - a constant
        "ON CONFLICT (key) DO UPDATE SET "
        f"count = CASE WHEN {table}.window_ends_ms <= %s THEN 1 ELSE {table}.count + 1 END, "
        f"window_ends_ms = CASE WHEN {table}.window_ends_ms <= %s THEN excluded.window_ends_ms "
        f"ELSE {table}.window_ends_ms END RETURNING count"
    )
    ends_ms = now_ms + int(use.limit.window.total_seconds() * 1_000)
    with connection.cursor() as cursor:
        cursor.execute(sql, [use.row_key, ends_ms, now_ms, now_ms])
        return int(cursor.fetchone()[0])


def do_count_within(*uses: Use) -> None:
    """Count one of each, then refuse when that was one too many.

    Raises:
        RateLimited: With the time until the window ends.
    """
    if any([do_count(use) > use.limit.count for use in uses]):  # noqa: C419 - all are counted, whatever the first says
        check_below(*uses)


def do_forget(use: Use) -> None:
    """Start over, after a success."""
    RateCount.objects.filter(key=use.row_key).delete()


def do_prune() -> int:
    """Delete rows whose window has ended; answer how many."""
    return RateCount.objects.filter(window_ends_ms__lte=_now_ms()).delete()[0]


def _now_ms() -> int:
    return int(clock.now().timestamp() * 1_000)
