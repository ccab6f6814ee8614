"""Asking the auth service: in batches, remembered for 30 s, forgotten at once on a change (A13, A18, A19, A22)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
from auth_site import INTERNAL_KEY, ISSUER, AuthSite, make_claims, sign
from clocks import SetClock
from waiting import until

from notification_service.clock import SystemClock
from notification_service.errors import Unavailable
from notification_service.identity import introspection as introspection_module
from notification_service.identity.access import Access
from notification_service.identity.introspection import Ending, Introspection
from notification_service.identity.key_set import KeySet
from notification_service.identity.tokens import SignatureCheck
from shared_contracts.access_tokens import RejectedToken
from shared_contracts.scopes import Scope

BATCH = "/internal/v1/tokens/introspect/batch"


@contextlib.asynccontextmanager
async def access_to(site: AuthSite, clock: SetClock) -> AsyncIterator[Access]:
    async with httpx.AsyncClient(trust_env=False) as client:
        keys = KeySet(f"{site.url}/.well-known/jwks.json", client=client, clock=clock)
        keys.start()
        await until(lambda: keys.is_loaded)
        introspection = Introspection(site.url, key=INTERNAL_KEY, client=client, ttl=timedelta(seconds=30), clock=clock)
        try:
            yield Access(SignatureCheck(keys, issuer=ISSUER, audience="herald", clock=SystemClock()), introspection)
        finally:
            await keys.stop()


async def is_refused(access: Access, token: str, **options: bool) -> str:
    with pytest.raises(RejectedToken) as refused:
        await access.identify(token, **options)
    return refused.value.reason


async def test_a_caller_is_who_the_token_says_with_the_rights_of_now(auth: AuthSite, clock: SetClock) -> None:
    claims = make_claims(roles=["admin"], tenant="acme")
    auth.overrides[claims["sub"]] = {"roles": ["staff"], "scope": "inbox deliveries:read tokens:issue"}
    async with access_to(auth, clock) as access:
        caller = await access.identify(sign(claims))
    assert (str(caller.id), caller.tenant, caller.roles, caller.name) == (claims["sub"], "acme", ("staff",), "ada")
    # What the answer adds beyond the token does not count, what it leaves out is gone.
    assert caller.scopes == {Scope.INBOX, Scope.DELIVERIES_READ}
    assert caller.expires_at == datetime.fromtimestamp(claims["exp"], UTC)
    assert not caller.is_service
    assert auth.internal_keys_seen == {None, INTERNAL_KEY}  # None: the key set is public


async def test_a_service_account_is_named_by_its_client_id(auth: AuthSite, clock: SetClock) -> None:
    claims = make_claims(roles=["service"], scope="notifications:send")
    auth.overrides[claims["sub"]] = {"username": None, "client_id": "shop"}
    async with access_to(auth, clock) as access:
        caller = await access.identify(sign(claims))
    assert (caller.is_service, caller.name) == (True, "shop")
    assert caller.scopes == {Scope.NOTIFICATIONS_SEND}


async def test_a_thousand_at_once_cost_a_few_calls_and_each_gets_its_own_answer(
    auth: AuthSite, clock: SetClock
) -> None:
    tokens = [auth.token() for _ in range(1000)]
    auth.inactive = set(tokens[::10])
    async with access_to(auth, clock) as access:
        answers = await asyncio.gather(*(access.introspection.ask(token) for token in tokens))
    assert [answer.is_active for answer in answers] == [token not in auth.inactive for token in tokens]
    assert auth.asked[BATCH] <= 8
    assert max(len(batch) for batch in auth.batches) <= 500


@pytest.mark.req("A19", "A22")
async def test_an_answer_says_what_ended(auth: AuthSite, clock: SetClock) -> None:
    said = {"account_closed": Ending.ACCOUNT_CLOSED, "session_ended": Ending.SESSION_ENDED, "a later word": None}
    tokens = {auth.token(): word for word in said}
    auth.endings = tokens
    auth.inactive = {*tokens, plain := auth.token()}
    async with access_to(auth, clock) as access:
        answers = {token: await access.introspection.ask(token) for token in auth.inactive}
        good = await access.introspection.ask(auth.token())
    assert {tokens[token]: answers[token].ending for token in tokens} == said
    assert (answers[plain].ending, good.ending) == (None, None)
    assert not any(answer.is_active for answer in answers.values())


async def test_an_answer_is_used_for_half_a_minute_and_no_longer(auth: AuthSite, clock: SetClock) -> None:
    token = auth.token()
    async with access_to(auth, clock) as access:
        await access.identify(token)
        clock.advance(29)
        await access.identify(token)
        assert auth.asked[BATCH] == 1
        auth.inactive.add(token)
        clock.advance(2)
        assert await is_refused(access, token) == "revoked"
        assert auth.asked[BATCH] == 2
        # A refusal is remembered too.
        assert await is_refused(access, token) == "revoked"
        assert auth.asked[BATCH] == 2


async def test_a_fresh_answer_is_asked_for_every_time(auth: AuthSite, clock: SetClock) -> None:
    token = auth.token()
    async with access_to(auth, clock) as access:
        await access.identify(token)
        auth.inactive.add(token)
        await access.identify(token)
        assert await is_refused(access, token, fresh=True) == "revoked"
        assert await is_refused(access, token) == "revoked"


@pytest.mark.req("A18")
@pytest.mark.req("A19")
async def test_a_change_of_an_account_is_felt_at_once(auth: AuthSite, clock: SetClock) -> None:
    mine, other = make_claims(), make_claims()
    tokens = [sign(mine), sign({**mine, "jti": str(uuid4())})]
    async with access_to(auth, clock) as access:
        for token in (*tokens, sign(other)):
            await access.identify(token)
        calls = auth.asked[BATCH]
        auth.inactive.update(tokens)
        access.introspection.forget_user(UUID(mine["sub"]))
        for token in tokens:
            assert await is_refused(access, token) == "revoked"
        await access.identify(sign(other))
        assert auth.asked[BATCH] == calls + 2
        access.introspection.forget_all()
        await access.identify(sign(other))
        assert auth.asked[BATCH] == calls + 3


async def test_an_answer_overtaken_by_a_change_is_not_believed(auth: AuthSite, clock: SetClock) -> None:
    claims = make_claims()
    token = sign(claims)
    auth.delay_s = 0.2
    async with access_to(auth, clock) as access:
        asking = asyncio.create_task(access.introspection.ask(token))
        await until(lambda: auth.asked[BATCH] == 1)
        access.introspection.forget_user(UUID(claims["sub"]))
        assert (await asking).is_active
        assert auth.asked[BATCH] == 2


@pytest.mark.req("A13")
@pytest.mark.req("A22")
async def test_while_the_auth_service_is_down(auth: AuthSite, clock: SetClock) -> None:
    good, ended, closed = make_claims(roles=["staff"]), make_claims(), make_claims()
    spared = make_claims(sub=closed["sub"])
    async with access_to(auth, clock) as access:
        access.introspection.note_ended(UUID(ended["sub"]), [UUID(ended["sid"])])
        clock.advance(2)
        access.introspection.note_ended(UUID(closed["sub"]), spared=UUID(spared["sid"]))
        auth.is_down = True
        caller = await access.identify(sign(good))
        assert Scope.DELIVERIES_READ in caller.scopes
        # What is sensitive to revocation is refused rather than decided alone.
        with pytest.raises(Unavailable):
            await access.identify(sign(good), sensitive=True)
        assert await is_refused(access, sign(ended)) == "revoked"
        assert await is_refused(access, sign(closed)) == "revoked"
        assert (await access.identify(sign(spared))).id == UUID(closed["sub"])
        later = make_claims(sub=closed["sub"], iat=int(time.time()) + 4)
        assert (await access.identify(sign(later))).id == UUID(closed["sub"])
        auth.is_down = False
        assert (await access.identify(sign(good))).name == "ada"


async def test_an_answer_about_somebody_else_is_no_answer(auth: AuthSite, clock: SetClock) -> None:
    claims = make_claims()
    auth.overrides[claims["sub"]] = {"sub": str(uuid4())}
    async with access_to(auth, clock) as access:
        assert await is_refused(access, sign(claims)) == "revoked"


@pytest.mark.parametrize("odd", [{"sub": "x"}, {"sid": None}, {"exp": "soon"}, {"roles": None}])
async def test_an_answer_that_cannot_be_read_is_none(auth: AuthSite, clock: SetClock, odd: dict[str, object]) -> None:
    claims = make_claims()
    auth.overrides[claims["sub"]] = odd
    async with access_to(auth, clock) as access:
        with pytest.raises(Unavailable):
            await access.introspection.ask(sign(claims))


async def test_what_is_remembered_is_bounded(auth: AuthSite, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection_module, "_MAX_CACHED", 10)
    monkeypatch.setattr(introspection_module, "_MAX_ENDED", 10)
    monkeypatch.setattr(introspection_module, "_MAX_CHANGED", 10)
    tokens = [auth.token() for _ in range(30)]
    async with access_to(auth, clock) as access:
        introspection = access.introspection
        for token in tokens:
            await introspection.ask(token)
        assert len(introspection._known) == len(introspection._by_user) == 10
        calls = auth.asked[BATCH]
        await introspection.ask(tokens[-1])
        assert auth.asked[BATCH] == calls
        await introspection.ask(tokens[0])
        assert auth.asked[BATCH] == calls + 1
        for _ in range(30):
            introspection.note_ended(uuid4(), [uuid4()])
            introspection.note_ended(uuid4())
        assert len(introspection._ended) == len(introspection._cut_off) == len(introspection._changed) == 10
        # Whom it has forgotten counts as changed: in doubt it asks again.
        assert introspection.has_changed(uuid4(), since=0)


async def test_a_ticket_works_once(auth: AuthSite, clock: SetClock) -> None:
    claims = make_claims(roles=["staff"], tenant="acme")
    auth.tickets["t-1"] = {**claims, "username": "ada"}
    async with access_to(auth, clock) as access:
        caller = await access.redeem("t-1")
        assert (str(caller.id), str(caller.session_id), caller.tenant) == (claims["sub"], claims["sid"], "acme")
        assert Scope.DELIVERIES_READ in caller.scopes
        for ticket in ("t-1", "never-sold"):
            with pytest.raises(RejectedToken):
                await access.redeem(ticket)
        auth.is_down = True
        with pytest.raises(Unavailable):
            await access.redeem("t-2")
