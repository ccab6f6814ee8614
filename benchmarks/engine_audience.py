"""One request to 100,000 people, and what it does to private messages meanwhile: the whole installation, PostgreSQL.

python -m benchmarks.engine_audience [--people 100000] [--per-s 200] [--seconds 20]
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from psycopg.types.json import Jsonb

from benchmarks.installation import Installation, installed
from benchmarks.load.agent import Agent
from benchmarks.load.process import LoadProcess
from benchmarks.people import People
from benchmarks.report import describe_machine
from herald_local.console import say

CONNECTED = 200
ROLE = "bench-audience"


def main() -> None:
    """Start everything, measure, end it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_audience", description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--per-s", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    say("bench", ", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    with installed(database="postgresql", fsync=True, settings={}) as running:
        assert running.cluster is not None
        load = LoadProcess(gateway_url=running.gateway_url, amqp_url=running.node.url)
        people = People(running.system.auth_url)
        try:
            _measure(running, running.cluster.url("notify"), load, people, options)
        finally:
            load.stop()
            people.close()


def _measure(running: Installation, database_url: str, load: LoadProcess, people: People, options: Any) -> None:
    load.call(Agent.open, people=people.get(CONNECTED), ack_every=1, at_once=32)
    _add_audience(database_url, options.people)
    load.call(Agent.pace_private, per_s=options.per_s, seconds=5.0)
    before = load.call(Agent.pace_private, per_s=options.per_s, seconds=options.seconds)
    took_ms = _send(running)
    started = time.monotonic()
    say("bench", f"a request to {options.people:,} people: answered in {took_ms:.0f} ms")
    clock = running.clock(load.pid)
    during = load.call(Agent.pace_private, per_s=options.per_s, seconds=options.seconds)
    with psycopg.connect(database_url, autocommit=True) as connection:
        served = _count(connection)
        say("bench", f"served while private messages were measured: {served:,}")
        while _count(connection) < options.people and time.monotonic() - started < 120:
            time.sleep(0.1)
        served, elapsed = _count(connection), time.monotonic() - started
    say("bench", f"served in all: {served:,} after {elapsed:.1f} s, {served / elapsed:,.0f} a second")
    say("bench", ", ".join(f"{name} {seconds:.1f} s of CPU" for name, seconds in clock.spent().items()))
    for name, flow in (("alone", before), ("beside it", during)):
        lost = flow.sent - flow.received
        figures = ", ".join(f"{point} {value:.1f} ms" for point, value in flow.latency_ms.items())
        say("bench", f"private messages {name}: {figures}, lost {lost}")
    say("bench", f"p95 beside it is {during.latency_ms['p95'] / before.latency_ms['p95']:.2f} times p95 alone")


def _send(running: Installation) -> float:
    body = {"title": "To many", "body": "Hello", "recipients": {"roles": [ROLE]}}
    with httpx.Client(trust_env=False, timeout=30) as client:
        token = client.post(
            f"{running.system.auth_url}/api/v1/auth/service-token",
            json={"client_id": "shop", "client_secret": "herald-shop-secret"},
        ).json()["access"]
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{running.gateway_url}/api/v1/notifications"
        # The connection, and the look at the token, are no part of it.
        client.get(f"{url}/history?limit=1", headers=headers).raise_for_status()
        started = time.monotonic()
        client.post(f"{url}/send", headers=headers, json=body).raise_for_status()
        return (time.monotonic() - started) * 1000


def _count(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "SELECT count(*) FROM mailbox_items i JOIN notifications n ON n.id = i.notification_id"
        " WHERE n.title = 'To many'"
    ).fetchone()
    return row[0] if row is not None else 0


def _add_audience(database_url: str, count: int) -> None:
    """Straight into the mirror: the auth service would take minutes for so many."""
    now = datetime.now(UTC)
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        with cursor.copy(
            "COPY identity_users (id, tenant, username, email_verified, locale, timezone, roles, is_active, created_at)"
            " FROM STDIN"
        ) as copy:
            for _ in range(count):
                user_id = uuid4()
                copy.write_row((user_id, "default", user_id.hex, False, "en", "UTC", Jsonb([ROLE]), True, now))
        cursor.execute("ANALYZE identity_users")


if __name__ == "__main__":
    main()
