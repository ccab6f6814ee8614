"""Health and metrics of every process: alive is one thing, ready another (J01; requirements 0.2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from auth_site import INTERNAL_KEY, AuthSite
from service import Service, running_service
from tcp_proxy import proxy_to
from waiting import until


async def page(service: Service, name: str, process: str = "api") -> tuple[int, dict[str, Any]]:
    answer = await service.get(f"/health/{name}", process=process)
    body: dict[str, Any] = answer.json()
    if answer.status_code == 503:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, body


async def has_status(service: Service, name: str, status: int, process: str = "api") -> bool:
    return (await page(service, name, process))[0] == status


@pytest.mark.req("J01")
@pytest.mark.asyncio(loop_scope="session")
async def test_every_process_has_its_pages(service: Service) -> None:
    common = {"database", "broker", "workers"}
    for process, checks in (("api", common | {"keys"}), ("worker", common), ("scheduler", common)):
        for name in ("live", "ready", "", *sorted(checks)):
            status, body = await page(service, name, process)
            assert (status, body["status"]) == (200, "ok"), (process, name)
        summary = (await page(service, "", process))[1]["checks"]
        assert checks <= set(summary), process
        assert set(summary.values()) == {"ok"}
        assert (await service.get("/health", process=process)).json() == (await page(service, "", process))[1]
        assert (await service.get("/health/nothing", process=process)).status_code == 404
    # Only the API serves the API.
    assert (await service.get("/api/v1/inbox", process="worker")).status_code == 404
    assert (await service.get("/api/openapi.json", process="scheduler")).status_code == 404


@pytest.mark.req("J01")
async def test_without_a_broker_it_is_alive_and_not_ready_and_heals(
    auth: AuthSite, amqp_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    database_url = f"sqlite:///{tmp_path}/notify.sqlite3"
    (tmp_path / "notify.sqlite3").write_bytes(sqlite_template.read_bytes())  # noqa: ASYNC240 - a small file
    async with (
        proxy_to(amqp_url) as proxy,
        running_service(
            auth,
            amqp_url=proxy.through(amqp_url),
            outside_url=amqp_url,
            database_url=database_url,
            run_dir=tmp_path,
            processes=("api", "worker"),
        ) as running,
    ):
        await proxy.refuse()
        for process in ("api", "worker"):
            await until(lambda process=process: has_status(running, "ready", 503, process))
            status, body = await page(running, "ready", process)
            assert (status, body["checks"]["broker"], body["checks"]["database"]) == (503, "unavailable", "ok")
            assert await has_status(running, "live", 200, process)
            assert await has_status(running, "broker", 503, process)
            assert await has_status(running, "database", 200, process)
            assert await has_status(running, "workers", 503, process)
        # What can be stored is taken: the outbox has it.
        sender = running.add_person("publisher")
        sent = await running.send(sender, sender)
        await proxy.listen()
        for process in ("api", "worker"):
            await until(lambda process=process: has_status(running, "ready", 200, process))
        assert (await running.get(f"/api/v1/notifications/status/{sent}", sender)).status_code == 200


@pytest.mark.req("A13")
@pytest.mark.req("J01")
async def test_without_keys_the_api_is_not_ready(
    auth: AuthSite, amqp_url: str, sqlite_template: Path, tmp_path: Path
) -> None:
    (tmp_path / "notify.sqlite3").write_bytes(sqlite_template.read_bytes())  # noqa: ASYNC240 - a small file
    auth.is_down = True
    async with running_service(
        auth,
        amqp_url=amqp_url,
        database_url=f"sqlite:///{tmp_path}/notify.sqlite3",
        run_dir=tmp_path,
        processes=("api",),
        ready=False,
    ) as running:
        await until(lambda: has_status(running, "broker", 200))
        status, body = await page(running, "ready")
        assert (status, body["checks"]["keys"]) == (503, "unavailable")
        assert await has_status(running, "live", 200)
        auth.is_down = False
        await until(lambda: has_status(running, "ready", 200))


@pytest.mark.req("G04")
async def test_in_production_metrics_and_documents_need_the_internal_key(
    auth: AuthSite, amqp_url: str, migrated_url: str, tmp_path: Path
) -> None:
    async with running_service(
        auth,
        amqp_url=amqp_url,
        database_url=migrated_url,
        run_dir=tmp_path,
        processes=("api",),
        environment="production",
    ) as running:
        for path in ("/metrics", "/api/openapi.json", "/api/docs", "/api/asyncapi.json"):
            for headers in ({}, {"X-Internal-Key": "wrong"}, {"X-Internal-Key": ""}):
                assert (await running.get(path, headers=headers)).status_code == 401, path
            assert (await running.get(path, headers={"X-Internal-Key": INTERNAL_KEY})).status_code == 200, path
        assert await has_status(running, "ready", 200)


@pytest.mark.asyncio(loop_scope="session")
async def test_metrics_have_the_names_operators_alert_on_and_no_names_of_people(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    await service.deliver(sender, ada)
    await service.get("/api/v1/inbox", headers={"Authorization": "Bearer x.y.z"})
    await service.outside.publish(b"{", exchange="notifications.direct", key="private")

    async def text() -> str:
        answer = await service.get("/metrics", process="worker")
        assert answer.headers["content-type"].startswith("text/plain")
        return answer.text

    async def has_dead_letter() -> bool:
        return 'dead_letters_total{reason="invalid_json"}' in await text()

    await until(has_dead_letter)
    found = await text()
    for name in (
        "auth_token_rejected_total",
        "ws_connections",
        "ws_closed_total",
        "ws_send_buffer_bytes",
        "outbox_pending",
        "outbox_oldest_seconds",
        "publish_total",
        "publish_confirm_seconds_bucket",
        "amqp_blocked",
        "amqp_consumers_expected",
        "amqp_consumers_alive",
        "amqp_reconnects_total",
        "deliveries_total",
        "dead_letters_total",
        "duplicates_suppressed_total",
        "event_loop_lag_seconds",
    ):
        assert re.search(rf"^# TYPE {name.removesuffix('_bucket')} ", found, re.MULTILINE), name
    assert 'publish_total{outcome="ok"}' in found
    assert 'auth_token_rejected_total{reason="malformed"}' in found
    for line in found.splitlines():
        labels = line[line.find("{") : line.rfind("}") + 1] if "{" in line else ""
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", labels), line
        assert "user." not in labels, line
