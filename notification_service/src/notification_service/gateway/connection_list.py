"""Live connections over all nodes, for administrators: asked of every node, since no node knows them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from notification_service.clock import Clock, format_time
from notification_service.errors import Unavailable
from notification_service.gateway.client import Client
from notification_service.gateway.gossip import Gossip
from notification_service.presence.board import Board, PresenceView
from notification_service.presence.ports import ConnectionRow, ConnectionsWanted
from shared_contracts.ws.close_codes import CloseCode

_LIST: Final = "list"
_CLOSE: Final = "close"


class NodesPort:
    """`presence.ports.Nodes`, from the gossip any process can take part in."""

    def __init__(self, gossip: Gossip, board: Board, clock: Clock, *, is_listening: Callable[[], bool]) -> None:
        self._gossip = gossip
        self._board = board
        self._clock = clock
        self._is_listening = is_listening

    def describe_presence(self, user_id: UUID) -> PresenceView:
        """What is known of a user now."""
        self._check()
        return self._board.describe(user_id, self._clock.now())

    async def list_connections(self, wanted: ConnectionsWanted) -> tuple[list[ConnectionRow], int]:
        """A page over all nodes, and how many nodes did not answer in time."""
        self._check()
        question = {
            "what": _LIST,
            "tenant": wanted.tenant,
            "user_id": str(wanted.user_id) if wanted.user_id else None,
            "after": str(wanted.after) if wanted.after else None,
            "limit": wanted.limit,
        }
        answers, missing = await self._gossip.ask(question)
        rows = [_read_row(row) for answer in answers for row in answer.get("rows", ())]
        return sorted(rows, key=lambda row: row.id)[: wanted.limit], missing

    async def close_connection(self, connection_id: UUID, tenant: str) -> bool:
        """End one connection, wherever it is; answers whether it was found."""
        self._check()
        question = {"what": _CLOSE, "connection_id": str(connection_id), "tenant": tenant}
        answers, _ = await self._gossip.ask(question)
        return any(answer.get("found") for answer in answers)

    def _check(self) -> None:
        if not self._is_listening():
            raise Unavailable("this process does not hear the gateway nodes at the moment")


def answer_question(
    question: dict[str, Any], *, node_id: str, clients: Callable[[], Iterable[Client]]
) -> dict[str, Any]:
    """One node's answer."""
    if question["what"] == _CLOSE:
        return {"found": _close(question, clients())}
    if question["what"] == _LIST:
        return {"rows": _list(question, node_id, clients())}
    return {}


def _close(question: dict[str, Any], clients: Iterable[Client]) -> bool:
    connection_id, tenant = UUID(question["connection_id"]), question["tenant"]
    for client in clients:
        identity = client.session.identity
        if client.id == connection_id and identity is not None and identity.tenant == tenant:
            client.run(client.session.close(CloseCode.SESSION_REVOKED, "ended by an administrator"))
            return True
    return False


def _list(question: dict[str, Any], node_id: str, clients: Iterable[Client]) -> list[dict[str, Any]]:
    user_id = UUID(question["user_id"]) if question["user_id"] else None
    after = UUID(question["after"]) if question["after"] else None
    found = [
        client
        for client in clients
        if (identity := client.session.identity) is not None
        and identity.tenant == question["tenant"]
        and (user_id is None or identity.user_id == user_id)
        and (after is None or client.id > after)
    ]
    found.sort(key=lambda client: client.id)
    return [_describe(client, node_id) for client in found[: question["limit"]]]


def _describe(client: Client, node_id: str) -> dict[str, Any]:
    session, info = client.session, client.info
    identity = session.identity
    assert identity is not None
    return {
        "id": str(client.id),
        "node": node_id,
        "user_id": str(identity.user_id),
        "session_id": str(identity.session_id),
        "device_id": session.device_id,
        "transport": client.transport_name,
        "status": str(session.status),
        "client": f"{info.name} {info.version}".strip() if info else None,
        "remote_address": client.remote_address,
        "user_agent": client.user_agent,
        "connected_at": format_time(client.connected_at) if client.connected_at else None,
        "sent_seq": session.follower.sent_seq,
        "unacked": session.follower.unacked_count,
    }


def _read_row(row: dict[str, Any]) -> ConnectionRow:
    ids = {name: UUID(row[name]) for name in ("id", "user_id", "session_id")}
    return ConnectionRow(**{**row, **ids, "connected_at": datetime.fromisoformat(row["connected_at"])})
