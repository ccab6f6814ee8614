"""How long a page of users takes when there are 100,000 of them, on PostgreSQL, over HTTP.

Run: .venv/bin/python -m benchmarks.auth_user_list [--users N] [--pages N]

Starts a PostgreSQL cluster and the auth service of its own, fills it, reads pages by cursor one after the other, and
ends them. The goal is a p99 below 100 ms for every kind of list.
"""

from __future__ import annotations

import argparse
import statistics
import time

import httpx
import psycopg

from benchmarks.auth_setup import auth_site

GOAL_P99_MS = 100.0
FILL = """
INSERT INTO accounts_user (
    id, tenant_id, username, username_key, email, email_key, email_verified, external_id, locale, timezone, roles,
    is_active, created_at, updated_at, announced_is_active, announced_roles, search_text, password
)
SELECT
    gen_random_uuid(), 'default', 'user' || n, 'user' || n, 'user' || n || '@example.org',
    'user' || n || '@example.org', true, 'crm-' || n, 'en', 'UTC',
    CASE WHEN n %% 1000 = 0 THEN 'user staff' ELSE 'user' END, n %% 50 <> 0, now() - n * interval '1 second', now(),
    n %% 50 <> 0, CASE WHEN n %% 1000 = 0 THEN 'user staff' ELSE 'user' END,
    'user' || n || E'\\n' || 'user' || n || '@example.org' || E'\\n' || 'crm-' || n, '!'
FROM generate_series(1, %(count)s) AS n
"""
LISTS = {
    "newest first": "",
    "by name": "ordering=username",
    "active, by name": "is_active=true&ordering=username",
    "role staff": "role=staff",
    "search, common": "q=user1",
    "search, rare": "q=crm-99999",
    "200 a page": "limit=200",
}


def measure(client: httpx.Client, query: str, pages: int) -> list[float]:
    """Milliseconds of each page, from the first on, following the cursor."""
    took_ms: list[float] = []
    cursor = ""
    while len(took_ms) < pages:
        started_s = time.perf_counter()
        answer = client.get(f"/api/v1/users?{query}" + (f"&cursor={cursor}" if cursor else ""))
        took_ms.append((time.perf_counter() - started_s) * 1_000)
        answer.raise_for_status()
        cursor = answer.json()["next_cursor"] or ""
    return took_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()

    def fill(connection: psycopg.Connection) -> None:
        connection.execute(FILL, {"count": options.users})

    with auth_site(fill) as site:
        print(f"{options.users} users, {options.pages} pages each, 50 users a page, ms per page")
        print(f"{'list':<18}{'p50':>8}{'p99':>8}{'max':>8}")
        worst = 0.0
        for name, query in LISTS.items():
            measure(site.client, query, 5)
            took_ms = measure(site.client, query, options.pages)
            p99 = statistics.quantiles(took_ms, n=100)[98]
            worst = max(worst, p99)
            print(f"{name:<18}{statistics.median(took_ms):>8.1f}{p99:>8.1f}{max(took_ms):>8.1f}")
    print(f"goal: p99 below {GOAL_P99_MS:.0f} ms: {'reached' if worst < GOAL_P99_MS else 'missed'}")


if __name__ == "__main__":
    main()
