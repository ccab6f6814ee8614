"""What only the running server can show: several workers, real sockets, real load."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import psycopg
import pytest
from auth_kit import PASSWORD
from auth_server import Server, running

from auth_service.config.environment import DEVELOPMENT_INTERNAL_KEY


def switch_off(server: Server, user_id: str) -> None:
    """As somebody does who has the database's password."""
    statement = "UPDATE accounts_user SET is_active = false WHERE id = "
    if server.database.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(server.database.removeprefix("sqlite:///"), timeout=30)) as connected:
            connected.execute(statement + "?", [user_id.replace("-", "")])
            connected.commit()
    else:
        with psycopg.connect(server.database) as elsewhere:
            elsewhere.execute(statement + "%s", [user_id])


def until(condition: Callable[[], bool], limit_s: float = 15) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def register(server: Server, name: str) -> dict[str, Any]:
    body = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    answer = server.post("/api/v1/auth/register", body)
    assert answer.status_code == 201, answer.text
    user: dict[str, Any] = answer.json()
    return user


def metric(server: Server, line: str) -> float:
    text = server.get("/metrics").text
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.req("J01")
def test_a_server_with_all_its_parts_is_ready(server: Server) -> None:
    for path in ("/health/", "/health/live", "/health/ready", "/health/database", "/health/broker"):
        answer = server.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok"), path


@pytest.mark.req("H15")
@pytest.mark.only_on("postgresql")
def test_connections_that_the_database_closed_fail_no_request(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.log_in('alice', 'herald-alice')['access']}"}

    def ask(_: int) -> int:
        return server.http.get("/api/v1/users/me", headers=headers).status_code

    ended = 0
    with ThreadPoolExecutor(16) as pool:
        for _ in range(2):
            assert set(pool.map(ask, range(48))) == {200}
            ended += end_connections(server)
            # The first requests after, at once and of both workers.
            assert set(pool.map(ask, range(16))) == {200}
    assert ended >= 4


