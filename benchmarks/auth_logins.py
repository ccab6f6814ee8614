"""What fifty people who log in at once do to everybody else, with the password hashing of production (B07).

Run: .venv/bin/python -m benchmarks.auth_logins [--at-once N] [--seconds N]

Starts a PostgreSQL cluster and the auth service of its own. First nobody logs in; then N log in again and again, the
right password in hand. Meanwhile the health route and the introspection of a token are asked for every 10 ms each, as
load balancers and gateways do. The goal is a p99 of the health route below 200 ms.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY
from benchmarks.auth_setup import AuthSite, auth_site

GOAL_P99_MS = 200.0
PASSWORD = "a phrase for the crowd"  # noqa: S105 - of a database that is thrown away
_PAUSE_S = 0.01


def make_people(site: AuthSite, count: int) -> list[str]:
    names = [f"crowd{number}" for number in range(count)]
    items = [{"username": name, "password": PASSWORD} for name in names]
    answer = site.client.post("/api/v1/users/batch", json={"items": items}, timeout=120)
    assert {item["status"] for item in answer.json()["items"]} == {201}, answer.text
    return names


def watch(call: Callable[[], httpx.Response], took_ms: list[float], done: threading.Event) -> None:
    while not done.is_set():
        started_s = time.perf_counter()
        call().raise_for_status()
        took_ms.append((time.perf_counter() - started_s) * 1_000)
        time.sleep(_PAUSE_S)


def measure(site: AuthSite, names: list[str], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each call, by what it was, while these people log in."""
    token = site.client.headers["Authorization"].removeprefix("Bearer ")
    key = {"X-Internal-Key": DEVELOPMENT_INTERNAL_KEY}
    took_ms: dict[str, list[float]] = {"health": [], "introspection": [], "login": []}
    done = threading.Event()
    limits = httpx.Limits(max_connections=len(names) + 2, max_keepalive_connections=0)
    with httpx.Client(base_url=site.url, timeout=60, trust_env=False, limits=limits) as client:
        calls: dict[str, Callable[[], httpx.Response]] = {
            "health": lambda: client.get("/health/live"),
            "introspection": lambda: client.post("/internal/v1/tokens/introspect", json={"token": token}, headers=key),
        }

        def log_in(name: str) -> None:
            body = {"username": name, "password": PASSWORD}
            while not done.is_set():
                started_s = time.perf_counter()
                client.post("/api/v1/auth/token", json=body).raise_for_status()
                took_ms["login"].append((time.perf_counter() - started_s) * 1_000)

        with ThreadPoolExecutor(len(names) + len(calls)) as pool:
            running = [pool.submit(watch, call, took_ms[name], done) for name, call in calls.items()]
            running += [pool.submit(log_in, name) for name in names]
            time.sleep(seconds)
            done.set()
            for each in running:
                each.result()
    return took_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with auth_site() as site:
        names = make_people(site, options.at_once)
        alone = measure(site, [], options.seconds / 4)
        beside = measure(site, names, options.seconds)
    print(f"{options.at_once} people log in again and again for {options.seconds:.0f} s, ms per call")
    print(f"{'call':<28}{'count':>8}{'p50':>8}{'p99':>8}{'max':>8}")
    rows = itertools.chain(
        ((f"{name}, nobody logs in", took_ms) for name, took_ms in alone.items() if took_ms), beside.items()
    )
    for name, took_ms in rows:
        p99 = statistics.quantiles(took_ms, n=100)[98]
        print(f"{name:<28}{len(took_ms):>8}{statistics.median(took_ms):>8.1f}{p99:>8.1f}{max(took_ms):>8.1f}")
    worst = statistics.quantiles(beside["health"], n=100)[98]
    print(f"{len(beside['login']) / options.seconds:.0f} logins a second")
    print(f"goal: p99 of the health route below {GOAL_P99_MS:.0f} ms: {'reached' if worst < GOAL_P99_MS else 'missed'}")


if __name__ == "__main__":
    main()
