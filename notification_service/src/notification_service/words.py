"""The words by which texts are found: the same for what is stored and for what is looked for. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

MAX_WORDS: Final = 1_000
"""Different words kept of one text; what comes later in a long body is not found."""

_MAX_TEXT: Final = 16 * 1024
_MAX_WORD: Final = 64
# Scripts that put no spaces between words (Thai, Lao, Khmer, kana, ideographs): every character is a word there.
_WORD: Final = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
_SPACELESS: Final = re.compile(r"([\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")

_ASCII_SEPARATORS: Final = {code: " " for code in range(128) if not chr(code).isalnum()}


@dataclass(frozen=True, slots=True)
class Search:
    """What somebody looks for.

    Attributes:
        words: Each must begin a word of the text; in any order, whatever their case and accents.
        literal: Must stand in the text as it is, whatever its case; None where the words say it all.
    """

    words: tuple[str, ...]
    literal: str | None


def find_words(*texts: str | None) -> str:
    """The different words of these texts, normalised, with spaces between."""
    whole = " ".join(text[:_MAX_TEXT] for text in texts if text)
    return " ".join(list(dict.fromkeys(_split(whole)))[:MAX_WORDS])


def parse_search(text: str) -> Search:
    """What a query asks for: with any other character than letters, digits and spaces, it is meant literally, too."""
    words = tuple(dict.fromkeys(_split(text)))
    is_plain = bool(words) and all(each.isalnum() or each.isspace() for each in text)
    return Search(words, None if is_plain else text)


def _split(text: str) -> list[str]:
    if not text.isascii():
        # Accents away: NFKD takes them off their letters, and they are dropped.
        folded = unicodedata.normalize("NFKD", text.casefold())
        text = "".join(each for each in folded if not unicodedata.combining(each))
        text = _SPACELESS.sub(r" \1 ", text)
        return [word[:_MAX_WORD] for word in _WORD.findall(text)]
    # Nearly every text: a table and `split` take 8 µs for 300 characters, the expression 13.
    words = text.lower().translate(_ASCII_SEPARATORS).split()
    return words if max(map(len, words), default=0) <= _MAX_WORD else [word[:_MAX_WORD] for word in words]
