"""One JSON file per message and version, never edited, only added: old files parse, current models still write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shared_contracts.claims import AccessTokenClaims
from shared_contracts.identity_events import IdentityEventType, UnknownEvent, parse_identity_event
from shared_contracts.requests import NotificationRequest
from shared_contracts.ws.frames import CLIENT_FRAMES, SERVER_FRAMES, parse_client_frame

GOLDEN = Path(__file__).parent / "golden"


def files(pattern: str) -> list[Path]:
    return sorted(GOLDEN.glob(pattern))


def write_request(text: bytes) -> str:
    return NotificationRequest.model_validate_json(text).model_dump_json(exclude_unset=True)


def write_event(text: bytes) -> str:
    event = parse_identity_event(text)
    assert not isinstance(event, UnknownEvent)
    return event.model_dump_json(exclude_unset=True)


def write_claims(text: bytes) -> str:
    return AccessTokenClaims.model_validate_json(text).model_dump_json(exclude_unset=True)


def write_client_frame(text: bytes) -> str:
    return parse_client_frame(text).model_dump_json(exclude_unset=True)


def write_server_frame(text: bytes) -> str:
    model = SERVER_FRAMES[json.loads(text)["type"]]
    return model.model_validate_json(text).model_dump_json(exclude_unset=True)


@pytest.mark.parametrize(
    ("path", "write"),
    [
        *((path, write_request) for path in files("request.*.json")),
        *((path, write_event) for path in files("identity_event.*.json")),
        *((path, write_claims) for path in files("claims.*.json")),
        *((path, write_client_frame) for path in files("client_frame.*.json")),
        *((path, write_server_frame) for path in files("server_frame.*.json")),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_golden_file_is_read_and_written_unchanged(path: Path, write: Callable[[bytes], str]) -> None:
    text = path.read_bytes()
    assert json.loads(write(text)) == json.loads(text)


def test_every_message_has_a_golden_file() -> None:
    assert {path.name.split(".v1")[0].split(".", 1)[1] for path in files("identity_event.*.json")} == set(
        IdentityEventType
    )
    assert {path.name.split(".v1")[0].split(".", 1)[1] for path in files("client_frame.*.json")} == set(CLIENT_FRAMES)
    assert {path.name.split(".v1")[0].split(".", 1)[1] for path in files("server_frame.*.json")} == set(SERVER_FRAMES)
    assert files("request.v1*.json")
    assert files("claims.v1.json")


def test_an_event_of_a_later_version_counts_but_is_not_read() -> None:
    event = parse_identity_event(
        b'{"event_id":"018f0000-0000-7000-8000-000000000001","revision":7,"type":"user.promoted",'
        b'"occurred_at":"2026-01-01T00:00:00Z","tenant":"default","data":{"x":1}}'
    )
    assert isinstance(event, UnknownEvent)
    assert event.revision == 7
