"""Bodies made to hurt: too deep, too long, not a number, not text (E03, E04, E05)."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from service import Service
from waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SEND = "/api/v1/notifications/send"
BATCH = "/api/v1/notifications/send/batch"


async def post(service: Service, body: bytes, path: str = SEND) -> Any:
    headers = {"Content-Type": "application/json"}
    return await service.call("POST", path, service.add_person("publisher"), content=body, headers=headers)


def around(value: bytes) -> bytes:
    return b'{"title":"t","recipients":{"users":["%s"]},"data":{"x":%s}}' % (str(uuid4()).encode(), value)


@pytest.mark.req("E03")
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" * 25_000 + b"]" * 25_000, id="deep-list"),
        pytest.param(b'{"a":' * 8_000 + b"1" + b"}" * 8_000, id="deep-object"),
        pytest.param(b"9" * 5_000, id="long-integer"),
        pytest.param(b"-" + b"9" * 5_000, id="long-negative"),
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"-Infinity",
    ],
)
async def test_what_no_reader_takes_alike(service: Service, value: bytes) -> None:
    answer = await post(service, around(value))
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    batch = await post(service, b'{"items":[' + around(value) + b"]}", BATCH)
    assert batch.status_code in (400, 422) or batch.json()["items"][0]["status"] == 422, batch.text


TEXT_FIELDS: dict[str, Any] = {
    "event_type": "{}",
    "title": "{}",
    "body": "{}",
    "category": "{}",
    "tags": ["{}"],
    "collapse_key": "{}",
    "locale": "{}",
    "tenant": "{}",
    "deliver_at": "{}",
    "priority": "{}",
    "channels": ["{}"],
    "data": {"key": "{}"},
    "data key": {"{}": "x"},
    "nested data": {"a": [{"b": "{}"}]},
    "actions.id": [{"id": "{}", "label": "l"}],
    "actions.label": [{"id": "i", "label": "{}"}],
    "actions.url": [{"id": "i", "label": "l", "url": "https://x/{}"}],
    "users": {"users": ["{}"]},
    "external users": {"users": ["ext:{}"]},
    "roles": {"roles": ["{}"]},
    "groups": {"groups": ["{}"]},
}


@pytest.mark.req("E04")
@pytest.mark.parametrize("field", list(TEXT_FIELDS))
@pytest.mark.parametrize("escape", ["\\u0000", "\\udc00\\ud800"])
async def test_text_no_database_holds(service: Service, field: str, escape: str) -> None:
    name = {"users": "recipients", "external users": "recipients", "roles": "recipients", "groups": "recipients"}.get(
        field, field.partition(".")[0].replace("data key", "data").replace("nested data", "data")
    )
    request = {"title": "t", "recipients": {"users": [str(uuid4())]}, name: TEXT_FIELDS[field]}
    body = json.dumps(request).replace("{}", f"a{escape}b").encode()
    answer = await post(service, body)
    assert answer.status_code in (400, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["errors"][0]["field"].startswith(name)


@pytest.mark.req("E04")
async def test_text_everybody_holds(service: Service) -> None:
    for text in ("ü", "\\u00fc", "\\ud83d\\ude00", "\U0001f600", "\\u202e", "a\\tb\\nc"):
        body = b'{"title":"t","body":"%s","recipients":{"users":["%s"]}}' % (text.encode(), str(uuid4()).encode())
        assert (await post(service, body)).status_code == 202


@pytest.mark.req("E05")
async def test_of_a_key_that_comes_twice_the_last_counts(service: Service) -> None:
    sender, ada = service.add_person("publisher"), service.add_person()
    body = b'{"title":"first","title":"last","recipients":{"users":["%s"]}}' % str(ada.id).encode()
    headers = {"Content-Type": "application/json"}
    answer = await service.call("POST", SEND, sender, content=body, headers=headers)
    assert answer.status_code == 202
    notification_id = answer.json()["id"]

    async def is_there() -> bool:
        return (await service.get(f"/api/v1/inbox/{notification_id}", ada)).status_code == 200

    await until(is_there)
    assert (await service.get(f"/api/v1/inbox/{notification_id}", ada)).json()["title"] == "last"


@pytest.mark.req("E06")
@pytest.mark.parametrize("odd", ["' OR 1=1 --", "'; DROP TABLE items; --", "1 UNION SELECT 1", "pg_sleep(5)"])
async def test_sql_in_every_parameter_is_text_or_refused(service: Service, odd: str) -> None:
    person = service.add_person("admin", tenant=service.add_tenant())
    lists = {
        "/api/v1/inbox": (
            "q",
            "event_type",
            "category",
            "tag",
            "state",
            "priority",
            "group_id",
            "from",
            "to",
            "cursor",
        ),
        "/api/v1/event-types": ("cursor", "limit"),
        "/api/v1/dead-letters": ("reason", "cursor", "limit"),
    }
    for path, names in lists.items():
        for name in names:
            answer = await service.get(path, person, params={name: odd})
            assert answer.status_code in (200, 400, 422), (path, name)
            if answer.status_code == 200:
                assert answer.json()["items"] == []


@pytest.mark.req("E03")
@pytest.mark.parametrize("name", ["data", "a field nobody knows"])
async def test_numbers_beyond_64_bits_are_refused_one_by_one(service: Service, name: str) -> None:
    value = b'{"x":%d}' % 2**70
    good = b'{"title":"t","recipients":{"users":["ext:nobody"]}}'
    bad = b'{"title":"t","recipients":{"users":["ext:nobody"]},"%s":%s}' % (name.encode(), value)
    answer = await post(service, b'{"items":[' + bad + b"," + good + b"]}", BATCH)
    first, second = answer.json()["items"]
    assert (first["status"], first["errors"][0]["field"]) == (422, name)
    assert second["status"] == 202
