from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aio_pika
import pytest
from auth_kit import Device, internal, log_in, make_admin, make_user, pages_of
from django.db import connection, transaction

from auth_service.accounts.actions import do_erase_user, do_update_user
from auth_service.accounts.models import User
from auth_service.audit.origin import SYSTEM
from auth_service.identity_events.actions import NewEvent, do_emit, get_revision
from auth_service.identity_events.models import OutboxEvent
from auth_service.identity_events.outbox import do_take_lease, find_pending, make_envelope
from auth_service.identity_events.relay import LEASE_NAME, Relay
from auth_service.tenants.models import Tenant
from herald_local.rabbitmq import RabbitNode
from shared_contracts.identity_events import (
    IdentityEventType,
    UnknownEvent,
    UserEvent,
    UserSnapshot,
    parse_identity_event,
)
from shared_contracts.ids import new_id
from shared_contracts.topology import IDENTITY_EVENTS


def revisions() -> list[int]:
    return list(OutboxEvent.objects.order_by("revision").values_list("revision", flat=True))


def test_every_change_leaves_an_event_in_the_wire_form(admin: Device) -> None:
    made = admin.post("/api/v1/users", {"username": "ada", "email": "ada@example.org"}).body
    user_id = made["id"]
    group = admin.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}).body["id"]
    admin.put(f"/api/v1/groups/{group}/members/{user_id}")
    admin.patch(f"/api/v1/groups/{group}", {"name": "Operations"})
    admin.patch(f"/api/v1/users/{user_id}", {"locale": "de"})
    admin.put(f"/api/v1/users/{user_id}/roles", {"roles": ["staff"]})
    admin.post(f"/api/v1/users/{user_id}/deactivate")
    admin.post(f"/api/v1/users/{user_id}/activate")
    admin.delete(f"/api/v1/groups/{group}")
    written = find_pending(100)
    admin.delete(f"/api/v1/users/{user_id}")  # blanks what was written about the user
    admin.post("/api/v1/auth/logout-all")
    written += find_pending(100)[len(written) :]

    events = [parse_identity_event(each.body) for each in written]

    assert [str(event.type) for event in events] == [
        "user.created",
        "user.created",
        "group.created",
        "group.members_changed",
        "group.updated",
        "user.updated",
        "user.roles_changed",
        "user.deactivated",
        "user.activated",
        "group.deleted",
        "user.deleted",
        "session.revoked",
    ]
    assert not any(isinstance(event, UnknownEvent) for event in events)
    assert revisions() == list(range(1, len(events) + 1))


def test_the_body_has_the_members_of_the_golden_files(alice: User) -> None:
    body = json.loads(find_pending(1)[0].body)
    assert list(body) == ["event_id", "revision", "type", "occurred_at", "tenant", "data"]
    assert body["occurred_at"].endswith("Z")
    assert set(body["data"]) == set(UserSnapshot.model_fields)
    assert body["data"]["created_at"].endswith("Z")


@pytest.mark.django_db(transaction=True)
def test_a_change_that_fails_leaves_no_event_and_no_hole() -> None:
    first = make_user("first")
    with contextlib.suppress(RuntimeError), transaction.atomic():
        do_update_user(first, {"locale": "de"}, SYSTEM)
        raise RuntimeError("power cut")
    make_user("second")
    assert revisions() == [1, 2]
    assert User.objects.get(username="first").locale == "en"


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_of_its_change_is_a_bug(alice: User) -> None:
    with pytest.raises(RuntimeError, match="transaction"):
        do_emit(NewEvent(IdentityEventType.USER_UPDATED, "default", alice.snapshot()))


@pytest.mark.django_db(transaction=True)
def test_revisions_are_gapless_and_in_the_order_of_commits_under_parallel_writers() -> None:
    users = [make_user() for _ in range(8)]
    seen: list[int] = []
    stop = threading.Event()

    def write(user: User) -> None:
        for locale in ("de", "fr", "it", "es", "pt"):
            do_update_user(user, {"locale": locale}, SYSTEM)
        connection.close()

    def watch() -> None:
        # Whoever reads the outbox in order never finds a lower revision later than a higher one.
        while not stop.is_set():
            found = revisions()
            assert found == list(range(1, len(found) + 1))
            seen.append(len(found))
        connection.close()

    writers = [threading.Thread(target=write, args=(user,)) for user in users]
    watcher = threading.Thread(target=watch)
    watcher.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    watcher.join()

    assert revisions() == list(range(1, 8 + 40 + 1))
    assert seen == sorted(seen)
    assert get_revision() == 48


