"""The REST API's application, built as the process builds it and not started: documents need no broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from notification_service.entrypoints.api import make_api
from notification_service.entrypoints.parts import Parts
from notification_service.settings import Settings

INTERNAL_KEY = "k" * 32


def make_settings(folder: Path, **changes: Any) -> Settings:
    given = {"run_dir": folder, "internal_service_key": INTERNAL_KEY, **changes}
    return Settings(_env_file=None, **given)


@pytest.fixture
def internal_key() -> str:
    return INTERNAL_KEY


@pytest.fixture
def api_app(tmp_path: Path) -> FastAPI:
    return make_api(Parts(make_settings(tmp_path), process="api"))


@pytest.fixture
def production_app(tmp_path: Path) -> FastAPI:
    settings = make_settings(
        tmp_path,
        environment="production",
        database_url=f"sqlite:///{tmp_path}/notify.sqlite3",
        amqp_url="amqp://herald:a-made-up-password@127.0.0.1:5672/",
    )
    return make_api(Parts(settings, process="api"))
