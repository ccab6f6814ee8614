"""Language tags (BCP 47): written one way, and the chain of what to try when there is no text in one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LAST_RESORT: Final = "en"


def normalize(tag: str) -> str:
    """The tag in its usual case (RFC 5646, section 2.1.1): `pt-br` is `pt-BR`, `zh-hant-tw` is `zh-Hant-TW`."""
    first, *others = tag.replace("_", "-").split("-")
    parts = [first.lower()]
    for part in others:
        if len(part) == 4 and part.isalpha():
            parts.append(part.title())
        elif len(part) == 2:
            parts.append(part.upper())
        else:
            parts.append(part.lower())
    return "-".join(parts)


def lookup_chain(*wanted: str | None) -> Iterator[str]:
    """Every tag to try, each once: each wanted one and its parents (RFC 4647, section 3.4), at last English."""
    seen = set()
    for tag in (*wanted, LAST_RESORT):
        parts = normalize(tag).split("-") if tag else []
        while parts:
            candidate = "-".join(parts)
            if candidate not in seen:
                seen.add(candidate)
                yield candidate
            parts.pop()
            # A single letter introduces what was just dropped.
            if parts and len(parts[-1]) == 1:
                parts.pop()


def language_of(tag: str) -> str:
    """The primary language of a tag."""
    return normalize(tag).split("-", 1)[0]
