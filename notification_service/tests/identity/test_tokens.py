"""Access tokens that are forged, stale, foreign or malformed, one row each (A01 to A10)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import pytest_asyncio
from auth_site import ISSUER, AuthSite, auth_site, edwards_key, make_claims, public_jwk, rsa_key, sign
from clocks import SetClock
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from prometheus_client import REGISTRY
from waiting import until

from notification_service.clock import SystemClock
from notification_service.identity.key_set import KeySet
from notification_service.identity.tokens import SignatureCheck
from shared_contracts.access_tokens import RejectedToken
from shared_contracts.claims import LEEWAY_S
from shared_contracts.jws import MAX_TOKEN_LENGTH

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[AuthSite]:
    async with auth_site() as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def check(site: AuthSite) -> AsyncIterator[SignatureCheck]:
    async with httpx.AsyncClient(trust_env=False) as client:
        keys = KeySet(f"{site.url}/.well-known/jwks.json", client=client, clock=SetClock())
        keys.start()
        await until(lambda: keys.is_loaded)
        yield SignatureCheck(keys, issuer=ISSUER, audience="herald", clock=SystemClock())
        await keys.stop()


async def refusal(check: SignatureCheck, token: str) -> str:
    with pytest.raises(RejectedToken) as refused:
        await check.check(token)
    return refused.value.reason


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(("key", "kid"), [(edwards_key, "ed-1"), (rsa_key, "rsa-1")])
async def test_a_good_token_is_taken_with_either_kind_of_key(check: SignatureCheck, key: Any, kid: str) -> None:
    given = make_claims(roles=["staff"])
    claims = await check.check(sign(given, kid=kid, key=key()))
    assert str(claims.sub) == given["sub"]
    assert claims.roles == ("staff",)
    assert not claims.is_service


@pytest.mark.req("A01")
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
async def test_no_algorithm(check: SignatureCheck, algorithm: str) -> None:
    before = REGISTRY.get_sample_value("auth_token_rejected_total", {"reason": "alg"}) or 0
    header = part({"alg": algorithm, "kid": "ed-1", "typ": "at+jwt"})
    # With an empty signature, and with one: a token without the last part has one spelling too many.
    signature = sign(make_claims()).rpartition(".")[2]
    assert await refusal(check, f"{header}.{part(make_claims())}.") in ("alg", "malformed")
    assert await refusal(check, f"{header}.{part(make_claims())}.{signature}") == "alg"
    assert (REGISTRY.get_sample_value("auth_token_rejected_total", {"reason": "alg"}) or 0) > before


@pytest.mark.req("A02")
async def test_our_public_key_used_as_a_shared_secret(check: SignatureCheck, site: AuthSite) -> None:
    public = rsa_key().public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, der, json.dumps(site.keys[1]).encode()):
        signed = f"{part({'alg': 'HS256', 'kid': 'rsa-1', 'typ': 'at+jwt'})}.{part(make_claims())}"
        mac = base64.urlsafe_b64encode(hmac.digest(secret, signed.encode(), hashlib.sha256)).rstrip(b"=").decode()
        assert await refusal(check, f"{signed}.{mac}") == "alg"


async def test_each_key_works_with_its_own_algorithm_only(check: SignatureCheck) -> None:
    signed = sign(make_claims(), kid="rsa-1", key=edwards_key())
    assert await refusal(check, signed) == "alg"
    foreign = sign(make_claims(), key=ed25519.Ed25519PrivateKey.generate())
    assert await refusal(check, foreign) == "signature"
    ps256 = jwt.encode(make_claims(), rsa_key(), "PS256", headers={"kid": "rsa-1", "typ": "at+jwt"})
    assert await refusal(check, ps256) == "alg"


@pytest.mark.req("A03")
@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "' OR 1=1 --", "a\x00b", "x" * 10_240, 5, None, "", "\u202e", ["ed-1"], {"a": 1}],
)
async def test_a_key_id_that_is_no_key_id(check: SignatureCheck, site: AuthSite, kid: Any) -> None:
    header: dict[str, Any] = {"alg": "EdDSA", "typ": "at+jwt", "kid": kid}
    if kid is None:
        del header["kid"]
    signature = sign(make_claims()).rpartition(".")[2]
    assert await refusal(check, f"{part(header)}.{part(make_claims())}.{signature}") in ("kid", "malformed", "too_long")


@pytest.mark.req("A04")
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
async def test_keys_a_token_brings_along_are_not_looked_at(check: SignatureCheck, site: AuthSite, name: str) -> None:
    own = ed25519.Ed25519PrivateKey.generate()
    pointed: dict[str, Any] = {
        "jku": f"{site.url}/.well-known/jwks.json?attacker",
        "x5u": f"{site.url}/x5u",
        "jwk": public_jwk(own, "ed-1"),
        "x5c": ["MIIB"],
    }
    asked = site.asked.copy()
    assert await refusal(check, sign(make_claims(), key=own, **{name: pointed[name]})) == "signature"
    assert site.asked == asked


@pytest.mark.req("A05")
@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "x"])
async def test_what_must_be_understood_is_not(check: SignatureCheck, crit: Any) -> None:
    header = part({"alg": "EdDSA", "kid": "ed-1", "typ": "at+jwt", "crit": crit})
    signature = sign(make_claims()).rpartition(".")[2]
    assert await refusal(check, f"{header}.{part(make_claims())}.{signature}") in ("crit", "malformed")


@pytest.mark.req("A06")
async def test_expiry_to_the_second(check: SignatureCheck) -> None:
    now = int(time.time())
    assert (await check.check(sign(make_claims(exp=now - LEEWAY_S + 2)))).exp == now - LEEWAY_S + 2
    with pytest.raises(RejectedToken) as refused:
        await check.check(sign(make_claims(exp=now - LEEWAY_S - 1)))
    assert (refused.value.reason, refused.value.is_expired) == ("expired", True)


@pytest.mark.req("A06")
@pytest.mark.parametrize("name", ["iss", "aud", "sub", "jti", "iat", "nbf", "exp", "sid", "roles", "scope", "tenant"])
async def test_every_claim_must_be_there(check: SignatureCheck, name: str) -> None:
    claims = make_claims()
    del claims[name]
    assert await refusal(check, sign(claims)) in ("claims", "audience", "issuer")


@pytest.mark.req("A07")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nbf", 60),
        ("iat", 60),
        ("nbf", "x"),
        ("iat", "x"),
        ("exp", "soon"),
        ("exp", 1e300),
        ("exp", float("nan")),
        ("exp", float("inf")),
        ("exp", -1),
        ("exp", 0),
        ("exp", True),
        ("exp", []),
        ("exp", {}),
        pytest.param("exp", 10**400, id="exp-huge"),
        pytest.param("exp", 253_402_300_800, id="exp-year-10000"),
        ("sub", "ada"),
        ("sub", 5),
        ("sub", ""),
        ("sid", None),
        ("roles", "admin"),
        ("roles", [{"a": 1}]),
        ("scope", ["inbox"]),
        ("tenant", 5),
    ],
)
async def test_claims_of_another_kind_are_refused_and_never_a_fault(
    check: SignatureCheck, name: str, value: Any
) -> None:
    claims = make_claims()
    claims[name] = int(time.time()) + value if name in ("nbf", "iat") and isinstance(value, int) else value
    payload = json.dumps(claims).encode()  # as it is: PyJWT's own encoder would refuse some of these
    header = part({"alg": "EdDSA", "kid": "ed-1", "typ": "at+jwt"})
    signed = f"{header}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}"
    signature = base64.urlsafe_b64encode(edwards_key().sign(signed.encode())).rstrip(b"=").decode()
    assert await refusal(check, f"{signed}.{signature}") in ("claims", "expired", "not_yet_valid", "malformed")


@pytest.mark.req("A08")
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("iss", ISSUER + ".evil.example", "issuer"),
        ("iss", ISSUER[:-1], "issuer"),
        ("iss", ISSUER + "/", "issuer"),
        ("iss", [ISSUER], "issuer"),
        ("iss", "", "issuer"),
        ("aud", "other", "audience"),
        ("aud", ["herald"], "audience"),
        ("aud", ["other", "herald"], "audience"),
        ("aud", "herald ", "audience"),
        ("aud", {"herald": 1}, "audience"),
    ],
)
async def test_another_issuer_or_audience(check: SignatureCheck, name: str, value: Any, reason: str) -> None:
    claims = {**make_claims(), name: value}
    header = part({"alg": "EdDSA", "kid": "ed-1", "typ": "at+jwt"})
    signed = f"{header}.{part(claims)}"
    signature = base64.urlsafe_b64encode(edwards_key().sign(signed.encode())).rstrip(b"=").decode()
    assert await refusal(check, f"{signed}.{signature}") in (reason, "claims")


@pytest.mark.req("A09")
@pytest.mark.parametrize("kind", ["JWT", "jwt", "rt+jwt", None, "application/at+jwt"])
async def test_another_kind_of_token(check: SignatureCheck, kind: Any) -> None:
    assert await refusal(check, sign(make_claims(), typ=kind)) == "typ"


@pytest.mark.req("A09")
@pytest.mark.parametrize("use", ["refresh", "ticket", "", None])
async def test_another_use(check: SignatureCheck, use: Any) -> None:
    claims = make_claims()
    claims["token_use"] = use
    assert await refusal(check, sign(claims)) == "claims"
    assert await refusal(check, str(uuid4())) == "malformed"


@pytest.mark.req("A10")
async def test_no_mutation_passes_and_none_is_a_fault(check: SignatureCheck) -> None:
    token = sign(make_claims(roles=["user"]))
    random_bits = random.Random(1)  # the same thousand every time
    for _ in range(1000):
        index = random_bits.randrange(len(token))
        bit = 1 << random_bits.randrange(7)
        mutated = token[:index] + chr(ord(token[index]) ^ bit) + token[index + 1 :]
        assert mutated != token
        await refusal(check, mutated)


@pytest.mark.req("A10")
async def test_other_spellings_and_lengths(check: SignatureCheck) -> None:
    token = sign(make_claims())
    for other in (token + "=", token + ".", token + "A", " " + token, token + "\n", token.replace(".", "..", 1)):
        assert await refusal(check, other) in ("malformed", "signature")
    assert await refusal(check, token + "A" * 20_000) == "too_long"
    assert await refusal(check, "A" * (MAX_TOKEN_LENGTH + 1)) == "too_long"
    assert await refusal(check, "") == "malformed"
    # The last character of a segment may carry bits that mean nothing: the other spelling is another text.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    twin = token[:-1] + alphabet[last ^ 1]
    assert base64.urlsafe_b64decode(twin.rpartition(".")[2] + "==") == base64.urlsafe_b64decode(
        token.rpartition(".")[2] + "=="
    )
    assert await refusal(check, twin) == "malformed"
