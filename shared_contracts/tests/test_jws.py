from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_contracts.jws import MAX_TOKEN_LENGTH, Jws, read_jws

HEADER = "eyJhbGciOiJSUzI1NiJ9"


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_the_one_spelling_of_a_token_is_taken_apart() -> None:
    assert read_jws(f"{HEADER}.e30.AQ") == Jws({"alg": "RS256"}, b"{}", f"{HEADER}.e30".encode(), b"\x01")


@pytest.mark.req("A10")
@pytest.mark.parametrize(
    "end",
    [
        "",
        ".e30",
        ".e30.",
        ".e30.AQ.AQ",
        ".e30.AQ==",
        ".e30.AQ\n",
        ".e3 0.AQ",
        "..AQ",
        ".e30.AR",  # the same byte as AQ: the spare bits differ
        ".e31.AQ",
        ".e30.A",  # no number of bytes has one character
        ".e30.A+/A",
        ".e30.AQ" + "A" * MAX_TOKEN_LENGTH,
    ],
)
def test_any_other_spelling_is_none(end: str) -> None:
    assert read_jws(HEADER + end) is None
    assert read_jws(f" {HEADER}.e30.AQ") is None
    assert read_jws("..") is None


@pytest.mark.req("A10")
@settings(max_examples=300)
@given(st.text("AEIMQUYcgkosw048BRxyz-_+/=. é", max_size=9))
def test_a_part_is_taken_when_decoding_and_encoding_give_it_back(part: str) -> None:
    try:
        is_canonical = part != "" and encode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) == part
    except ValueError:
        is_canonical = False
    assert (read_jws(f"{HEADER}.{part}.AQ") is not None) is is_canonical
    assert (read_jws(f"{HEADER}.AQ.{part}") is not None) is is_canonical


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=70))
def test_payload_and_signature_come_back_as_bytes(payload: bytes, signature: bytes) -> None:
    header = {"alg": "EdDSA", "kid": "é"}
    signed = f"{encode(json.dumps(header).encode())}.{encode(payload)}"
    assert read_jws(f"{signed}.{encode(signature)}") == Jws(header, payload, signed.encode(), signature)


@pytest.mark.parametrize("encoded", ["AQ", "W10", "bnVsbA", "_w", "W1tbW1tbW1tb" * 600])
def test_a_header_that_is_no_object_is_none(encoded: str) -> None:
    assert read_jws(f"{encoded}.e30.AQ") is None
