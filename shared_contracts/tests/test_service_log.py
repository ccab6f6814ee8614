"""No secret and no forged line gets into a log (requirements G01, G02)."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from shared_contracts.service_log import MAX_VALUE_LENGTH, configure_logging, mask_text

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def restore_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.req("G01")
@pytest.mark.parametrize(
    "text",
    [
        f"GET /ws?ticket=abcdef123 {JWT}",
        f"Authorization: Bearer {JWT}",
        f"Sec-WebSocket-Protocol: herald.v1, bearer.{JWT}",
        "amqp://herald:abcdef123@127.0.0.1:5672/",
        "postgresql+asyncpg://herald:abcdef123@db/herald",
        "password=abcdef123",
    ],
)
def test_secrets_are_masked_by_their_shape(text: str) -> None:
    masked = mask_text(text)
    assert "abcdef123" not in masked
    assert JWT not in masked
    assert "[masked]" in masked


@pytest.mark.req("G01")
def test_secrets_are_masked_by_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", log_format="json")
    structlog.get_logger("auth_service").info("login", password="p4ss", refresh_token="r3fresh", token_use="access")
    line = json.loads(capsys.readouterr().out)
    assert line["password"] == line["refresh_token"] == "[masked]"
    assert line["token_use"] == "access"
    assert line["process"] == "test"


@pytest.mark.req("G02")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_event_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging("test", log_format="json" if log_format == "json" else "text")
    log = structlog.get_logger("notification_service")
    log.warning("name_refused", name="a\r\nFAKE line\x1b[31m", long="x" * 1_000_000)
    logging.getLogger("notification_service.x").error("broken\n%s", "pipe")
    try:
        raise ValueError("inside\nlines")
    except ValueError:
        log.exception("failed")
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 4
    assert lines[-1] == ""
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert all(len(line) < MAX_VALUE_LENGTH * 5 for line in lines)


def test_text_lines_show_process_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway", log_format="text")
    structlog.get_logger("notification_service").info("push_acknowledged", waited_ms=12)
    line = capsys.readouterr().out
    assert "gateway" in line
    assert line.rstrip().endswith("push_acknowledged waited_ms=12")


def test_libraries_are_heard_from_warning_on(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", log_format="text")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    out = capsys.readouterr().out
    assert "chatter" not in out
    assert "trouble" in out
