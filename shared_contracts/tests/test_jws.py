from __future__ import annotations

import pytest

from shared_contracts.jws import MAX_TOKEN_LENGTH, is_canonical, read_header


def test_the_one_spelling_of_a_token_is_canonical() -> None:
    assert is_canonical("eyJhbGciOiJSUzI1NiJ9.e30.AQ")


@pytest.mark.req("A10")
@pytest.mark.parametrize(
    "token",
    [
        "",
        "e30.e30",
        "e30.e30.",
        "..",
        "e30.e30.AQ.AQ",
        "e30.e30.AQ==",
        "e30.e30.AQ\n",
        " e30.e30.AQ",
        "e30.e3 0.AQ",
        "e30.e30.AR",  # the same byte as AQ: the spare bits differ
        "e30.e30.A",  # no number of bytes has one character
        "e30.e30.A+/A",
        "e" * MAX_TOKEN_LENGTH + ".e30.AQ",
    ],
)
def test_any_other_spelling_is_not(token: str) -> None:
    assert not is_canonical(token)


def test_the_header_of_a_token_is_read_unverified() -> None:
    assert read_header("eyJhbGciOiJSUzI1NiJ9.e30.AQ") == {"alg": "RS256"}


@pytest.mark.parametrize("encoded", ["AQ", "W10", "bnVsbA", "_w", "W1tbW1tbW1tb" * 600])
def test_a_header_that_is_no_object_is_none(encoded: str) -> None:
    assert read_header(f"{encoded}.e30.AQ") is None
