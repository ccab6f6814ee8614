"""`/api/asyncapi.json`: AMQP and WebSocket for machines (AsyncAPI 3.0), made from the values the code runs on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared_contracts import headers, topology
from shared_contracts.identity_events import (
    GroupDeletedEvent,
    GroupEvent,
    IdentityEventType,
    KeyRotatedEvent,
    MembersChangedEvent,
    NewDeviceLoginEvent,
    SessionRevokedEvent,
    UserDeletedEvent,
    UserEvent,
)
from shared_contracts.requests import MAX_REQUEST_BYTES, NotificationRequest
from shared_contracts.topology import TOPOLOGY, Exchange, Queue
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import CLIENT_FRAMES, MAX_CLIENT_FRAME_BYTES, SERVER_FRAMES, SUBPROTOCOL

Json = dict[str, Any]

_EVENTS: Final[Mapping[IdentityEventType, type[BaseModel]]] = {
    IdentityEventType.USER_CREATED: UserEvent,
    IdentityEventType.USER_UPDATED: UserEvent,
    IdentityEventType.USER_ACTIVATED: UserEvent,
    IdentityEventType.USER_DEACTIVATED: UserEvent,
    IdentityEventType.USER_ROLES_CHANGED: UserEvent,
    IdentityEventType.USER_DELETED: UserDeletedEvent,
    IdentityEventType.GROUP_CREATED: GroupEvent,
    IdentityEventType.GROUP_UPDATED: GroupEvent,
    IdentityEventType.GROUP_DELETED: GroupDeletedEvent,
    IdentityEventType.GROUP_MEMBERS_CHANGED: MembersChangedEvent,
    IdentityEventType.SESSION_REVOKED: SessionRevokedEvent,
    IdentityEventType.KEY_ROTATED: KeyRotatedEvent,
    IdentityEventType.LOGIN_NEW_DEVICE: NewDeviceLoginEvent,
}
# Frames that come by themselves; the others answer one from the client.
_ANSWERS: Final[Mapping[str, tuple[str, ...]]] = {
    "hello": ("welcome", "reset"),
    "sync": ("notification", "state", "recalled", "updated", "synced", "error"),
    "read": ("state", "error"),
    "unread": ("state", "error"),
    "seen": ("state", "error"),
    "archive": ("state", "error"),
    "unarchive": ("state", "error"),
    "delete": ("state", "error"),
    "send": ("sent", "error"),
    "refresh": ("refreshed", "error"),
    "presence.subscribe": ("presence", "error"),
    "preferences.get": ("preferences", "error"),
    "preferences.patch": ("preferences", "error"),
    "ping": ("pong",),
}
_PURPOSE: Final[Mapping[str, str]] = {
    topology.NOTIFICATIONS_DIRECT.name: "Intake: what backend services and the REST API ask for.",
    topology.NOTIFICATIONS_FANOUT.name: "Intake of broadcasts; other services may bind a queue of their own.",
    topology.DELIVERY_DIRECT.name: "Frames for one user, on the way to the user's durable queue.",
    topology.DELIVERY_FANOUT.name: "Broadcasts, once for every gateway node.",
    topology.GATEWAY_GOSSIP.name: "What gateway nodes tell each other; its messages may change with every version.",
    topology.IDENTITY_EVENTS.name: "What happened to users, groups, sessions and keys.",
    topology.NOTIFICATIONS_EVENTS.name: "Receipts for backends.",
}
_INTERNAL: Final = frozenset(
    {topology.DELIVERY_DIRECT.name, topology.DELIVERY_FANOUT.name, topology.GATEWAY_GOSSIP.name}
)
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    topology.NOTIFICATIONS_DIRECT.name: topology.INTAKE_KEYS,
    topology.NOTIFICATIONS_EVENTS.name: topology.RECEIPT_KEYS,
}


def make_asyncapi_document(*, version: str) -> Json:
    """The whole document. Operations are Herald's: `receive` is what others send to it.

    Args:
        version: Of this service.
    """
    schemas = _collect_schemas()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Herald over RabbitMQ and WebSocket",
            "version": version,
            "description": "Backends publish to RabbitMQ, devices hold a WebSocket. docs/protocol.md explains both.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "{host}:5672",
                "protocol": "amqp",
                "protocolVersion": "0-9-1",
                "variables": {"host": {"default": "127.0.0.1"}},
                "security": [{"$ref": "#/components/securitySchemes/broker"}],
            },
            "gateway": {
                "host": "{host}:8001",
                "protocol": "ws",
                "variables": {"host": {"default": "127.0.0.1"}},
                "security": [
                    {"$ref": "#/components/securitySchemes/accessToken"},
                    {"$ref": "#/components/securitySchemes/ticket"},
                ],
            },
        },
        "channels": {**_exchange_channels(), **_queue_channels(), "gateway": _gateway_channel()},
        "operations": {**_broker_operations(), **_gateway_operations()},
        "components": {
            "messages": _messages(),
            "schemas": schemas,
            "securitySchemes": {
                "broker": {"type": "userPassword"},
                "accessToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "On the upgrade request, as sub-protocol `bearer.<token>`, or in the frame `hello`.",
                },
                "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket"},
            },
        },
    }


def _collect_schemas() -> Json:
    models: Iterable[type[BaseModel]] = dict.fromkeys(
        [NotificationRequest, *CLIENT_FRAMES.values(), *SERVER_FRAMES.values(), *_EVENTS.values()]
    )
    _, found = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas: Json = found["$defs"]
    return schemas


# --- RabbitMQ -----------------------------------------------------------------------------------------------------


def _exchange_channels() -> Json:
    channels: Json = {}
    for exchange in TOPOLOGY.exchanges:
        for key in _KEYS.get(exchange.name, ("",)):
            channels[_channel_of(exchange, key)] = {
                "address": key if exchange.name != topology.DELIVERY_DIRECT.name else "user.{user_id}",
                "title": f"{exchange.name} {key}".rstrip(),
                "description": _PURPOSE.get(exchange.name, ""),
                "servers": [{"$ref": "#/servers/broker"}],
                "messages": {_id(name): _message_ref(name) for name in _messages_of(exchange)},
                "bindings": {
                    "amqp": {
                        "is": "routingKey",
                        "exchange": {
                            "name": exchange.name,
                            "type": exchange.type,
                            "durable": True,
                            "autoDelete": False,
                            "vhost": "/",
                        },
                    }
                },
                **({"x-internal": True} if exchange.name in _INTERNAL else {}),
                **(
                    {"parameters": {"user_id": {"description": "A UUID."}}}
                    if exchange.name == topology.DELIVERY_DIRECT.name
                    else {}
                ),
            }
    return channels


def _queue_channels() -> Json:
    channels: Json = {}
    for queue in TOPOLOGY.queues:
        name = "dead_letter" if queue is topology.DEAD else None
        bound = [binding for binding in TOPOLOGY.bindings if binding.queue is queue]
        channels[_id(f"queue.{queue.name}")] = {
            "address": queue.name,
            "title": f"queue {queue.name}",
            "servers": [{"$ref": "#/servers/broker"}],
            "messages": {_id(name): _message_ref(name)} if name else {},
            "bindings": {"amqp": {"is": "queue", "queue": _describe_queue(queue)}},
            "x-arguments": queue.arguments,
            "x-bindings": [{"exchange": each.exchange.name, "routing_key": each.routing_key} for each in bound],
            **({} if queue is topology.DEAD else {"x-internal": True}),
        }
    return channels


def _describe_queue(queue: Queue) -> Json:
    return {
        "name": queue.name,
        "durable": not queue.exclusive,
        "exclusive": queue.exclusive,
        "autoDelete": False,
        "vhost": "/",
    }


def _channel_of(exchange: Exchange, key: str) -> str:
    return _id(f"{exchange.name}.{key}" if key else exchange.name)


def _id(name: str) -> str:
    """Keys of an AsyncAPI document have letters, digits, hyphens and underscores."""
    return name.replace(".", "-")


def _messages_of(exchange: Exchange) -> list[str]:
    match exchange.name:
        case topology.NOTIFICATIONS_DIRECT.name | topology.NOTIFICATIONS_FANOUT.name:
            return ["request"]
        case topology.IDENTITY_EVENTS.name:
            return [f"event.{event}" for event in _EVENTS]
        case topology.NOTIFICATIONS_EVENTS.name:
            return ["receipt"]
        case _:
            return []


def _broker_operations() -> Json:
    operations: Json = {}
    for key in topology.INTAKE_KEYS:
        operations[f"accept-{key}"] = _operation(
            "receive", _channel_of(topology.NOTIFICATIONS_DIRECT, key), ["request"], f"Accept requests, key {key}."
        )
    operations["accept-broadcast"] = _operation(
        "receive", _id(topology.NOTIFICATIONS_FANOUT.name), ["request"], "Accept broadcasts."
    )
    operations["mirror-identity"] = _operation(
        "receive",
        _id(topology.IDENTITY_EVENTS.name),
        [f"event.{event}" for event in _EVENTS],
        "Mirror users and groups, and act on what ends sessions. The auth service sends these.",
    )
    for key in topology.RECEIPT_KEYS:
        operations[f"receipt-{key}"] = _operation(
            "send", _channel_of(topology.NOTIFICATIONS_EVENTS, key), ["receipt"], f"Tell backends: {key}."
        )
    operations["give-up"] = _operation(
        "send", _id(f"queue.{topology.DEAD.name}"), ["dead_letter"], "Put aside what cannot be used, with the reason."
    )
    return operations


# --- WebSocket ----------------------------------------------------------------------------------------------------


def _gateway_channel() -> Json:
    names = [*(f"client.{each}" for each in CLIENT_FRAMES), *(f"server.{each}" for each in SERVER_FRAMES)]
    return {
        "address": "/ws",
        "title": "WebSocket",
        "description": (
            f"Text frames, one JSON object each, at most {MAX_CLIENT_FRAME_BYTES} bytes from the client; "
            f"sub-protocol {SUBPROTOCOL}. Close codes are in x-close-codes; 4000 to 4499: reconnect with back-off."
        ),
        "servers": [{"$ref": "#/servers/gateway"}],
        "messages": {_id(name): _message_ref(name) for name in names},
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {
                    "type": "object",
                    "properties": {
                        "ticket": {"type": "string", "description": "From `POST /api/v1/auth/ws-ticket`; works once."},
                        "device_id": {"type": "string", "pattern": "^[A-Za-z0-9._:@\\-]{1,64}$"},
                        "position": {"type": "string", "description": "Where to go on."},
                        "ack": {"type": "string", "enum": ["client", "auto"]},
                    },
                },
                "headers": {
                    "type": "object",
                    "properties": {
                        "Authorization": {"type": "string", "description": "Bearer and an access token."},
                        "Sec-WebSocket-Protocol": {
                            "type": "string",
                            "description": f"{SUBPROTOCOL}, and bearer.<access token> where headers cannot be set.",
                        },
                    },
                },
            }
        },
        "x-close-codes": {str(int(code)): code.name.lower() for code in CloseCode},
    }


def _gateway_operations() -> Json:
    operations: Json = {}
    for name in CLIENT_FRAMES:
        operation = _operation("receive", "gateway", [f"client.{name}"], f"The client sends {name}.")
        answers = _ANSWERS.get(name)
        if answers:
            operation["reply"] = {
                "channel": {"$ref": "#/channels/gateway"},
                "messages": [{"$ref": f"#/channels/gateway/messages/{_id(f'server.{each}')}"} for each in answers],
            }
        operations[_id(f"client.{name}")] = operation
    for name in SERVER_FRAMES:
        operations[_id(f"server.{name}")] = _operation("send", "gateway", [f"server.{name}"], f"Herald sends {name}.")
    return operations


# --- messages -----------------------------------------------------------------------------------------------------


def _operation(action: str, channel: str, messages: list[str], summary: str) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{_id(name)}"} for name in messages],
    }


def _message_ref(name: str) -> Json:
    return {"$ref": f"#/components/messages/{_id(name)}"}


def _messages() -> Json:
    messages: Json = {
        "request": {
            "name": "request",
            "title": "A notification asked for",
            "summary": f"At most {MAX_REQUEST_BYTES} bytes. The property `message_id`, a UUID, is the idempotency key.",
            "payload": _schema_ref(NotificationRequest),
            "headers": _headers({headers.TRACEPARENT: "W3C trace context; optional."}),
            "bindings": {"amqp": {"contentEncoding": "utf-8", "messageType": "request"}},
        },
        "receipt": {
            "name": "receipt",
            "title": "What became of a notification",
            "payload": {"type": "object", "additionalProperties": True},
        },
        "dead_letter": {
            "name": "dead_letter",
            "title": "A message that was given up",
            "summary": "The body is the message's own, as it came.",
            "payload": {"description": "Any bytes."},
            "headers": _headers(
                {
                    "x-herald-reason": "One of the reason codes.",
                    "x-herald-detail": "A sentence.",
                    "x-herald-exchange": "Where it came in.",
                    "x-herald-routing-key": "With which key.",
                    "x-herald-message-id": "Its message id; empty when it had none.",
                }
            ),
        },
    }
    for event, model in _EVENTS.items():
        messages[_id(f"event.{event}")] = _tagged(str(event), model)
    for name, frame in CLIENT_FRAMES.items():
        messages[_id(f"client.{name}")] = _tagged(name, frame)
    for name, described in SERVER_FRAMES.items():
        messages[_id(f"server.{name}")] = _tagged(name, described)
    return messages


def _tagged(name: str, model: type[BaseModel]) -> Json:
    """A message whose `type` is its name, also where several share one model."""
    payload = {"allOf": [_schema_ref(model)], "properties": {"type": {"const": name}}, "required": ["type"]}
    return {"name": name, "summary": (model.__doc__ or "").strip().splitlines()[0], "payload": payload}


def _schema_ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _headers(described: Mapping[str, str]) -> Json:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in described.items()},
    }
