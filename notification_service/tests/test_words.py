"""The words by which texts are found (E07)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notification_service.words import MAX_WORDS, find_words, parse_search


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("Your order is on its way", "Order 1042 left"), "your order is on its way 1042 left"),
        ((None, None), ""),
        (("", "  \n"), ""),
        (("order-1042/eu_west a.b@c.de",), "order 1042 eu west a b c de"),
        (("Ärger über Straße", "ÅNGSTRÖM Œuvre"), "arger uber strasse angstrom œuvre"),
        (("\ufb01ne \uff11\uff12",), "fine 12"),
        (("東京都 tower",), "東 京 都 tower"),
        (("Привет, МИР",), "привет мир"),
        (("x" * 100,), "x" * 64),
    ],
)
def test_texts_become_words(texts: tuple[str | None, ...], words: str) -> None:
    assert find_words(*texts) == words


@given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_ascii_texts_become_the_same_words_as_all_others(text: str) -> None:
    # One letter that is not ASCII has the whole text read the general way.
    assert find_words(f"{text} é") == find_words(f"{text} e")


def test_a_long_text_is_cut_to_what_is_kept() -> None:
    assert len(find_words(" ".join(f"w{number}" for number in range(5_000))).split()) == MAX_WORDS


@pytest.mark.req("E07")
@pytest.mark.parametrize(
    ("text", "words", "literal"),
    [
        ("Order ship", ("order", "ship"), None),
        ("ÜBER", ("uber",), None),
        ("%", (), "%"),
        ("a_b", ("a", "b"), "a_b"),
        ("100%", ("100",), "100%"),
        ("it's", ("it", "s"), "it's"),
        ("  ", (), "  "),
        ("a a", ("a",), None),
    ],
)
def test_a_query_is_words_and_what_is_no_word_is_literal(
    text: str, words: tuple[str, ...], literal: str | None
) -> None:
    found = parse_search(text)
    assert (found.words, found.literal) == (words, literal)
