"""No address a user gives leads inside (F07), and no answer is endless (F08)."""

from __future__ import annotations

import time
from datetime import timedelta

import aiohttp
import pytest
from channel_kit import Reply, http_sink

from notification_service.channels.apprise.channel import AppriseChannel
from notification_service.channels.http.client import MAX_RESPONSE_BYTES, HttpClient
from notification_service.channels.http.guard import Policy, Refused, check_resolved, check_url, is_allowed
from notification_service.channels.interface import InvalidAddress, Tools
from notification_service.clock import SystemClock
from notification_service.settings import Settings

STRICT = Policy()
LOOPBACK = Policy(allow_loopback=True)

REFUSED = [
    "ftp://example.org/",
    "file:///etc/passwd",
    "gopher://example.org/",
    "javascript:alert(1)",
    "//example.org/",
    "https://",
    "https:///path",
    "https://user:password@example.org/",
    "https://example.org@127.0.0.1/",
    "https://example.org:22/",
    "https://example.org:5672/",
    "https://example.org:15672/",
    "https://example.org:25/",
    "https://example.org:1/",
    "https://localhost/",
    "https://localhost./",
    "https://example.org./",
    "https://api.localhost/",
    "https://db.internal/",
    "https://printer.local/",
    "https://rabbitmq/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[::7f00:1]/",
    "http://example.org\\@127.0.0.1/",
    "http://example.org /",
    "http://example.org/\r\nHost: inside",
    "http://exämple.org/",
    "http://[127.0.0.1/",
    "http://example.org:99999/",
    "https://example.org/" + "x" * 2048,
]


@pytest.mark.req("F07")
@pytest.mark.parametrize("url", REFUSED)
def test_what_may_not_be_called(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, STRICT)


@pytest.mark.parametrize(
    "url",
    ["https://example.org/hook?x=1", "http://example.org:8080/", "https://1.1.1.1/", "https://[2606:4700::1111]/"],
)
def test_what_may_be_called(url: str) -> None:
    assert str(check_url(url, STRICT)) == url


@pytest.mark.req("F07")
@pytest.mark.parametrize("url", ["http://127.0.0.1:5672/", "http://localhost:15672/", "http://127.0.0.1:22/"])
def test_even_where_loopback_is_allowed_some_ports_are_not(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url, LOOPBACK)


def test_loopback_is_all_that_development_allows() -> None:
    for url in ("http://127.0.0.1:40000/", "http://localhost:40000/", "http://[::1]:40000/"):
        check_url(url, LOOPBACK)
    for url in ("http://10.0.0.1/", "http://169.254.169.254/", "http://[64:ff9b::7f00:1]/"):
        with pytest.raises(Refused):
            check_url(url, LOOPBACK)


@pytest.mark.req("F07")
def test_one_private_answer_of_the_resolver_refuses_the_name() -> None:
    with pytest.raises(Refused):
        check_resolved(["1.1.1.1", "10.0.0.1"], STRICT)
    with pytest.raises(Refused):
        check_resolved([], STRICT)
    check_resolved(["1.1.1.1"], STRICT)
    assert not is_allowed("not an address", STRICT)


@pytest.mark.req("F07")
async def test_a_name_that_points_inside_is_refused_when_saved_and_when_called() -> None:
    async with http_sink() as canary:
        port = canary.url.rpartition(":")[2]
        answers = iter([["1.1.1.1"]])

        async def rebind(_host: str, _port: int) -> list[str]:
            return next(answers, ["127.0.0.1"])

        client = HttpClient(STRICT, resolve=rebind)
        # Saved while it points outside, called when it points inside.
        await client.check("https://rebind.example/")
        with pytest.raises(Refused):
            await client.call("POST", "http://rebind.example/", content=b"x")
        with pytest.raises(Refused):
            await client.check("https://rebind.example/")
        with pytest.raises(Refused):
            await client.call("POST", f"http://127.0.0.1:{port}/", content=b"x")
        await client.close()
        assert canary.seen == []
        assert canary.connections == 0


