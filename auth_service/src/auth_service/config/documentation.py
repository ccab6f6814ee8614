"""Tables of `docs/identity.md`, made from the code, so that a test can tell when the page is out of date."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from auth_service.audit.models import Action
from auth_service.config.environment import AuthSettings


def make_settings_table() -> str:
    """Every setting with its default and what it does."""
    rows = ["| setting | default | what it does |", "| --- | --- | --- |"]
    for name, field in AuthSettings.model_fields.items():
        variable = field.validation_alias or f"AUTH_{name}".upper()
        rows.append(f"| `{variable}` | {_show(field.default)} | {field.description} |")
    return "\n".join(rows)


def make_action_list() -> str:
    """Every word of the audit log that this service writes."""
    return ", ".join(f"`{action}`" for action in Action)


def _show(default: Any) -> str:
    match default:
        case None | () | "":
            return ""
        case SecretStr():
            return "development only"
        case timedelta():
            return f"`{_duration(default)}`"
        case Enum():
            return f"`{default.value}`"
        case tuple():
            return f"`{','.join(map(str, default))}`"
        case Path() | str() | int():
            return f"`{default}`"
        case _:
            raise TypeError(f"no way to show {default!r}")


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    return str(int(seconds)) if seconds.is_integer() else str(seconds)


def find_tables(page: str) -> Iterator[str]:
    """The parts of the page between `<!-- made from the code -->` and `<!-- end -->`."""
    for part in page.split("<!-- made from the code -->\n")[1:]:
        yield part.split("\n<!-- end -->")[0]
