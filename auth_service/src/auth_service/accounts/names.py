"""What makes two names or addresses the same (requirement B08), and what names may look like."""

from __future__ import annotations

import re
import unicodedata

MAX_USERNAME_LENGTH = 150
MAX_KEY_LENGTH = 300
"""NFKC and case folding can make a text longer; twice the username covers every script."""

_USERNAME = re.compile(r"[\w.@+-]+(?: [\w.@+-]+)*")


def make_username_key(username: str) -> str:
    """One text for all spellings a reader could take for each other.

    Compatibility forms (NFKC), case, invisible characters, and dots or spaces at the ends make no difference.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    visible = "".join(character for character in folded if unicodedata.category(character) != "Cf")
    return " ".join(visible.split()).strip(". ")


def make_email_key(email: str) -> str:
    """One text for all spellings of an address. Mail is always sent to the stored spelling, never to this."""
    return unicodedata.normalize("NFKC", email.strip()).casefold()


def check_username(username: str) -> str:
    """The name as it is shown: NFKC, letters, digits and `.@+-_` with single spaces between.

    Raises:
        ValueError: Says what is wrong.
    """
    shown = unicodedata.normalize("NFKC", username).strip()
    if not _USERNAME.fullmatch(shown):
        raise ValueError("may have letters, digits, . @ + - _ and single spaces")
    if len(shown) > MAX_USERNAME_LENGTH or not 1 <= len(make_username_key(shown)) <= MAX_KEY_LENGTH:
        raise ValueError(f"must have 1 to {MAX_USERNAME_LENGTH} characters other than dots and spaces")
    return shown


def check_name_and_address(username: str, email: str | None) -> None:
    """A name that looks like an address must be the account's own: logins take either (B08).

    Raises:
        ValueError: It looks like someone else's address.
    """
    if "@" in username and (email is None or make_username_key(username) != make_username_key(email)):
        raise ValueError("may hold an @ only when it is the account's own e-mail address")