@pytest.mark.req("F07")
async def test_no_socket_is_made_for_an_address_inside_however_the_url_was_read() -> None:
    """The check of the URL left out, as if two parsers had seen two addresses in it."""
    async with http_sink() as canary:
        client = HttpClient(STRICT)
        with pytest.raises(Refused):
            await client._guarded.post(canary.url, data=b"x")
        await client.close()
        assert canary.connections == 0


@pytest.mark.req("F07")
async def test_the_address_that_was_checked_is_the_one_that_is_connected_to() -> None:
    """The name is resolved once: what a second question would be answered does not matter."""
    asked = 0
    async with http_sink() as sink:

        async def resolve(_host: str, _port: int) -> list[str]:
            nonlocal asked
            asked += 1
            return ["127.0.0.1"]

        client = HttpClient(LOOPBACK, resolve=resolve)
        url = sink.url.replace("127.0.0.1", "localhost")
        answer = await client.call("POST", url, content=b"x")
        await client.close()
        assert (answer.status, asked) == (200, 1)
        assert sink.seen[0].headers["host"].startswith("localhost:")


@pytest.mark.req("F07")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with http_sink() as canary, http_sink(lambda _: Reply(status, {"Location": canary.url})) as sink:
        client = HttpClient(LOOPBACK)
        assert (await client.call("POST", sink.url, content=b"x")).status == status
        await client.close()
        assert canary.seen == []


@pytest.mark.req("F07")
async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with http_sink() as proxy, http_sink() as sink:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        client = HttpClient(LOOPBACK)
        await client.call("POST", sink.url, content=b"x")
        await client.close()
        assert (len(proxy.seen), len(sink.seen)) == (0, 1)


@pytest.mark.req("F08")
async def test_an_endless_answer_is_cut() -> None:
    async with http_sink(lambda _: Reply(endless=True)) as sink:
        client = HttpClient(LOOPBACK)
        answer = await client.call("POST", sink.url, content=b"x")
        await client.close()
        assert (answer.status, len(answer.body)) == (200, MAX_RESPONSE_BYTES)
        # What was in the sockets' buffers was sent, no more.
        assert sink.sent_bytes < 32 * 1024 * 1024


@pytest.mark.req("F08")
async def test_a_dripping_answer_ends_in_time() -> None:
    async with http_sink(lambda _: Reply(drip=True)) as sink:
        client = HttpClient(LOOPBACK, limit=timedelta(seconds=1))
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            await client.call("POST", sink.url, content=b"x")
        await client.close()
        assert 0.9 <= time.monotonic() - started < 3


async def test_a_compressed_answer_does_not_grow() -> None:
    async with http_sink(lambda _: Reply(headers={"Content-Encoding": "gzip"}, body=b"not gzip")) as sink:
        client = HttpClient(LOOPBACK)
        assert (await client.call("POST", sink.url)).body == b"not gzip"
        await client.close()
        assert sink.seen[0].headers["accept-encoding"] == "identity"


async def test_a_name_that_does_not_resolve_is_no_answer() -> None:
    async def fail(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    client = HttpClient(STRICT, resolve=fail)
    await client.check("https://example.org/")
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.call("POST", "https://example.org/")
    await client.close()


@pytest.mark.req("F07")
@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1/",
        "jsons://169.254.169.254/",
        "mailto://user:password@10.0.0.1",
        "syslog://",
        "dbus://",
        "fcm://project/token?keyfile=/etc/passwd",
        "slack://T1/B1/x?template=/etc/passwd",
        "slack://AAAAAAAAA/BBBBBBBBB/cccccccccccccccccccccccc/?verify=no",
        "slack://AAAAAAAAA/BBBBBBBBB/cccccccccccccccccccccccc/?redirect=yes",
        "nothing://x",
        "",
    ],
)
async def test_apprise_takes_no_host_and_no_file(url: str) -> None:
    channel = AppriseChannel(Tools(Settings(), HttpClient(STRICT), SystemClock()))
    with pytest.raises(InvalidAddress):
        await channel.check_address(url, None)


async def test_apprise_takes_services_with_fixed_addresses() -> None:
    channel = AppriseChannel(Tools(Settings(), HttpClient(STRICT), SystemClock()))
    checked = await channel.check_address("slack://AAAAAAAAA/BBBBBBBBB/cccccccccccccccccccccccc/#general", None)
    assert checked.hint == "slack://…"