def test_the_mirror_copies_everything_in_pages_with_the_revision(admin: Device) -> None:
    users = [make_user(external_id=f"e{number}") for number in range(5)]
    group = admin.post("/api/v1/groups", {"name": "Ops", "slug": "ops"}).body["id"]
    admin.post(f"/api/v1/groups/{group}/members/batch", {"add": [str(user.id) for user in users]})
    service = internal()

    page = service.get("/internal/v1/users?limit=2").body
    assert set(page) == {"items", "next_cursor", "revision"}
    assert page["revision"] == get_revision() > 0
    copied = [UserSnapshot.model_validate(row) for row in pages_of(service, "/internal/v1/users?limit=2")]
    assert {user.id for user in copied} == set(User.objects.values_list("id", flat=True))
    assert copied[-1].external_id == "e4"
    assert list(pages_of(service, "/internal/v1/groups")) == [
        {"id": group, "slug": "ops", "name": "Ops", "tenant": "default"}
    ]
    members = list(pages_of(service, "/internal/v1/memberships?limit=1"))
    assert {row["user_id"] for row in members} == {str(user.id) for user in users}
    assert {row["group_id"] for row in members} == {group}
    assert service.get("/internal/v1/users?limit=1000").status == 200
    assert service.get("/internal/v1/users?limit=1001").status == 422


def test_the_mirror_asks_for_some_by_name(admin: Device) -> None:
    Tenant.objects.create(slug="acme", name="Acme")
    users = [make_user(external_id=f"e,{number}") for number in range(3)]
    foreign = make_user(external_id="e,1", tenant="acme")
    groups = [admin.post("/api/v1/groups", {"name": slug, "slug": slug}).body["id"] for slug in ("one", "two")]
    admin.post(f"/api/v1/groups/{groups[0]}/members/batch", {"add": [str(user.id) for user in users]})
    admin.post(f"/api/v1/groups/{groups[1]}/members/batch", {"add": [str(users[0].id)]})

    def ids(path: str, name: str = "id") -> list[str]:
        return [row[name] for row in pages_of(internal(), f"/internal/v1/{path}&limit=2")]

    unknown = new_id()
    assert ids(f"users?ids={users[2].id},{unknown},{users[0].id}") == [str(users[0].id), str(users[2].id)]
    assert ids(f"users?ids={unknown}") == []
    assert ids("users?tenant=default&external_id=e%2C0&external_id=e%2C1&external_id=none") == [
        str(users[0].id),
        str(users[1].id),
    ]
    assert ids("users?tenant=acme&external_id=e%2C1") == [str(foreign.id)]
    assert ids("users?tenant=acme") == [str(foreign.id)]
    assert ids(f"groups?ids={groups[1]}") == [groups[1]]
    assert sorted(ids(f"memberships?group_id={groups[0]}", "user_id")) == sorted(str(user.id) for user in users)
    assert ids(f"memberships?group_id={unknown}") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("users?ids=", "ids"),
        ("users?ids=1", "ids"),
        ("users?ids=" + ",".join(["0192f6a0-c0de-7abc-8def-0123456789ab"] * 201), "ids"),
        ("users?external_id=e1", "tenant"),
        ("users?tenant=default&external_id=", "external_id"),
        ("users?tenant=default&external_id=%00", "external_id"),
        ("users?tenant=default" + "&external_id=e" * 201, "external_id"),
        ("groups?ids=x", "ids"),
        ("memberships?group_id=x", "group_id"),
        ("memberships?group_id=", "group_id"),
        ("users/erased", "ids"),
        ("users/erased?ids=", "ids"),
    ],
)
def test_a_wrong_name_is_refused_and_never_means_everybody(admin: Device, query: str, field: str) -> None:
    answer = internal().get(f"/internal/v1/{query}")
    assert (answer.status, answer.fields) == (422, {field})


def test_only_the_erased_are_called_erased(admin: Device) -> None:
    gone, here, unknown = make_user(), make_user(), new_id()
    do_erase_user(gone, SYSTEM)
    asked = internal().get(f"/internal/v1/users/erased?ids={gone.id},{here.id},{unknown}")
    assert asked.body == {"items": [{"id": str(gone.id), "tenant": "default"}]}


@pytest.mark.parametrize("path", ["users", "groups", "memberships", "users/erased"])
def test_the_mirror_is_for_services_only(admin: Device, path: str) -> None:
    assert admin.get(f"/internal/v1/{path}").status == 401


def test_a_lease_belongs_to_one_and_lapses(frozen: Any, db: None) -> None:
    life = timedelta(seconds=3)
    assert do_take_lease("x", "a", life)
    assert not do_take_lease("x", "b", life)
    frozen.advance(2)
    assert do_take_lease("x", "a", life)
    frozen.advance(2)
    assert not do_take_lease("x", "b", life)
    frozen.advance(1)
    assert do_take_lease("x", "b", life)
    assert not do_take_lease("x", "a", life)


@asynccontextmanager
async def listening(url: str, queue_name: str | None = None) -> AsyncIterator[list[dict[str, Any]]]:
    """Bodies that arrive at a queue bound to the exchange; a named queue stays when nobody listens."""
    bodies: list[dict[str, Any]] = []
    connected = await aio_pika.connect(url)
    channel = await connected.channel()
    exchange = await channel.declare_exchange(IDENTITY_EVENTS.name, IDENTITY_EVENTS.type, durable=True)
    queue = await channel.declare_queue(queue_name, exclusive=queue_name is None, durable=queue_name is not None)
    await queue.bind(exchange)

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.content_type == "application/json"
        bodies.append(json.loads(message.body))
        await message.ack()

    await queue.consume(on_message)
    yield bodies
    await connected.close()


