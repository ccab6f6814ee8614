"""Fields of request bodies. Each refuses what some store, mail or log on the way could not hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import available_timezones

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import Direction, extend_schema_field
from rest_framework import serializers
from typing_extensions import override

from auth_service.accounts.fields import sort_roles
from auth_service.accounts.models import MAX_EMAIL_LENGTH, MAX_EXTERNAL_ID_LENGTH
from auth_service.accounts.names import MAX_USERNAME_LENGTH, check_username
from shared_contracts.scopes import ASSIGNABLE_ROLES
from shared_contracts.text import check_line

MAX_PASSWORD_INPUT_LENGTH = 4_096
"""Characters of a password that are read at all; the rule itself is in `accounts.passwords`."""

_Given = TypeVar("_Given")
_Checked = TypeVar("_Checked")

_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")


class TextField(serializers.CharField):
    """Text, and nothing that can be made into text: a number where a name belongs is a mistake."""

    @override
    def to_internal_value(self, data: Any) -> str:
        """The text.

        Raises:
            ValidationError: Not text, or too long.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        if self.max_length is not None and len(data) > self.max_length:
            # Before blanks are taken off its ends: the documented length is that of what is sent.
            self.fail("max_length", max_length=self.max_length)
        text: str = super().to_internal_value(data)
        return text


class FlagField(serializers.BooleanField):
    """True or false, and nothing that stands for them."""

    @override
    def to_internal_value(self, data: Any) -> bool:
        """The flag.

        Raises:
            ValidationError: Neither true nor false.
        """
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class SlugField(TextField):
    """A word of a pattern: the whole of it, not some line of it."""

    def __init__(self, pattern: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pattern = pattern

    @override
    def to_internal_value(self, data: Any) -> str:
        """The word.

        Raises:
            ValidationError: Not of the pattern.
        """
        word = super().to_internal_value(data)
        if not re.fullmatch(self.pattern, word):
            raise serializers.ValidationError(f"must have the form {self.pattern}")
        return word


class SlugFieldSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """Shows the pattern in the OpenAPI document."""

    target_class = SlugField

    @override
    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """The field as JSON Schema."""
        schema: dict[str, Any] = {"type": "string", "pattern": f"^(?:{self.target.pattern})$"}
        if self.target.max_length is not None:
            schema["maxLength"] = self.target.max_length
        return schema


class LineField(TextField):
    """Text on one line: no control characters, so that it can add neither a header nor a log line (F05, G02)."""

    @override
    def to_internal_value(self, data: Any) -> str:
        """The text.

        Raises:
            ValidationError: Not text, too long, or several lines.
        """
        return _check(check_line, super().to_internal_value(data))


class SecretField(TextField):
    """A password, code or token: taken as it is, never trimmed, never shown."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", MAX_PASSWORD_INPUT_LENGTH)
        super().__init__(trim_whitespace=False, write_only=True, **kwargs)


class UsernameField(LineField):
    """A name to log in with (B08)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_USERNAME_LENGTH, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> str:
        """The name as it is shown.

        Raises:
            ValidationError: Characters a name may not have.
        """
        return _check(check_username, super().to_internal_value(data))


class AddressField(serializers.EmailField):
    """An e-mail address."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_EMAIL_LENGTH, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> str:
        """The address.

        Raises:
            ValidationError: Not text, or too long.
        """
        if not isinstance(data, str):
            self.fail("invalid")
        address: str = super().to_internal_value(data)
        return address


class ExternalIdField(LineField):
    """The id of a user in the system they come from."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_EXTERNAL_ID_LENGTH, **kwargs)


class IdField(serializers.UUIDField):
    """An id in a body: text, never the number a UUID also is."""

    @override
    def to_internal_value(self, data: Any) -> UUID:
        """The id.

        Raises:
            ValidationError: Not a UUID.
        """
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        found: UUID = super().to_internal_value(data)
        return found


class PhoneField(TextField):
    """A phone number in the international form of E.164; spaces, dots, dashes and brackets are left out."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=40, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> str:
        """The number as `+4930123456`.

        Raises:
            ValidationError: Not an international number.
        """
        number = re.sub(r"[\s().-]", "", super().to_internal_value(data))
        if number.startswith("00"):
            number = f"+{number[2:]}"
        if not _PHONE.fullmatch(number):
            raise serializers.ValidationError("must be an international number, for example +4930123456")
        return number


class LocaleField(TextField):
    """A language tag (BCP 47), for example `de` or `pt-BR`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=35, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> str:
        """The tag.

        Raises:
            ValidationError: Not the form of a language tag.
        """
        locale = super().to_internal_value(data)
        if not _LOCALE.fullmatch(locale):
            raise serializers.ValidationError("must be a language tag, for example de or pt-BR")
        return locale.replace("_", "-")


class TimezoneField(TextField):
    """A time zone of the IANA database, for example `Europe/Berlin`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=64, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> str:
        """The zone's name.

        Raises:
            ValidationError: There is no such zone.
        """
        zone = super().to_internal_value(data)
        if zone not in _zones():
            raise serializers.ValidationError("must be a time zone, for example Europe/Berlin")
        return zone


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": [str(role) for role in ASSIGNABLE_ROLES]}})
class RolesField(serializers.ListField):
    """One to four roles; least first in answers."""

    child = TextField(max_length=32)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_length=1, max_length=16, **kwargs)

    @override
    def to_internal_value(self, data: Any) -> list[str]:
        """The roles once each.

        Raises:
            ValidationError: A word that is no role, or one only service accounts have.
        """
        return list(_check(sort_roles, super().to_internal_value(data)))

    @override
    def to_representation(self, value: Any) -> list[str]:
        """As a list."""
        return list(value)


@extend_schema_field(OpenApiTypes.DATETIME)
class MomentField(serializers.DateTimeField):
    """A time in an answer: RFC 3339, UTC, `Z`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(read_only=True, **kwargs)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _check(check: Callable[[_Given], _Checked], value: _Given) -> _Checked:
    try:
        return check(value)
    except ValueError as error:
        raise serializers.ValidationError(str(error)) from None
