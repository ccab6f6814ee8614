"""Forged, odd and borrowed tokens at every door of the running system: both APIs, introspection and the socket."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from harness.people import Person, Rest
from harness.sockets import connect
from harness.stack import INTERNAL_KEY, Stack

INTERNAL = {"X-Internal-Key": INTERNAL_KEY}


def encode(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def payload_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


class Forger:
    """Has the real key, as somebody would who broke into the auth service, and one of its own."""

    def __init__(self, stack: Stack) -> None:
        (path,) = (stack.system.run_dir / "auth-keys").glob("*.json")
        stored = json.loads(path.read_text())
        self.kid: str = stored["kid"]
        self.key = serialization.load_pem_private_key(stored["private_key"].encode(), None)
        assert isinstance(self.key, rsa.RSAPrivateKey)
        self.own = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, payload: Any, *, own: Any = False, without: Any = "", **header: Any) -> str:
        """Signed with the real key unless told otherwise, whatever is in it."""
        head = {"alg": "RS256", "kid": self.kid, "typ": "at+jwt", **header}
        head.pop(without, None)
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signed = f"{encode(head)}.{encode(text)}"
        key = self.own if own else self.key
        assert isinstance(key, rsa.RSAPrivateKey)
        signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed.encode(), key)
        return f"{signed}.{encode(signature)}"

    def sign_with_public_key(self, payload: Any, form: str) -> str:
        """HS256, with the public key as its secret."""
        public = self.key.public_key()
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        secret = {
            "pem": lambda: public.public_bytes(serialization.Encoding.PEM, info),
            "der": lambda: public.public_bytes(serialization.Encoding.DER, info),
            "jwk": lambda: RSAAlgorithm.to_jwk(public).encode(),  # type: ignore[arg-type]
        }[form]()
        signed = f"{encode({'alg': 'HS256', 'kid': self.kid, 'typ': 'at+jwt'})}.{encode(payload)}"
        return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


@pytest.fixture
async def alice(rest: Rest) -> Person:
    return await rest.log_in("alice")


@pytest.fixture
def forger(stack: Stack) -> Forger:
    return Forger(stack)


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """An attacker's own key set, and who asked for it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/keys", asked
    server.shutdown()
    server.server_close()
    thread.join()


async def check_refused(stack: Stack, rest: Rest, tokens: dict[str, str], *, close_code: int = 4501) -> None:
    """Every door is shut, and says the same."""

    async def one(name: str, token: str) -> None:
        me = await rest.auth("GET", "/api/v1/users/me", token=token)
        looked = await rest.auth("POST", "/internal/v1/tokens/introspect", headers=INTERNAL, json={"token": token})
        inboxes = [await rest.notify("GET", "/api/v1/inbox", token=token, node=node) for node in range(2)]
        for answer in (me, *inboxes):
            assert answer.status_code == 401, (name, answer.request.url, answer.text)
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"], name
            assert answer.headers["Content-Type"] == "application/problem+json", name
            assert answer.json()["correlation_id"], name
        assert (looked.status_code, looked.json()) == (200, {"active": False}), name
        socket = await connect(stack.system.notify_urls[0], token)
        assert await socket.wait_closed() == close_code, name

    await asyncio.gather(*(one(name, token) for name, token in tokens.items()))


async def check_taken(rest: Rest, token: str) -> None:
    assert (await rest.notify("GET", "/api/v1/inbox", token=token)).status_code == 200
    assert (await rest.auth("GET", "/api/v1/users/me", token=token)).status_code == 200


@pytest.mark.req("A01", "A02", "A05")
async def test_other_algorithms(stack: Stack, rest: Rest, alice: Person, forger: Forger) -> None:
    payload = payload_of(alice.access)
    tokens = {
        f"alg {name}": f"{encode({'alg': name, 'kid': forger.kid, 'typ': 'at+jwt'})}.{encode(payload)}."
        for name in ("none", "None", "NONE", "nOnE")
    }
    tokens |= {f"HS256 {form}": forger.sign_with_public_key(payload, form) for form in ("pem", "der", "jwk")}
    tokens |= {f"alg {name}": forger.sign(payload, alg=name) for name in ("RS384", "PS256", "ES256", "EdDSA", "HS256")}
    tokens["crit"] = forger.sign(payload, crit=["b64-made-up"], **{"b64-made-up": True})
    await check_refused(stack, rest, tokens)
    await check_taken(rest, forger.sign(payload))


