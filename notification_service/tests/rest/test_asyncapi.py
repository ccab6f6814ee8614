"""The AsyncAPI document: valid, made from the topology and the frames, and true about what is on the wire."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from notification_service.rest.asyncapi import make_asyncapi_document
from shared_contracts.topology import TOPOLOGY
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import CLIENT_FRAMES, SERVER_FRAMES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a field of theirs is called `schema`, as in the specification
    from asyncapi3.models.asyncapi import AsyncAPI3

GOLDEN = Path(__file__).resolve().parents[3] / "shared_contracts" / "tests" / "golden"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_asyncapi_document(version="1.2.3")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def resolve(document: Any, reference: str) -> Any:
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def validate(document: dict[str, Any], message: str, value: Any) -> None:
    payload = document["components"]["messages"][message]["payload"]
    jsonschema_rs.validate({**payload, "components": document["components"]}, value, validate_formats=True)


def test_the_document_is_valid_asyncapi_3(document: dict[str, Any]) -> None:
    AsyncAPI3.model_validate(document)


def test_the_validator_refuses_what_is_not_asyncapi_3(document: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(document))
    broken["operations"]["accept-private"]["action"] = "eat"
    with pytest.raises(ValueError, match="action"):
        AsyncAPI3.model_validate(broken)


def test_every_reference_leads_somewhere_and_operations_use_messages_of_their_channel(document: dict[str, Any]) -> None:
    found = list(references(document))
    assert len(found) > 100
    for reference in found:
        assert resolve(document, reference) is not None, reference
    for name, operation in document["operations"].items():
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/"), name


def test_every_exchange_queue_and_binding_is_described(document: dict[str, Any]) -> None:
    channels = document["channels"].values()
    bindings = [channel["bindings"]["amqp"] for channel in channels if "amqp" in channel["bindings"]]
    exchanges = {(each["exchange"]["name"], each["exchange"]["type"]) for each in bindings if "exchange" in each}
    queues = {each["queue"]["name"] for each in bindings if "queue" in each}
    assert exchanges == {(each.name, each.type) for each in TOPOLOGY.exchanges}
    assert queues == {each.name for each in TOPOLOGY.queues}
    described = [
        (channel["address"], each["exchange"], each["routing_key"])
        for channel in channels
        for each in channel.get("x-bindings", [])
    ]
    expected = [(each.queue.name, each.exchange.name, each.routing_key) for each in TOPOLOGY.bindings]
    assert sorted(described) == sorted(expected)
    for exchange in TOPOLOGY.exchanges:
        texts = {
            channel["description"]
            for channel in channels
            if channel["bindings"].get("amqp", {}).get("exchange", {}).get("name") == exchange.name
        }
        assert all(texts), exchange.name


def test_every_frame_and_close_code_is_described(document: dict[str, Any]) -> None:
    gateway = document["channels"]["gateway"]
    names = {resolve(document, each["$ref"])["name"] for each in gateway["messages"].values()}
    assert names == {*CLIENT_FRAMES, *SERVER_FRAMES}
    assert gateway["x-close-codes"] == {str(int(code)): code.name.lower() for code in CloseCode}
    operations = document["operations"]
    for frame in CLIENT_FRAMES:
        assert operations[f"client-{frame.replace('.', '-')}"]["action"] == "receive"
    for frame in SERVER_FRAMES:
        assert operations[f"server-{frame.replace('.', '-')}"]["action"] == "send"


@pytest.mark.parametrize(
    "path",
    sorted([*GOLDEN.glob("client_frame.*.json"), *GOLDEN.glob("server_frame.*.json"), *GOLDEN.glob("identity_*.json")]),
    ids=lambda path: path.stem,
)
def test_what_is_on_the_wire_fits_the_document(document: dict[str, Any], path: Path) -> None:
    kind, _, rest = path.stem.partition(".")
    name = rest.removesuffix(".v1").replace(".", "-")
    prefix = {"client_frame": "client", "server_frame": "server", "identity_event": "event"}[kind]
    validate(document, f"{prefix}-{name}", json.loads(path.read_text()))


def test_a_request_fits_the_document_and_a_wrong_one_does_not(document: dict[str, Any]) -> None:
    validate(document, "request", json.loads((GOLDEN / "request.v1.json").read_text()))
    with pytest.raises(jsonschema_rs.ValidationError):
        validate(document, "request", {"recipients": {"users": "everybody"}})
    with pytest.raises(jsonschema_rs.ValidationError):
        validate(document, "client-read", {"type": "unread", "all": True})