async def until(condition: Callable[[], bool], limit_s: float = 15.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def relaying(url: str, count: int = 1) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    relays = [asyncio.create_task(Relay(url, interval=timedelta(milliseconds=50)).run(stop)) for _ in range(count)]
    yield stop
    stop.set()
    await asyncio.gather(*relays)


def run_in_thread(work: Callable[[], Any]) -> Any:
    def call() -> Any:
        try:
            return work()
        finally:
            connection.close()

    return asyncio.get_running_loop().run_in_executor(None, call)


@pytest.mark.django_db(transaction=True)
async def test_events_reach_rabbitmq_in_order_and_within_a_second(amqp_url: str) -> None:
    async with listening(amqp_url) as bodies, relaying(amqp_url):
        user = await run_in_thread(make_user)
        await until(lambda: len(bodies) == 1)
        started_s = time.perf_counter()
        await run_in_thread(lambda: [do_update_user(user, {"locale": x}, SYSTEM) for x in ("de", "fr", "it")])
        await until(lambda: len(bodies) == 4)
        took_s = time.perf_counter() - started_s

    assert [body["revision"] for body in bodies] == [1, 2, 3, 4]
    event = parse_identity_event(json.dumps(bodies[-1]).encode())
    assert isinstance(event, UserEvent)
    assert event.data.locale == "it"
    assert took_s < 2


@pytest.mark.req("H14")
@pytest.mark.django_db(transaction=True)
async def test_two_relays_publish_each_event_once_and_in_order(amqp_url: str) -> None:
    def write(count: int) -> None:
        for _ in range(count):
            make_user(password=None)

    await run_in_thread(lambda: write(30))
    async with listening(amqp_url) as bodies, relaying(amqp_url, count=2):
        await asyncio.gather(run_in_thread(lambda: write(15)), run_in_thread(lambda: write(15)))
        await until(lambda: len(bodies) >= 60)

    assert [body["revision"] for body in bodies] == list(range(1, 61))
    assert await run_in_thread(OutboxEvent.objects.filter(published_at=None).count) == 0


@pytest.mark.django_db(transaction=True)
async def test_a_relay_takes_over_from_one_that_died(amqp_url: str) -> None:
    await run_in_thread(lambda: do_take_lease(LEASE_NAME, "a process that was killed", timedelta(seconds=1)))
    await run_in_thread(make_user)
    async with listening(amqp_url) as bodies, relaying(amqp_url):
        await until(lambda: len(bodies) == 1, limit_s=5)


@pytest.mark.req("H02")
@pytest.mark.django_db(transaction=True)
async def test_events_wait_while_the_broker_is_away(amqp_url: str, rabbit: RabbitNode) -> None:
    vhost = amqp_url.rsplit("/", 1)[1]
    async with listening(amqp_url, "kept"):
        pass
    async with relaying(amqp_url):
        rabbit.ctl("clear_permissions", "-p", vhost, "herald")
        rabbit.ctl("close_all_connections", "--vhost", vhost, "test")
        await run_in_thread(lambda: [make_user() for _ in range(4)])
        assert await run_in_thread(OutboxEvent.objects.filter(published_at=None).count) == 4
        rabbit.ctl("set_permissions", "-p", vhost, "herald", ".*", ".*", ".*")
        async with listening(amqp_url, "kept") as bodies:
            await until(lambda: bool(bodies) and bodies[-1]["revision"] == 4, limit_s=20)
    assert [body["revision"] for body in bodies] == [1, 2, 3, 4]


@pytest.mark.django_db(transaction=True)
def test_published_events_are_marked_and_the_envelope_is_stable() -> None:
    make_user()
    row = OutboxEvent.objects.get()
    assert make_envelope(row).body == make_envelope(OutboxEvent.objects.get()).body


def test_login_from_a_new_device_is_news_and_the_first_login_is_not(alice: User) -> None:
    def news() -> list[dict[str, Any]]:
        return [event.data for event in OutboxEvent.objects.filter(type=IdentityEventType.LOGIN_NEW_DEVICE)]

    log_in(alice, device_id="phone", User_Agent="phone/1")
    assert news() == []
    log_in(alice, device_id="phone", User_Agent="phone/2")
    assert news() == []
    laptop = log_in(alice, User_Agent="laptop/1")
    assert [each["session_id"] for each in news()] == [laptop.session_id]
    assert (news()[0]["user_agent"], news()[0]["ip"]) == ("laptop/1", "127.0.0.1")
    log_in(alice, User_Agent="laptop/1")
    assert len(news()) == 1


def test_an_administrators_first_revision_is_one(db: None) -> None:
    make_admin()
    assert revisions() == [1]
