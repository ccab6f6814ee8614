"""Shared by every test tree: the real RabbitMQ node and PostgreSQL cluster all suites run against."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

# The members' folders carry the names of their packages. Imported here, before pytest names test modules after their
# folders, the real packages win over empty namespace packages of the same name.
import auth_service
import notification_service
import shared_contracts
from herald_local.rabbitmq import RabbitNode
from herald_local.testing import POSTGRES_URL, RABBIT_FOLDER, backing_services, make_virtual_hosts

for _package in (auth_service, notification_service, shared_contracts):
    if not _package.__file__:
        raise RuntimeError(f"{_package.__name__} is not installed: run make setup")


def pytest_configure() -> None:
    """SIGTERM ends a run as Ctrl-C does, so that fixtures end the programs they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def services() -> Iterator[dict[str, str]]:
    """Where the node and the cluster are: those of `make test`, or own ones when pytest was started by hand."""
    if RABBIT_FOLDER in os.environ and POSTGRES_URL in os.environ:
        yield {name: os.environ[name] for name in (RABBIT_FOLDER, POSTGRES_URL)}
        return
    with backing_services() as started:
        yield started


@pytest.fixture(scope="session")
def rabbit(services: dict[str, str]) -> RabbitNode:
    """The shared RabbitMQ node. Tests may look and declare; tests that stop or kill one start their own."""
    return RabbitNode(Path(services[RABBIT_FOLDER]))


@pytest.fixture(scope="session")
def virtual_hosts(rabbit: RabbitNode) -> Iterator[str]:
    """Empty virtual hosts of the shared node, each given out once."""
    return make_virtual_hosts(rabbit)


@pytest.fixture
def amqp_url(rabbit: RabbitNode, virtual_hosts: Iterator[str]) -> str:
    """The address of a virtual host of this test's own, so that tests cannot see each other's queues."""
    return rabbit.url.rstrip("/") + "/" + next(virtual_hosts)


@pytest.fixture(scope="session")
def postgres_url(services: dict[str, str]) -> str:
    """The maintenance database of the shared cluster."""
    return services[POSTGRES_URL]


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The address of an empty PostgreSQL database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres_url.rsplit("/", 1)[0] + f"/{name}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
