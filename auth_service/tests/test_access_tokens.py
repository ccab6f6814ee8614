"""Forged, broken and misused tokens (requirements A01 to A12)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from auth_kit import Api, Device, internal, introspect, is_active, log_in, make_service, make_user
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.api_jws import PyJWS
from prometheus_client import REGISTRY

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.tokens.access_tokens import check_access_token, key_folder
from shared_contracts.claims import LEEWAY_S
from shared_contracts.scopes import Scope

ME = "/api/v1/users/me"


def encode(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def parts_of(token: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    assert token is not None
    header, payload, _ = token.split(".")
    return jwt.get_unverified_header(token), json.loads(base64.urlsafe_b64decode(payload + "==")) if header else {}


def sign(payload: dict[str, Any], **header: Any) -> str:
    """A token with our own key and whatever else is wanted in it."""
    key = key_folder().load().keys[-1]
    headers = {"alg": "RS256", "kid": key.kid, "typ": "at+jwt", **header}
    # The inner signer: the outer one would not write what only an attacker writes.
    text = json.dumps(payload).encode()
    return PyJWS().encode(text, key.private, "RS256", headers={k: v for k, v in headers.items() if v is not None})


def rejected(reason: str) -> float:
    return REGISTRY.get_sample_value("auth_token_rejected_total", {"reason": reason}) or 0.0


def assert_refused(token: str) -> None:
    answer = Api(token).get(ME)
    assert (answer.status, answer.code) == (401, "invalid_token"), answer.text
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert introspect(token) == {"active": False}


@pytest.mark.req("A01")
@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE"])
def test_tokens_without_a_signature_are_refused(device: Device, algorithm: str) -> None:
    header, payload = parts_of(device.token)
    before = rejected("alg") + rejected("malformed")

    assert_refused(f"{encode({**header, 'alg': algorithm})}.{encode(payload)}.")
    assert_refused(f"{encode({**header, 'alg': algorithm})}.{encode(payload)}.AQ")

    assert rejected("alg") + rejected("malformed") == before + 4


@pytest.mark.req("A01")
def test_a_refused_algorithm_is_counted_as_such(device: Device) -> None:
    header, payload = parts_of(device.token)
    before = rejected("alg")
    assert_refused(f"{encode({**header, 'alg': 'none'})}.{encode(payload)}.AQ")
    assert rejected("alg") == before + 2


@pytest.mark.req("A02")
def test_our_public_key_is_no_shared_secret(device: Device) -> None:
    header, payload = parts_of(device.token)
    key = key_folder().load().keys[-1]
    public = key.private.public_key()
    secrets = [
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key.public_jwk).encode(),
    ]
    for secret in secrets:
        signed = f"{encode({**header, 'alg': 'HS256'})}.{encode(payload)}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert_refused(f"{signed}.{encode(mac)}")


@pytest.mark.req("A03")
@pytest.mark.parametrize(
    "kid", ["../../../../etc/passwd", "' OR 1=1 --", "\x00", "k" * 10_000, 17, None, ["a"], "unknown"]
)
def test_strange_key_ids_are_refused(device: Device, kid: Any) -> None:
    header, payload = parts_of(device.token)
    changed = {**header, "kid": kid}
    if kid is None:
        del changed["kid"]
    token = device.token or ""
    assert_refused(f"{encode(changed)}.{encode(payload)}.{token.split('.')[2]}")


@pytest.mark.req("A03")
def test_a_key_id_opens_no_file(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    header, payload = parts_of(device.token)
    key_folder().load()

    def refuse(*_: Any) -> None:
        raise AssertionError("a key id made the service look at a file")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    for kid in ("../" * 20 + "etc/passwd", "x"):
        assert_refused(f"{encode({**header, 'kid': kid})}.{encode(payload)}.AQ")


@pytest.mark.req("A04")
@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c"])
def test_keys_named_by_the_token_itself_are_not_looked_at(device: Device, name: str) -> None:
    header, payload = parts_of(device.token)
    attacker = generate_private_key(public_exponent=65537, key_size=2048)
    value: Any = "http://192.0.2.1/keys" if name in {"jku", "x5u"} else {"kty": "RSA"} if name == "jwk" else ["MIIB"]
    assert_refused(
        jwt.encode(payload, attacker, algorithm="RS256", headers={"kid": header["kid"], "typ": "at+jwt", name: value})
    )


@pytest.mark.req("A05")
def test_unknown_critical_headers_are_refused(device: Device) -> None:
    _, payload = parts_of(device.token)
    assert_refused(sign(payload, crit=["b64-made-up"], **{"b64-made-up": True}))


@pytest.mark.req("A06")
def test_expiry_is_exact_to_the_second_after_the_leeway(frozen: clock.FrozenClock, device: Device) -> None:
    assert device.token is not None
    claims = check_access_token(device.token)

    frozen.advance(claims.exp - claims.iat + LEEWAY_S - 1)
    assert Api(device.token).get(ME).status == 200
    assert is_active(device.token)
    frozen.advance(1)
    assert_refused(device.token)
    frozen.advance(1)
    assert_refused(device.token)


@pytest.mark.req("A06", "A07")
@pytest.mark.parametrize(
    "name", ["exp", "iat", "nbf", "iss", "aud", "sub", "jti", "sid", "roles", "scope", "tenant", "token_use"]
)
def test_a_missing_claim_is_refused(device: Device, name: str) -> None:
    _, payload = parts_of(device.token)
    del payload[name]
    assert_refused(sign(payload))


@pytest.mark.req("A07")
@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_tokens_of_the_future_are_refused_beyond_the_leeway(device: Device, name: str) -> None:
    _, payload = parts_of(device.token)
    assert Api(sign({**payload, name: payload[name] + LEEWAY_S - 1})).get(ME).status == 200
    assert_refused(sign({**payload, name: payload["iat"] + LEEWAY_S + 60}))


@pytest.mark.req("A07")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["exp", "iat", "nbf"], ["1795188697", 1795188697.5, 1e300, True, None, [], {}, "NaN"]),
        ("exp", -1),
    ],
)
def test_times_that_are_no_whole_seconds_are_refused(device: Device, name: str, value: Any) -> None:
    _, payload = parts_of(device.token)
    assert_refused(sign({**payload, name: float("nan") if value == "NaN" else value}))


@pytest.mark.req("A08")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "http://127.0.0.1:800"},
        {"iss": "http://127.0.0.1:8000/"},
        {"iss": "https://evil.example/http://127.0.0.1:8000"},
        {"iss": ["http://127.0.0.1:8000"]},
        {"aud": "other"},
        {"aud": "heral"},
        {"aud": ["other", "herald"]},
        {"aud": ["herald"]},
    ],
)
def test_foreign_issuers_and_audiences_are_refused(device: Device, changes: dict[str, Any]) -> None:
    _, payload = parts_of(device.token)
    assert_refused(sign({**payload, **changes}))


@pytest.mark.req("A09")
def test_no_token_works_in_another_ones_place(device: Device) -> None:
    _, payload = parts_of(device.token)
    ticket = Api(device.token).post("/api/v1/auth/ws-ticket").body["ticket"]
    _, service = make_service(Scope.USERS_READ)

    for wrong in (device.refresh, ticket, sign(payload, typ="JWT"), sign(payload, typ=None)):
        assert_refused(wrong)
    refused = Api().post("/api/v1/auth/token/refresh", {"refresh": device.token})
    assert (refused.status, refused.code) == (401, "invalid_token")
    assert Api().post("/api/v1/auth/token/refresh", {"refresh": ticket}).status == 401
    assert service.get(ME).status == 401
    assert service.post("/api/v1/auth/ws-ticket").status == 401
    assert introspect(device.refresh) == {"active": False}
    assert introspect(ticket) == {"active": False}


@pytest.mark.req("A09")
@pytest.mark.parametrize("changes", [{"token_use": "refresh"}, {"token_use": "ticket"}])
def test_tokens_for_another_use_are_refused(device: Device, changes: dict[str, str]) -> None:
    _, payload = parts_of(device.token)
    assert_refused(sign({**payload, **changes}))


def mutations(token: str, count: int) -> Iterator[str]:
    chance = random.Random(20)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for _ in range(count):
        place = chance.randrange(len(token))
        kind = chance.randrange(4)
        if kind == 0:
            yield token[:place] + chance.choice(alphabet.replace(token[place], "")) + token[place + 1 :]
        elif kind == 1:
            yield token[:place] + token[place + 1 :]
        elif kind == 2:
            yield token[:place] + chance.choice("=+/ .\t%") + token[place:]
        else:
            yield token + chance.choice(["=", "A", ".", "\n", ".e30"])


@pytest.mark.req("A10")
def test_no_mutation_of_a_token_counts(device: Device) -> None:
    assert device.token is not None
    tokens = [each for each in mutations(device.token, 1_000) if each.strip() != device.token]

    for start in range(0, len(tokens), 500):
        answer = internal().post("/internal/v1/tokens/introspect/batch", {"tokens": tokens[start : start + 500]})
        assert answer.status == 200
        assert all(item == {"active": False} for item in answer.body["items"])
    for token in tokens[:50]:
        if token.isprintable():
            assert Api(token).get(ME).status == 401


@pytest.mark.req("A10")
def test_the_spare_bits_of_the_last_character_matter(device: Device) -> None:
    assert device.token is not None
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twins = [device.token[:-1] + chr(ord(c)) for c in alphabet if c != device.token[-1]]
    assert not any(is_active(twin) for twin in twins)


@pytest.mark.req("A10")
def test_a_token_of_20_kilobytes_is_refused(db: None) -> None:
    assert_refused(f"{encode({'alg': 'RS256', 'kid': 'x', 'typ': 'at+jwt'})}.{'A' * 20_000}.AQ")


@pytest.mark.req("A12")
def test_the_key_set_holds_public_numbers_only(db: None) -> None:
    answer = Api().get("/.well-known/jwks.json")
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    for key in answer.body["keys"]:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
    again = Api().get("/.well-known/jwks.json", If_None_Match=answer.headers["ETag"])
    assert again.status == 304


def test_a_token_of_a_user_without_rights_shows_only_its_own(db: None) -> None:
    device = log_in(make_user("eve"))
    assert device.get("/api/v1/users").status == 403
    assert User.objects.get(username="eve").id == device.user.id