def end_connections(server: Server) -> int:
    """As a restart of the database does; only those at rest, whose loss the service cannot have noticed."""
    at_rest = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
    with psycopg.connect(server.database, autocommit=True) as elsewhere:
        ended = [pid for pid, _ in elsewhere.execute(f"SELECT pid, pg_terminate_backend(pid) {at_rest}").fetchall()]
        left = "SELECT 1 FROM pg_stat_activity WHERE pid = ANY(%s)"
        until(lambda: elsewhere.execute(left, [ended]).fetchone() is None)
    return len(ended)


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server without a broker, whose tokens and keys live for seconds."""
    more = {"AUTH_KEY_PUBLISH_AHEAD": "1", "AUTH_ACCESS_LIFETIME": "2", "AUTH_WORKERS": "2"}
    own = Server(tmp_path_factory.mktemp("lonely"), new_database(), "amqp://x:y@127.0.0.1:1/", more)
    with running(own) as started:
        yield started


@pytest.mark.req("J01")
@pytest.mark.only_on("sqlite")
def test_a_server_without_a_broker_lives_and_is_not_ready(lonely: Server) -> None:
    assert lonely.get("/health/live").status_code == 200
    ready = lonely.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]["broker"]) == (503, "the broker does not answer")
    assert "Retry-After" in ready.headers
    assert register(lonely, "someone")["id"]


@pytest.mark.req("B07")
def test_fifty_logins_at_once_do_not_hold_up_the_health_route(server: Server) -> None:
    names = [f"crowd{number}" for number in range(50)]
    for name in names:
        register(server, name)
    waits_ms: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            started_s = time.perf_counter()
            assert server.get("/health/live").status_code == 200
            waits_ms.append((time.perf_counter() - started_s) * 1_000)
            time.sleep(0.005)

    def log_in(name: str) -> tuple[str, float]:
        started_s = time.perf_counter()
        session_id = server.log_in(name)["session_id"]
        return session_id, (time.perf_counter() - started_s) * 1_000

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(50) as pool:
            timed = list(pool.map(log_in, names))
    finally:
        done.set()
        watcher.join()

    assert len({session_id for session_id, _ in timed}) == 50
    # Logins wait for each other, the health route for none of them: on a machine however busy it is the faster one.
    assert statistics.median(waits_ms) < statistics.median(took_ms for _, took_ms in timed) / 2


@pytest.mark.req("B01")
def test_workers_count_failures_together(server: Server) -> None:
    register(server, "guessed")
    wrong = {"username": "guessed", "password": "wrong"}

    def guess(_: int) -> int:
        return server.post("/api/v1/auth/token", wrong).status_code

    statuses = [guess(number) for number in range(8)]
    assert statuses == [401] * 5 + [429] * 3
    right = server.post("/api/v1/auth/token", {"username": "guessed", "password": PASSWORD})
    assert (right.status_code, right.json()["code"]) == (429, "rate_limited")
    assert 0 < int(right.headers["Retry-After"]) <= 300


@pytest.mark.req("B01")
def test_a_burst_of_guesses_learns_no_more_than_five(server: Server) -> None:
    register(server, "burst")
    bodies = [{"username": "burst", "password": f"wrong {number}"} for number in range(30)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda body: server.post("/api/v1/auth/token", body), bodies))
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(401), statuses.count(429)) == (5, 25)


@pytest.mark.req("B01")
def test_a_login_in_the_middle_of_a_burst_gives_five_more_tries_and_no_sixth(server: Server) -> None:
    register(server, "interrupted")
    bodies = [{"username": "interrupted", "password": f"wrong {number}"} for number in range(29)]
    bodies.insert(3, {"username": "interrupted", "password": PASSWORD})
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda body: server.post("/api/v1/auth/token", body), bodies))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) <= (10 if 200 in statuses else 5)
    assert set(statuses) <= {200, 401, 429}


@pytest.mark.req("A11")
@pytest.mark.only_on("sqlite")
def test_keys_rotate_under_load(lonely: Server) -> None:
    tokens = lonely.log_in("alice", "herald-alice")
    refused: list[str] = []
    kids: set[str] = set()
    stop = threading.Event()

    def live() -> None:
        access, refresh = tokens["access"], tokens["refresh"]
        while not stop.wait(0.02):
            expires_at = jwt.decode(access, options={"verify_signature": False})["exp"]
            answer = lonely.get("/api/v1/users/me", access)
            # On a machine that stood still meanwhile it is right to refuse an old token.
            if answer.status_code != 200 and time.time() < expires_at:
                refused.append(answer.text)
            published = {key["kid"] for key in lonely.get("/.well-known/jwks.json").json()["keys"]}
            kid = jwt.get_unverified_header(access)["kid"]
            kids.add(kid)
            if kid not in published and time.time() < expires_at:
                refused.append("a token of a key that is not published")
            if expires_at - time.time() < 1:
                renewed = lonely.post("/api/v1/auth/token/refresh", {"refresh": refresh}).json()
                access, refresh = renewed["access"], renewed["refresh"]

    worker = threading.Thread(target=live)
    worker.start()
    until(lambda: len(kids) == 1, 60)
    old = next(iter(kids))
    first = tokens["access"]
    lonely.run("rotate_keys")
    until(lambda: len(kids) == 2, 60)
    # A token's life and the leeway after the new key began to sign, the old one is gone.
    until(lambda: old not in {key["kid"] for key in lonely.get("/.well-known/jwks.json").json()["keys"]}, 60)
    stop.set()
    worker.join()
    assert refused == []
    assert lonely.get("/api/v1/users/me", first).status_code == 401


def test_all_workers_count_into_the_same_metrics(server: Server) -> None:
    line = 'http_requests_total{method="GET",route="/api/v1/users/me",status="401"}'
    before = metric(server, line)
    for _ in range(20):
        server.get("/api/v1/users/me")
    assert metric(server, line) == before + 20
    until(lambda: metric(server, "outbox_pending") == 0)
    assert metric(server, 'publish_total{outcome="ok"}') > 0


@pytest.mark.req("A19")
def test_an_account_switched_off_by_sql_is_told_within_seconds(server: Server) -> None:
    user = register(server, "offbysql")
    tokens = server.log_in("offbysql")
    switch_off(server, user["id"])
    told = server.post(
        "/internal/v1/tokens/introspect", {"token": tokens["access"]}, X_Internal_Key=DEVELOPMENT_INTERNAL_KEY
    )
    assert told.json() == {"active": False}
    admin = server.log_in("admin", "herald-admin")["access"]
    path = f"/api/v1/audit-events?action=user.deactivated&subject_id={user['id']}"
    until(lambda: bool(server.get(path, admin).json()["items"]))


@pytest.mark.req("E01")
def test_chunked_bodies_are_read_up_to_the_limit(server: Server) -> None:
    def chunks(text: bytes, times: int) -> Any:
        for _ in range(times):
            yield text

    small = server.http.post(
        "/api/v1/auth/token",
        content=chunks(b'{"username":"alice","password":"herald-alice"}', 1),
        headers={"Content-Type": "application/json"},
    )
    assert small.status_code == 200
    big = server.http.post(
        "/api/v1/auth/token",
        content=chunks(b"x" * 65_536, 40),
        headers={"Content-Type": "application/json"},
    )
    assert (big.status_code, big.json()["code"]) == (413, "too_large")


def raw(server: Server, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as peer:
        peer.sendall(text)
        peer.settimeout(10)
        return peer.recv(4096)


@pytest.mark.req("E11")
def test_a_request_with_two_lengths_is_refused(server: Server) -> None:
    answer = raw(
        server,
        b"POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.req("A10")
def test_a_token_too_long_for_a_header_is_refused(server: Server) -> None:
    answer = raw(
        server,
        b"GET /api/v1/users/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"a" * 20_000 + b"\r\n\r\n",
    )
    assert answer.split(b" ")[1] in {b"401", b"400", b"431"}