@pytest.mark.req("A03", "A04")
async def test_other_keys(
    stack: Stack, rest: Rest, alice: Person, forger: Forger, canary: tuple[str, list[str]]
) -> None:
    address, asked = canary
    payload = payload_of(alice.access)
    own_jwk = json.loads(RSAAlgorithm.to_jwk(forger.own.public_key()))
    kids: list[Any] = [
        "../../../../etc/passwd",
        "' OR '1'='1",
        "a\x00b",
        "k" * 10_000,
        7,
        None,
        str(uuid.uuid4()),
        ["x"],
        {"a": 1},
    ]
    tokens = {f"kid {str(kid)[:20]!r}": forger.sign(payload, own=True, kid=kid) for kid in kids}
    # The longest does not fit into a header line: the server says so before anybody looks at it.
    tokens.pop(f"kid {'k' * 20!r}")
    tokens["no kid"] = forger.sign(payload, without="kid")
    tokens["own key under the real name"] = forger.sign(payload, own=True)
    for name, value in (("jku", address), ("x5u", address), ("jwk", own_jwk), ("x5c", ["MIIB"])):
        tokens[name] = forger.sign(payload, own=True, **{name: value})
        tokens[f"{name}, other kid"] = forger.sign(payload, own=True, kid="other", **{name: value})
    await check_refused(stack, rest, tokens)
    assert asked == []


