"""The key set: fetched in the background, never on the way of a request, kept when it is down (A03, A11, A13)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from auth_site import AuthSite, edwards_key, public_jwk
from clocks import SetClock
from cryptography.hazmat.primitives.asymmetric import ed25519
from waiting import until

from notification_service.identity import key_set as key_set_module
from notification_service.identity.key_set import KeySet

PATH = "/.well-known/jwks.json"


@contextlib.asynccontextmanager
async def key_set(site: AuthSite, clock: SetClock, *, url: str | None = None) -> AsyncIterator[KeySet]:
    async with httpx.AsyncClient(trust_env=False) as client:
        keys = KeySet(url or site.url + PATH, client=client, clock=clock)
        keys.start()
        try:
            yield keys
        finally:
            await keys.stop()


@pytest.mark.req("A03")
async def test_made_up_key_ids_cost_one_fetch_in_half_a_minute_and_stall_nobody(
    auth: AuthSite, clock: SetClock
) -> None:
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        assert auth.asked[PATH] == 1
        auth.delay_s = 0.3
        turns = 0

        async def watch() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        watching = asyncio.create_task(watch())
        found = await asyncio.gather(*(keys.find(f"made-up-{number}") for number in range(500)))
        watching.cancel()
        assert set(found) == {None}
        assert auth.asked[PATH] == 2
        # A fetch that blocked the loop would leave no turn; one that does not leaves about thirty.
        assert turns >= 5
        assert await keys.find("ed-1") is not None

        clock.advance(29)
        assert await keys.find("made-up") is None
        assert auth.asked[PATH] == 2
        clock.advance(2)
        assert await keys.find("made-up") is None
        assert auth.asked[PATH] == 3


@pytest.mark.req("A11")
async def test_a_new_key_is_found_when_its_first_token_comes(auth: AuthSite, clock: SetClock) -> None:
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        auth.keys.append(public_jwk(ed25519.Ed25519PrivateKey.generate(), "ed-2"))
        assert await keys.find("ed-2") is not None
        assert await keys.find("ed-1") is not None


@pytest.mark.req("A11")
async def test_a_retired_key_is_gone_with_the_announcement(auth: AuthSite, clock: SetClock) -> None:
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        auth.keys = [public_jwk(ed25519.Ed25519PrivateKey.generate(), "ed-2")]
        keys.refresh()
        await until(lambda: "ed-2" in keys._keys)
        clock.advance(-60)
        assert "ed-1" not in keys._keys


@pytest.mark.req("A13")
async def test_while_the_auth_service_is_down_the_keys_stay(
    auth: AuthSite, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set_module, "_FETCH_LIMIT_S", 0.2)
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        auth.is_down = True
        assert await keys.find("ed-2") is None
        assert await keys.find("ed-1") is not None
        assert keys.is_loaded


@pytest.mark.req("A13")
async def test_without_a_first_answer_it_is_not_loaded_and_keeps_trying(
    auth: AuthSite, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set_module, "_RETRY", key_set_module._RETRY / 100)
    auth.is_down = True
    async with key_set(auth, clock) as keys:
        await until(lambda: auth.asked[PATH] >= 3)
        assert not keys.is_loaded
        auth.is_down = False
        await until(lambda: keys.is_loaded)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{}]}',
        b'{"keys": [null]}',
        b'{"keys": [{"kid": "x", "alg": "HS256", "kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kid": "x", "alg": "EdDSA", "kty": "OKP", "crv": "Ed25519", "x": "!"}]}',
    ],
)
async def test_an_answer_that_is_no_key_set_changes_nothing(auth: AuthSite, clock: SetClock, body: bytes) -> None:
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        auth.key_set_body = body
        keys.refresh()
        await until(lambda: auth.asked[PATH] == 2)
        auth.key_set_body = None
        keys.refresh()
        await until(lambda: auth.asked[PATH] == 3)
        assert await keys.find("ed-1") is not None


async def test_keys_for_other_uses_and_with_other_algorithms_are_passed_over(auth: AuthSite, clock: SetClock) -> None:
    good = public_jwk(edwards_key(), "good")
    auth.keys = [{**good, "kid": "enc", "use": "enc"}, {**good, "kid": "hs", "alg": "HS256"}, {**good, "kid": 5}, good]
    async with key_set(auth, clock) as keys:
        await until(lambda: keys.is_loaded)
        assert list(keys._keys) == ["good"]
