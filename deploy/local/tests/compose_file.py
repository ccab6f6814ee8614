"""docker-compose.yml as Compose reads it, with made-up secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
MADE_UP = {
    "INTERNAL_SERVICE_KEY": "0f" * 32,
    "AUTH_SECRET_KEY": "1e" * 32,
    "RABBITMQ_PASSWORD": "a-password-of-rabbitmq",
    "POSTGRES_PASSWORD": "a-password-of-postgresql",
    "AUTH_DATABASE_PASSWORD": "a-password-of-auth",
    "NOTIFY_DATABASE_PASSWORD": "a-password-of-notify",
}


def fill_in(text: str, values: dict[str, str]) -> str:
    """What Compose does with `${NAME:-default}`, `${NAME:?problem}` and `$$`."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        value = values.get(found["name"], "")
        if value or found["kind"] is None:
            return value
        assert found["kind"] == "-", f"{found['name']} must be set"
        return found["rest"]

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}", replace, text)


def read_compose(values: dict[str, str]) -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load(fill_in((ROOT / "docker-compose.yml").read_text(), values))
    return compose
