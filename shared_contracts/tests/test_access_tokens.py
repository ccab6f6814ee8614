"""What both services take for an access token, held against the library: nothing is taken that PyJWT refuses."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import OKPAlgorithm

from shared_contracts.access_tokens import RejectedToken, Rejection, accept_access_token, read_access_token
from shared_contracts.claims import LEEWAY_S, AccessTokenClaims

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ISSUER = "https://auth.example"
NOW_S = 1_800_000_000
HEADER = {"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"}
CLAIMS = {
    "iss": ISSUER,
    "aud": "herald",
    "sub": str(UUID(int=1)),
    "jti": str(UUID(int=2)),
    "sid": str(UUID(int=3)),
    "iat": NOW_S,
    "nbf": NOW_S,
    "exp": NOW_S + 900,
    "roles": ["user"],
    "scope": "inbox",
    "tenant": "default",
    "token_use": "access",
}


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: Any, header: Any, key: Ed25519PrivateKey = KEY) -> str:
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


def verify(message: bytes, signature: bytes) -> bool:
    return OKPAlgorithm().verify(message, KEY.public_key(), signature)


def accept(token: str, *, algorithm: str = "EdDSA", now_s: float = NOW_S) -> AccessTokenClaims:
    unverified = read_access_token(token)
    return accept_access_token(unverified, algorithm=algorithm, verify=verify, issuer=ISSUER, now_s=now_s)


def reason(token: str, **options: Any) -> Rejection:
    with pytest.raises(RejectedToken) as rejected:
        accept(token, **options)
    return rejected.value.reason


def accept_with_library(token: str) -> dict[str, Any]:
    required = ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"]
    # The library has no clock to be set; times are looked at by the tests below.
    options: Any = {"require": required, "strict_aud": True, "verify_exp": False, "verify_nbf": False}
    options["verify_iat"] = False
    claims: dict[str, Any] = jwt.decode(
        token, KEY.public_key(), algorithms=["EdDSA"], audience="herald", issuer=ISSUER, options=options
    )
    return claims


def test_a_good_token_is_accepted() -> None:
    assert accept(sign(CLAIMS, HEADER)).model_dump(mode="json") == CLAIMS


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 1.5, -1, NOW_S, str(NOW_S), 10**400, float("nan"), "", "x", "herald", ["herald"], [], {}, "é\ud800"]
)


@settings(max_examples=400)
@given(
    st.dictionaries(st.sampled_from([*CLAIMS, "other"]), ODD, max_size=2),
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku"]), ODD, max_size=1),
    st.sets(st.sampled_from(sorted(CLAIMS)), max_size=1),
    st.none() | st.tuples(st.integers(0, 700), st.integers(0, 6)),
)
def test_what_is_accepted_the_library_accepts_with_the_same_claims(
    changed: dict[str, Any], header: dict[str, Any], missing: set[str], flipped: tuple[int, int] | None
) -> None:
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if name not in missing}
    token = sign(claims, {**HEADER, **header})
    if flipped is not None:
        at = flipped[0] % len(token)
        token = token[:at] + chr(ord(token[at]) ^ (1 << flipped[1])) + token[at + 1 :]
    try:
        accepted = accept(token)
    except RejectedToken:
        return
    assert flipped is None
    theirs = accept_with_library(token)
    assert accepted.model_dump(mode="json") == {name: theirs[name] for name in CLAIMS}


@pytest.mark.req("A10")
@pytest.mark.parametrize("at", range(0, 700, 7))
def test_one_bit_makes_another_token(at: int) -> None:
    token = sign(CLAIMS, HEADER)
    at %= len(token)
    reason(token[:at] + chr(ord(token[at]) ^ 1) + token[at + 1 :])


@pytest.mark.req("A06")
def test_times_to_the_second() -> None:
    token = sign(CLAIMS, HEADER)
    accept(token, now_s=NOW_S + 900 + LEEWAY_S - 0.001)
    assert reason(token, now_s=NOW_S + 900 + LEEWAY_S) is Rejection.EXPIRED
    assert RejectedToken(Rejection.EXPIRED).is_expired
    accept(token, now_s=NOW_S - LEEWAY_S)
    assert reason(token, now_s=NOW_S - LEEWAY_S - 0.001) is Rejection.NOT_YET_VALID
    assert not RejectedToken(Rejection.NOT_YET_VALID).is_expired
    for name in ("nbf", "iat"):
        assert reason(sign({**CLAIMS, name: NOW_S + LEEWAY_S + 1}, HEADER)) is Rejection.NOT_YET_VALID


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"iss": ISSUER + "/"}, Rejection.ISSUER),
        ({"iss": [ISSUER]}, Rejection.ISSUER),
        ({"aud": ["herald"]}, Rejection.AUDIENCE),
        ({"aud": None}, Rejection.AUDIENCE),
        ({"token_use": "refresh"}, Rejection.CLAIMS),
        ({"exp": True}, Rejection.CLAIMS),
        ({"exp": str(NOW_S)}, Rejection.CLAIMS),
        ({"exp": float("nan")}, Rejection.CLAIMS),
    ],
)
def test_claims_that_say_no(changed: dict[str, Any], wanted: Rejection) -> None:
    assert reason(sign({**CLAIMS, **changed}, HEADER)) is wanted


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"alg": "none"}, Rejection.ALGORITHM),
        ({"alg": "HS256"}, Rejection.ALGORITHM),
        ({"alg": ["EdDSA"]}, Rejection.ALGORITHM),
        ({"alg": "RS256"}, Rejection.ALGORITHM),
        ({"typ": "JWT"}, Rejection.TYPE),
        ({"crit": []}, Rejection.CRITICAL),
        ({"kid": None}, Rejection.KEY),
        ({"kid": "k" * 129}, Rejection.KEY),
        ({"kid": "\u202e"}, Rejection.KEY),
    ],
)
def test_headers_that_say_no(changed: dict[str, Any], wanted: Rejection) -> None:
    assert reason(sign(CLAIMS, {**HEADER, **changed})) is wanted


def test_other_signatures_payloads_and_lengths() -> None:
    assert reason(sign(CLAIMS, HEADER, Ed25519PrivateKey.generate())) is Rejection.SIGNATURE
    assert reason(sign(CLAIMS, HEADER).rpartition(".")[0] + ".AQ") is Rejection.SIGNATURE
    signed = f"{encode(json.dumps(HEADER).encode())}.{encode(json.dumps(CLAIMS).encode('utf-16'))}"
    assert reason(f"{signed}.{encode(KEY.sign(signed.encode()))}") is Rejection.MALFORMED
    assert reason(sign([], HEADER)) is Rejection.CLAIMS
    assert reason("A" * 9_000) is Rejection.TOO_LONG
    assert reason("") is Rejection.MALFORMED