@pytest.mark.req("A03")
async def test_made_up_key_ids_cause_hardly_a_fetch(stack: Stack, rest: Rest, alice: Person, forger: Forger) -> None:
    payload = payload_of(alice.access)

    async def fetches() -> int:
        text = (await rest.auth("GET", "/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("http_requests_total") and "jwks.json" in line]
        return sum(int(float(line.split()[-1])) for line in lines)

    before = await fetches()
    longest_s = 0.0
    for _ in range(10):
        tokens = [forger.sign(payload, own=True, kid=str(uuid.uuid4())) for _ in range(20)]
        started = time.monotonic()
        answers = await asyncio.gather(
            *(rest.notify("GET", "/api/v1/inbox", token=token) for token in tokens),
            rest.notify("GET", "/health/live"),
        )
        longest_s = max(longest_s, time.monotonic() - started)
        assert [answer.status_code for answer in answers] == [401] * 20 + [200]
    # One fetch in 30 s for the one process asked; the other one, and the regular fetches, may add theirs.
    assert await fetches() - before <= 3
    assert longest_s < 10


@pytest.mark.req("A06", "A07")
async def test_other_times(stack: Stack, rest: Rest, alice: Person, forger: Forger) -> None:
    payload = payload_of(alice.access)
    now = int(time.time())
    await check_refused(stack, rest, {"expired": forger.sign({**payload, "exp": now - 6})}, close_code=4401)
    without_exp = {name: value for name, value in payload.items() if name != "exp"}
    tokens = {
        "no exp": forger.sign(without_exp),
        "nbf in the future": forger.sign({**payload, "nbf": now + 60}),
        "iat in the future": forger.sign({**payload, "iat": now + 60}),
        "exp NaN": forger.sign(json.dumps(payload).replace(str(payload["exp"]), "NaN").encode()),
    }
    for name in ("exp", "nbf", "iat"):
        for odd in ("soon", str(now + 600), float(now) + 600.5, 1e300, None, [now + 600]):
            tokens[f"{name} {odd!r}"] = forger.sign({**payload, name: odd})
    await check_refused(stack, rest, tokens)
    # A clock that is some seconds off is no reason to refuse anybody.
    now = int(time.time())
    await check_taken(rest, forger.sign({**payload, "exp": now - 1, "iat": now + 3, "nbf": now + 3}))


@pytest.mark.req("A07")
async def test_a_negative_end_is_an_end_long_ago(stack: Stack, rest: Rest, alice: Person, forger: Forger) -> None:
    token = forger.sign({**payload_of(alice.access), "exp": -1})
    assert (await rest.notify("GET", "/api/v1/inbox", token=token)).status_code == 401
    assert (await rest.auth("GET", "/api/v1/users/me", token=token)).status_code == 401
    socket = await connect(stack.system.notify_urls[0], token)
    assert await socket.wait_closed() in (4401, 4501)


@pytest.mark.req("A08", "A09")
async def test_tokens_of_somebody_else_for_something_else(
    stack: Stack, rest: Rest, alice: Person, forger: Forger
) -> None:
    payload = payload_of(alice.access)
    issuer = payload["iss"]
    tokens = {
        f"iss {odd!r}": forger.sign({**payload, "iss": odd})
        for odd in (issuer + "/", issuer[:-1], issuer.upper() + "x", [issuer], None, "")
    }
    tokens |= {
        f"aud {odd!r}": forger.sign({**payload, "aud": odd})
        for odd in ("heral", "herald2", ["herald"], ["other", "herald"], None, "")
    }
    tokens["no aud"] = forger.sign({name: value for name, value in payload.items() if name != "aud"})
    for use in ("refresh", "ticket", "", None):
        tokens[f"token_use {use!r}"] = forger.sign({**payload, "token_use": use})
    for kind in ("JWT", "jwt", "", None):
        tokens[f"typ {kind!r}"] = forger.sign(payload, typ=kind)
    tokens["no typ"] = forger.sign(payload, without="typ")
    tokens["refresh"] = alice.refresh or ""
    ticket = await rest.auth("POST", "/api/v1/auth/ws-ticket", token=alice.access)
    tokens["ticket"] = ticket.json()["ticket"]
    await check_refused(stack, rest, tokens)
    shop = await rest.shop_token()
    assert (await rest.notify("GET", "/api/v1/inbox", token=shop)).status_code == 403
    assert (await rest.auth("GET", "/api/v1/users/me", token=shop)).status_code == 401
    socket = await connect(stack.system.notify_urls[0], shop)
    assert await socket.wait_closed() == 4501


@pytest.mark.req("A10")
async def test_a_token_in_any_other_spelling(stack: Stack, rest: Rest, alice: Person) -> None:
    chosen = random.Random(1042)
    parts = alice.access.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tokens = []
    for _ in range(300):
        changed = list(parts)
        index = chosen.randrange(3)
        text = changed[index]
        at = chosen.randrange(len(text))
        letter = chosen.choice(alphabet.replace(text[at], ""))
        changed[index] = text[:at] + letter + text[at + 1 :]
        tokens.append(".".join(changed))
    tokens += [alice.access + tail for tail in ("=", "==", ".", ".AQ", "A", "%00")]
    tokens += [".".join((parts[0], parts[1] + "=", parts[2])), ".".join(parts[:2]), parts[0], ".", "..", "..."]
    tokens += [
        parts[0] + "." + parts[1] + "." + parts[2][:-1] + letter for letter in alphabet if letter != parts[2][-1]
    ]
    limit = asyncio.Semaphore(8)

    async def one(token: str) -> tuple[int, int]:
        async with limit:
            first = await rest.notify("GET", "/api/v1/inbox", token=token)
            second = await rest.auth("GET", "/api/v1/users/me", token=token)
            return first.status_code, second.status_code

    assert set(await asyncio.gather(*(one(token) for token in tokens))) == {(401, 401)}
    for length in (9_000, 20_000):
        long = f"{parts[0]}.{'A' * length}.{parts[2]}"
        for answer in (
            await rest.notify("GET", "/api/v1/inbox", token=long),
            await rest.auth("GET", "/api/v1/users/me", token=long),
        ):
            assert answer.status_code in (400, 401, 431), answer.text
    await check_taken(rest, alice.access)


@pytest.mark.req("A13")
@pytest.mark.only_on("sqlite")
async def test_while_the_auth_service_is_away(stack: Stack, rest: Rest, forger: Forger) -> None:
    (person, gone) = await rest.make_people(2)
    admin = await rest.log_in("admin")
    assert (await rest.notify("GET", "/api/v1/inbox", token=gone.access)).status_code == 200
    watching = await connect(stack.system.notify_urls[0], gone.access, device_id="phone")
    await watching.next("welcome")
    await rest.auth("POST", f"/api/v1/users/{gone.id}/deactivate", token=admin.access)
    # By the event; or, right after a node's connection to the broker was lost, because its token was asked for again.
    assert await watching.wait_closed(within_s=5) == 4503
    await asyncio.to_thread(stack.kill, "auth")
    try:
        for node in range(2):
            # Never seen before, and good in itself: taken by the keys that are known.
            answer = await rest.notify("GET", "/api/v1/inbox", token=person.access, node=node)
            assert answer.status_code == 200, answer.text
        device = await connect(stack.system.notify_urls[0], person.access, device_id="phone")
        await device.next("welcome")
        await device.close()
        # Heard of before the auth service went: stays out.
        assert (await rest.notify("GET", "/api/v1/inbox", token=gone.access)).status_code == 401
        unknown = forger.sign(payload_of(person.access), own=True, kid="never-heard-of")
        assert (await rest.notify("GET", "/api/v1/inbox", token=unknown)).status_code == 401
        # Without any key set a process cannot tell anybody from anybody, and says that it is not ready.
        await asyncio.to_thread(stack.kill, "notify-2")
        await asyncio.to_thread(lambda: stack.start("notify-2", wait=False))
        url = stack.system.notify_urls[1]
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            await _until_alive(client, url)
            ready = await client.get(f"{url}/health/ready")
            assert (ready.status_code, ready.json()["checks"]["keys"]) == (503, "unavailable")
            headers = {"Authorization": f"Bearer {person.access}"}
            assert (await client.get(f"{url}/api/v1/inbox", headers=headers, timeout=20)).status_code in (401, 503)
    finally:
        await asyncio.to_thread(stack.start, "auth")
        await asyncio.to_thread(stack.wait_until_ready, "notify-2")
    assert (await rest.notify("GET", "/api/v1/inbox", token=person.access, node=1)).status_code == 200


async def _until_alive(client: httpx.AsyncClient, url: str) -> None:
    for _ in range(300):
        try:
            if (await client.get(f"{url}/health/live")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("not alive")
