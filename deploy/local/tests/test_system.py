"""What the processes of one installation are told. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from herald_local.system import System


def make_system() -> System:
    return System(
        run_dir=Path("run"),
        amqp_url="amqp://127.0.0.1:5000/",
        internal_key="k" * 32,
        auth_port=9000,
        notify_ports=(9001, 9002),
        worker_ports=(9003,),
        scheduler_ports=(9004,),
    )


@pytest.mark.req("D01")
def test_pages_of_the_installation_itself_may_connect_whatever_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_ALLOWED_ORIGINS", raising=False)
    monkeypatch.setenv("AUTH_CORS_ORIGINS", "https://app.example")
    told = make_system().environment("notify")
    origins = told["NOTIFY_ALLOWED_ORIGINS"].split(",")
    assert {"http://127.0.0.1:9001", "http://localhost:9002", "http://127.0.0.1:9000"} <= set(origins)
    assert told["AUTH_CORS_ORIGINS"] == "https://app.example"


def test_links_in_mails_lead_to_the_installation_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_PUBLIC_URL", raising=False)
    assert make_system().environment("worker")["NOTIFY_PUBLIC_URL"] == "http://127.0.0.1:9001"
