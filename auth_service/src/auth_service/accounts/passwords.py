"""Passwords: rules (NIST SP 800-63B), hashing (argon2id), and checking in the same time whoever is asked about."""

from __future__ import annotations

import os
import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from argon2 import Parameters
from argon2.low_level import ARGON2_VERSION, Type
from django.conf import settings
from django.contrib.auth.hashers import (
    Argon2PasswordHasher,
    get_hasher,
    is_password_usable,
    make_password,
    verify_password,
)
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from typing_extensions import override

from auth_service.errors import InvalidInput

if TYPE_CHECKING:
    from auth_service.accounts.models import User

MAX_PASSWORD_LENGTH = 256
"""Characters. Every password up to here counts whole; longer ones are refused before any hashing (B06)."""

# Hashing takes a whole core for 20 ms and 19 MiB; more at once than cores would only make everyone wait longer. The
# other threads of the worker go on meanwhile: argon2 releases the interpreter's lock.
_hashing = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // settings.HERALD.workers))


class Argon2Hasher(Argon2PasswordHasher):
    """argon2id with the cost of the settings (OWASP: 19 MiB, 2 passes, 1 lane)."""

    parallelism = 1

    @override
    def params(self) -> Parameters:
        """The cost of new hashes; older ones are renewed at the next login."""
        herald = settings.HERALD
        return Parameters(
            type=Type.ID,
            version=ARGON2_VERSION,
            salt_len=16,
            hash_len=32,
            time_cost=herald.argon2_time_cost,
            memory_cost=herald.argon2_memory_kib,
            parallelism=self.parallelism,
        )

    @override
    def encode(self, password: str, salt: str) -> str:
        """Hash, with at most one hashing thread per core."""
        with _hashing:
            return super().encode(password, salt)

    @override
    def verify(self, password: str, encoded: str) -> bool:
        """Compare, with at most one hashing thread per core."""
        with _hashing:
            return super().verify(password, encoded)


class NotTheNameValidator:
    """Refuses a password that is the account's own name or address, in any case."""

    def validate(self, password: str, user: User | None = None) -> None:
        """Check one password.

        Raises:
            ValidationError: It is one of the account's own words.
        """
        words = (user.username, user.email, user.phone) if user else ()
        if password.casefold() in {word.casefold() for word in words if word}:
            raise ValidationError("must not be the account's own name or address")

    def get_help_text(self) -> str:
        """For forms of the admin."""
        return "Your password must not be your name or address."


def check_new_password(password: str, user: User | None = None, *, field: str = "password") -> None:
    """Check a password someone wants to have.

    Raises:
        InvalidInput: Too short, too long, one of the 20,000 most common, or the account's own name.
    """
    if len(password) > MAX_PASSWORD_LENGTH:
        raise InvalidInput.of(field, f"must have at most {MAX_PASSWORD_LENGTH} characters")
    try:
        validate_password(_normalize(password), user)
    except ValidationError as error:
        raise InvalidInput.of(field, " ".join(error.messages)) from None


def hash_password(password: str | None) -> str:
    """What is stored: a hash, or for None something no password matches."""
    release_database()
    return make_password(None if password is None else _normalize(password))


def is_password_of(user: User | None, password: str) -> bool:
    """Whether this is the user's password. Takes as long for no user, and for one without a password (B04)."""
    release_database()
    if len(password) > MAX_PASSWORD_LENGTH:
        return False
    known = user is not None and is_password_usable(user.password)
    encoded = user.password if user is not None and known else hash_of_nobody()
    is_correct, _ = verify_password(_normalize(password), encoded)
    return is_correct and known


def is_outdated(encoded: str) -> bool:
    """Whether a stored hash has another cost than new ones get; renew it while the password is at hand."""
    return get_hasher().must_update(encoded)


def release_database() -> None:
    """Give this request's connection back to the pool: none is held while a core hashes (B07)."""
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()


@cache
def hash_of_nobody() -> str:
    """A hash of today's cost that stands in where there is none. Made at start, or the first caller would notice."""
    return make_password("nobody has this password")


def _normalize(password: str) -> str:
    """One text for all ways to type it (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)
