"""Every error answers every question about itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import notification_service
from notification_service.errors import ServiceError
from shared_contracts.error_codes import ErrorCode


def subclasses(base: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_has_a_code_and_a_status() -> None:
    for module in pkgutil.walk_packages(notification_service.__path__, "notification_service."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    found = list(subclasses(ServiceError))
    assert len(found) > 12
    for error in found:
        assert isinstance(error.code, ErrorCode), error
        assert 400 <= error.status < 600, error
    codes = [error.code for error in found]
    assert len(codes) == len(set(codes)), "two errors share a code"
