"""What holds for every request: limits, ids, slashes, and errors that all look alike (E01, E02, E09, E11, G03, G05)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from service import Service
from structlog.testing import capture_logs

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEND = "/api/v1/notifications/send"


def check_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "correlation_id"} <= set(problem)
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, f"urn:herald:problem:{code}")
    assert problem["correlation_id"] == answer.headers["x-correlation-id"]
    return problem


async def test_every_answer_has_a_correlation_id_the_callers_own_if_it_is_one(service: Service) -> None:
    answer = await service.get("/health/live", headers={"X-Correlation-Id": "my-own.id~1"})
    assert answer.headers["x-correlation-id"] == "my-own.id~1"
    for odd in ("short", "x" * 65, "with space", "new\tline", "ü" * 8):
        answer = await service.get("/health/live", headers={"X-Correlation-Id": odd.encode()})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-correlation-id"])
    first, second = [(await service.get("/nothing")).headers["x-correlation-id"] for _ in range(2)]
    assert first != second


async def test_no_answer_may_be_cached_framed_or_guessed_at(service: Service) -> None:
    for path in ("/health/live", "/nothing", "/api/v1/inbox"):
        headers = (await service.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


async def test_a_trailing_slash_is_accepted_everywhere(service: Service) -> None:
    person = service.add_person("admin")
    paths = ["/api/v1/inbox", "/api/v1/inbox/counts", "/api/v1/event-types", "/api/v1/dead-letters", "/health/ready"]
    for path in (*paths, "/health", "/metrics", "/api/openapi.json"):
        plain, slash = await service.get(path, person), await service.get(path + "/", person)
        assert (plain.status_code, slash.status_code) == (200, 200), path
    assert (await service.get("/api/v1/inbox//", person)).status_code == 200
    assert (await service.post(SEND + "/", service.add_person(), {})).status_code == 403


async def test_unknown_routes_and_wrong_methods(service: Service) -> None:
    for path in ("/nothing", "/api/v1/nothing", "/api/v1/inbox/x/y/z", "/api/v1/notifications/send/batch/more"):
        check_problem(await service.get(path), 404, "not_found")
    wrong = await service.call("DELETE", "/api/v1/inbox", service.add_person())
    check_problem(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET"
    both = await service.call("OPTIONS", f"/api/v1/users/{uuid4()}/preferences", service.add_person())
    assert (both.status_code, both.headers["allow"]) == (405, "GET, PUT")
    # Not the item `counts`.
    beside = await service.call("PATCH", "/api/v1/inbox/counts/", service.add_person(), json={"read": True})
    check_problem(beside, 405, "method_not_allowed")
    assert beside.headers["allow"] == "GET"


@pytest.mark.req("E09")
async def test_other_methods_and_overrides(service: Service) -> None:
    person = service.add_person()
    for method in ("TRACE", "CONNECT", "PROPFIND"):
        answer = await service.call(method, "/api/v1/inbox", person)
        assert answer.status_code in (400, 405), method
    answer = await service.get("/api/v1/inbox", person, headers={"X-HTTP-Method-Override": "DELETE"})
    assert answer.status_code == 200


@pytest.mark.req("E09")
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"])
async def test_a_body_that_is_not_declared_as_json(service: Service, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await service.call("POST", SEND, service.add_person("publisher"), content=b"{}", headers=headers)
    check_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON; charset=utf-8", "application/merge-patch+json"]
)
async def test_a_body_that_is(service: Service, kind: str) -> None:
    answer = await service.call(
        "POST", SEND, service.add_person("publisher"), content=b"{}", headers={"Content-Type": kind}
    )
    check_problem(answer, 422, "invalid_schema")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b'{"title": "\xff"}', b'{"a":1}{"b":2}', b"NaN", b"undefined"]
)
async def test_a_body_that_is_not_json(service: Service, body: bytes) -> None:
    answer = await service.call(
        "POST",
        SEND,
        service.add_person("publisher"),
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 422)
    check_problem(answer, answer.status_code, "invalid_json" if answer.status_code == 400 else "invalid_schema")


@pytest.mark.req("E01")
@pytest.mark.req("E02")
async def test_a_body_beyond_the_limit_of_its_path(service: Service) -> None:
    sender = service.add_person("admin", tenant=service.add_tenant())

    def body(size: int) -> bytes:
        frame = b'{"title":"t","recipients":{"all":true},"body":"%s"}'
        return frame % (b"x" * (size - len(frame) + 2))

    async def post(path: str, content: Any) -> Any:
        return await service.call("POST", path, sender, content=content, headers={"Content-Type": "application/json"})

    assert len(body(64 * 1024)) == 64 * 1024
    assert (await post(SEND, body(64 * 1024))).status_code == 202
    for path in (SEND, SEND + "/"):
        problem = check_problem(await post(path, body(64 * 1024 + 1)), 413, "too_large")
        assert "65536" in problem["detail"]
    check_problem(await post(SEND, body(10_000_000)), 413, "too_large")
    check_problem(await post("/api/v1/event-types", b" " * (256 * 1024 + 1)), 413, "too_large")


@pytest.mark.req("E01")
async def test_a_body_without_a_length_is_cut_off_where_the_limit_is(service: Service) -> None:
    sent = 0

    async def pieces(count: int) -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(count):
            sent += 1024
            yield b" " * 1024

    sender = service.add_person("publisher")
    headers = {"Content-Type": "application/json"}
    answer = await service.call("POST", SEND, sender, content=pieces(200), headers=headers)
    check_problem(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"
    # Within the limit the chunks are one body.
    answer = await service.call("POST", SEND, sender, content=pieces(10), headers=headers)
    check_problem(answer, 400, "invalid_json")


async def _talk(service: Service, request: bytes, *, more: bytes = b"", pieces: int = 0) -> bytes:
    """One request as raw bytes; what came back until the connection closed or 10 s passed."""
    parts = urlsplit(service.urls["api"])
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request)
    received = b""
    try:
        async with asyncio.timeout(20):
            for _ in range(pieces):
                writer.write(more)
                await writer.drain()
            received = await reader.read(-1)
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.close()
    return received


@pytest.mark.req("E01")
async def test_an_endless_body_is_answered_and_the_connection_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long what still comes is read and thrown away, so that the client sees the answer: 5 s in production.
    monkeypatch.setattr("notification_service.rest.middleware._DRAIN_LIMIT_S", 0.3)
    token = service.add_person("publisher").token
    head = (
        f"POST {SEND} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    received = await _talk(service, head.encode(), more=chunk, pieces=20)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"too_large" in received


@pytest.mark.req("E11")
async def test_a_length_and_a_transfer_encoding_together(service: Service) -> None:
    head = (
        f"POST {SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    received = await _talk(service, head.encode())
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b'{"status":"ok"}' not in received  # what was smuggled behind it is not answered


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999"])
async def test_a_length_that_is_none(service: Service, length: str) -> None:
    head = f"POST {SEND} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    received = await _talk(service, head.encode())
    assert received.split(b" ")[1] in (b"400", b"413")


@pytest.mark.req("G03")
async def test_a_fault_of_ours_tells_nothing_and_can_be_found_in_the_log(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("SELECT secret FROM /srv/herald")

    monkeypatch.setattr(service.parts["api"].inbox, "get_page", fail)
    answer = await service.get("/api/v1/inbox", service.add_person(), headers={"X-Correlation-Id": "find-me-again"})
    problem = check_problem(answer, 500, "internal_error")
    assert problem["correlation_id"] == "find-me-again"
    for word in ("secret", "herald/", "Traceback", "RuntimeError"):
        assert word not in answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.req("G05")
async def test_other_sites_may_not_read_answers(service: Service) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8000.evil.example", "https://127.0.0.1:8000"):
        answer = await service.get("/health/live", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
    own = await service.get("/health/live", headers={"Origin": "http://127.0.0.1:8000"})
    assert own.headers["access-control-allow-origin"] == "http://127.0.0.1:8000"
    assert "access-control-allow-credentials" not in own.headers
    asked = await service.call(
        "OPTIONS",
        SEND,
        headers={
            "Origin": "http://127.0.0.1:8000",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key",
        },
    )
    assert asked.status_code == 200
    assert "Idempotency-Key" in asked.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        (None, "not_authenticated", "Bearer"),
        ("", "not_authenticated", "Bearer"),
        ("Bearer", "not_authenticated", "Bearer"),
        ("Basic YTpi", "not_authenticated", "Bearer"),
        ("Bearer x.y.z", "invalid_token", 'Bearer error="invalid_token"'),
        ("bearer x.y.z", "invalid_token", 'Bearer error="invalid_token"'),
    ],
)
async def test_who_shows_no_good_token(service: Service, authorization: str | None, code: str, challenge: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await service.get("/api/v1/inbox", headers=headers)
    check_problem(answer, 401, code)
    assert answer.headers["www-authenticate"] == challenge


async def test_an_expired_token_says_so(service: Service) -> None:
    token = service.auth.token(exp=1)
    answer = await service.get("/api/v1/inbox", headers={"Authorization": f"Bearer {token}"})
    check_problem(answer, 401, "token_expired")


async def test_health_and_metrics_are_not_logged(service: Service) -> None:
    with capture_logs() as logs:
        await service.get("/health/live")
        await service.get("/metrics")
        await service.get("/nothing?token=s3cr3t")
    lines = [entry for entry in logs if entry["event"] == "request_answered"]
    assert [entry["path"] for entry in lines] == ["/nothing"]
    assert "s3cr3t" not in json.dumps(lines, default=str)
