"""`GET /sse`: the gateway's session over server-sent events."""

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from notification_service.errors import (
    BadRequest,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    ServiceError,
    Unavailable,
)
from notification_service.gateway.handshake import Refusal, Upgrade, read_upgrade
from notification_service.gateway.node import GatewayNode
from notification_service.gateway.sse import SseClient
from notification_service.rest.callers import TokenExpired, TokenInvalid
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import Hello

_REFUSALS: dict[int, type[ServiceError]] = {403: PermissionDenied, 404: NotFound}


class EventStream(StreamingResponse):
    """Ends the session with the response, whichever way that ends."""

    def __init__(self, client: SseClient) -> None:
        super().__init__(
            client.chunks(),
            media_type="text/event-stream",
            # nginx would collect events until its buffer is full.
            headers={"X-Accel-Buffering": "no"},
        )
        self._client = client

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._client.lose()


def make_sse_router(node: GatewayNode) -> APIRouter:
    """`/sse`, in processes that are gateway nodes."""
    router = APIRouter(tags=["events"])

    @router.get("/sse", summary="Frames as server-sent events", response_class=StreamingResponse)
    async def stream(request: Request) -> EventStream:
        """The frames of a WebSocket, one event each. Authentication by the Authorization header or `?ticket=`; query
        parameters `device_id`, `position`, `ack`; the header `Last-Event-ID` wins over `position`. Acknowledge with
        `POST /api/v1/inbox/ack` and the same device id, or connect with `ack=auto`. The last event of a stream that the
        server ends is `{"type": "close", "code": ..., "reason": ...}` with the codes of the WebSocket.
        """
        upgrade = _read(request, node)
        if upgrade.hello is None:
            raise NotAuthenticated
        if (problem := node.admit()) is not None:
            raise Unavailable(problem)
        client = _make_client(request, node, upgrade, upgrade.hello)
        try:
            refused = await client.wait_started()
        except BaseException:
            client.lose()
            raise
        if refused is not None:
            client.lose()
            raise _describe(refused)
        return EventStream(client)

    return router


def _read(request: Request, node: GatewayNode) -> Upgrade:
    parameters = [each for each in request.query_params.multi_items() if each[0] != "position"]
    position = request.headers.get("last-event-id") or request.query_params.get("position")
    if position:
        parameters.append(("position", position))
    decision = read_upgrade(
        f"/ws?{urlencode(parameters)}",
        origins=request.headers.getlist("origin"),
        authorization=request.headers.getlist("authorization"),
        offered_subprotocols=(),
        rule=node.origin_rule,
    )
    if isinstance(decision, Refusal):
        raise _REFUSALS.get(decision.status, BadRequest)(decision.detail)
    return decision


def _make_client(request: Request, node: GatewayNode, upgrade: Upgrade, hello: Hello) -> SseClient:
    client = SseClient(node)
    client.remote_address = request.client.host if request.client else None
    client.user_agent = (request.headers.get("user-agent") or "")[:200] or None
    client.connected_at = node.clock.now()
    client.ticket = upgrade.ticket
    node.on_opened(client)
    client.run(client.session.identify(hello))
    return client


def _describe(code: CloseCode) -> Any:
    if code is CloseCode.TOKEN_EXPIRED:
        return TokenExpired()
    if code in (CloseCode.RESTARTING, CloseCode.OVERLOADED, CloseCode.GOING_AWAY, CloseCode.SERVER_FAULT):
        return Unavailable("not available right now")
    return TokenInvalid()
