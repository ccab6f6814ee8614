"""One WebSocket: the I/O shell around a session, hosted by uvicorn as its WebSocket protocol class.

No task, queue or timer per connection: the event loop calls in with bytes, the session answers with effects, frames are
written to the transport at once. What is usual is read by `fast_upgrade` and `fast_frames`, the rest of handshakes and
incoming frames by the sans-I/O protocol of `websockets` (docs/decisions/0009, 0061, 0078), which many connections never
need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import structlog
from typing_extensions import override
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol

from notification_service import metrics
from notification_service.gateway.client import PAUSE_BYTES, Client
from notification_service.gateway.fast_frames import take_texts, wire_size
from notification_service.gateway.fast_upgrade import PlainUpgrade
from notification_service.gateway.handshake import Refusal, Upgrade, read_upgrade
from notification_service.gateway.session import Phase
from notification_service.gateway.wire import encode_ping, encode_text
from shared_contracts.error_codes import ErrorCode
from shared_contracts.headers import CORRELATION_ID, correlation_id_from
from shared_contracts.problems import MEDIA_TYPE, make_problem
from shared_contracts.ws.close_codes import MAX_REASON_BYTES, CloseCode

if TYPE_CHECKING:
    from notification_service.gateway.node import GatewayNode

log = structlog.get_logger(__name__)

# For the peer's half of the closing handshake; then the socket goes. A peer that did not answer pings gets a second.
_CLOSE_LIMIT_S: Final = 10.0
_ABSENT_CLOSE_LIMIT_S: Final = 1.0
# A peer whose buffer is never empty for this long is slow, however little it owes.
_STUCK_LIMIT_S: Final = 30.0
_END_OF_HEADERS: Final = b"\r\n\r\n"
_FOR_GOOD: Final = 1 << 62


class Connection(asyncio.Protocol, Client):
    """See the module."""

    gateway: ClassVar[GatewayNode]  # set by `make_protocol_class`
    transport_name = "websocket"
    takes_ready_frames = True

    def __init__(self, *, server_state: Any, **_others: Any) -> None:
        super().__init__(self.gateway)
        self._siblings: set[Any] = server_state.connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._made_protocol: ServerProtocol | None = None
        # Bytes given to the library beyond the frames it has answered; 0: it stands where a frame begins.
        self._library_owes = 0
        self._is_upgraded = False
        self._fragments: list[bytes] = []
        self._fragments_are_text = True
        self._decision: Upgrade | Refusal | None = None
        self._is_closing = False
        self._is_lost = False
        self._is_paused = False
        self._stuck_since: float | None = None

    # --- asyncio calls in -----------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._siblings.add(self)
        self._transport.set_write_buffer_limits(high=PAUSE_BYTES, low=PAUSE_BYTES // 4)
        peer = transport.get_extra_info("peername")
        self.remote_address = peer[0] if isinstance(peer, tuple) else None

    @override
    def data_received(self, data: bytes) -> None:
        self._run_guarded(self._receive, data)

    def _run_guarded(self, act: Callable[..., None], *given: Any) -> None:
        try:
            act(*given)
        except Exception as error:
            # Left to asyncio, this would cut the connection without a word (1006).
            log.error("connection_fault", connection_id=str(self.id), exc_info=error)  # noqa: TRY400
            self.fail()

    def _receive(self, data: bytes) -> None:
        if self._is_upgraded and not self._library_owes and not self._is_closing and not self._fragments:
            texts, taken = take_texts(data)
            for text in texts:
                self._fragments_are_text = True
                self._on_message(text)
                if self._is_closing:
                    # The rest may hold the peer's own close frame.
                    break
            if taken == len(data):
                return
            data = data[taken:]
        self._library_owes += len(data)
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                # With frames in the same segment as the request, the library reads this connection for good.
                self._library_owes = 0 if data.find(_END_OF_HEADERS) == len(data) - 4 else _FOR_GOOD
                self._on_request(event)
            elif isinstance(event, Frame):
                self._library_owes -= wire_size(len(event.data))
                self._on_frame(event)
        self._write_protocol_output()
        if self._protocol.parser_exc is not None and not self._is_closing:
            self._on_broken_input()

    @override
    def eof_received(self) -> None:
        return None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._siblings.discard(self)
        if self.session.phase is not Phase.CLOSED:
            self.session.close(CloseCode.GOING_AWAY, "connection lost")
            metrics.ws_closed.labels("lost").inc()
        self.node.on_closed(self)

    @override
    def pause_writing(self) -> None:
        # This peer reads more slowly than frames come. From now on it is served from the mailbox, as fast as it takes.
        self._is_paused = True
        self.session.follower.pause()

    @override
    def resume_writing(self) -> None:
        self._is_paused = False
        if not self._is_closing:
            self.run(self.session.follower.resume(self.node.clock.monotonic()))

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self.run(self.session.close(CloseCode.RESTARTING, "the server is restarting"))
        # What is written goes out first; nobody waits for the peer's half any more.
        self._transport.close()

    # --- the upgrade ----------------------------------------------------------------------------------------------

    def upgrade(self, plain: PlainUpgrade, data: bytes) -> None:
        """Take a usual request; refused, it is left to the library, which knows what to answer.

        Args:
            plain: What was read.
            data: It was read from.
        """
        self._run_guarded(self._take, plain, data)

    def _take(self, plain: PlainUpgrade, data: bytes) -> None:
        decision = self._decision = self._decide(
            plain.target,
            user_agent=plain.headers.get("user-agent"),
            origins=plain.find("origin"),
            authorization=plain.find("authorization"),
            offered_subprotocols=plain.offered_subprotocols,
        )
        if isinstance(decision, Refusal):
            self._receive(data)
        else:
            self._transport.write(plain.make_response(decision.subprotocol))
            self._open(decision)

    def _on_request(self, request: Request) -> None:
        headers = request.headers
        offered = [name.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for name in value.split(",")]
        decision = self._decision = self._decision or self._decide(
            request.path,
            user_agent=headers.get("User-Agent"),
            origins=headers.get_all("Origin"),
            authorization=headers.get_all("Authorization"),
            offered_subprotocols=offered,
        )
        if isinstance(decision, Refusal):
            self._refuse(decision)
            return
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._write_protocol_output()
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._transport.close()
            return
        self._free_request()
        self._open(decision)

    def _decide(self, target: str, *, user_agent: str | None, **others: Any) -> Upgrade | Refusal:
        self.user_agent = (user_agent or "")[:200] or None
        decision = read_upgrade(target, **others, rule=self.node.origin_rule)
        if isinstance(decision, Upgrade) and (problem := self.node.admit()) is not None:
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, ErrorCode.UNAVAILABLE, problem)
        return decision

    def _open(self, decision: Upgrade) -> None:
        self._decision = None
        self._is_upgraded = True
        self.connected_at = self.node.clock.now()
        self.node.on_opened(self)
        self.ticket = decision.ticket
        if decision.hello is not None:
            self.run(self.session.identify(decision.hello))

    @property
    def _protocol(self) -> ServerProtocol:
        if self._made_protocol is None:
            is_open = self._is_upgraded
            self._made_protocol = ServerProtocol(
                select_subprotocol=None if is_open else lambda _protocol, _offered: self._find_subprotocol(),
                state=State.OPEN if is_open else State.CONNECTING,
                max_size=self.node.settings.max_frame_bytes,
                logger=_QUIET,
            )
        return self._made_protocol

    def _free_request(self) -> None:
        """Free what the upgrade needed: 4 KB per connection. The library's parser holds the request in a variable."""
        if self._library_owes == 0:
            self._protocol.parser = Protocol.parse(self._protocol)
            next(self._protocol.parser)

    def _refuse(self, refusal: Refusal) -> None:
        correlation_id = correlation_id_from(None)
        problem = make_problem(
            status=refusal.status, code=refusal.code, detail=refusal.detail, correlation_id=correlation_id
        )
        response = self._protocol.reject(refusal.status, problem.model_dump_json(exclude_none=True))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = MEDIA_TYPE
        response.headers[CORRELATION_ID] = correlation_id
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = "2"
        self._protocol.send_response(response)
        self._write_protocol_output()
        self._transport.close()

    def _find_subprotocol(self) -> Any:
        return self._decision.subprotocol if isinstance(self._decision, Upgrade) else None

    # --- incoming frames ------------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                self._fragments_are_text = frame.opcode is Opcode.TEXT
                if frame.fin:
                    self._on_message(bytes(frame.data))
                else:
                    self._fragments = [bytes(frame.data)]
                    self._on_control()
            case Opcode.CONT:
                self._fragments.append(bytes(frame.data))
                if frame.fin:
                    message, self._fragments = b"".join(self._fragments), []
                    self._on_message(message)
                else:
                    self._on_control()
            case Opcode.PONG:
                self.session.on_heard(self.node.clock.monotonic())
            case Opcode.PING:
                self._on_control()
            case Opcode.CLOSE:
                self._on_close_frame()

    def _on_control(self) -> None:
        if not self._is_closing:
            self.run(self.session.on_control(self.node.clock.monotonic()))

    def _on_message(self, message: bytes) -> None:
        if self._is_closing:
            return
        if not self._fragments_are_text:
            self.run(self.session.close(CloseCode.UNSUPPORTED_DATA, "binary frames are not taken"))
            return
        try:
            message.decode()
        except UnicodeDecodeError:
            self.run(self.session.close(CloseCode.INVALID_DATA, "the text is not UTF-8"))
            return
        self.run(self.session.on_text(message, self.node.clock.monotonic()))

    def _on_close_frame(self) -> None:
        # The library has queued the answer when the peer began; when we did, the handshake is complete now.
        if self.session.phase is not Phase.CLOSED:
            if self.session.follower.acks_by_itself:
                self.acknowledge_written()
            self.session.close(CloseCode.NORMAL, "the peer closed")
            metrics.ws_closed.labels("client").inc()
        self._is_closing = True
        self._write_protocol_output()
        self._transport.close()

    def _on_broken_input(self) -> None:
        # Protocol errors of the peer: the library has queued the close frame with the right code.
        self._is_closing = True
        self.session.close(CloseCode.PROTOCOL_ERROR, "broken frame")
        sent = self._protocol.close_sent
        metrics.ws_closed.labels(str(sent.code if sent else 1002)).inc()
        self._write_protocol_output()
        if not self._is_lost and self._transport.can_write_eof():
            # Half of the connection: the peer need not wait for the rest, and what it still sends is read and dropped.
            # Closing whole with unread data would reset the connection, and the peer would see 1006.
            self._transport.write_eof()
        self._close_later()

    # --- effects --------------------------------------------------------------------------------------------------

    @override
    def send_texts(self, texts: Sequence[bytes]) -> None:
        self.write(encode_text(texts[0]) if len(texts) == 1 else b"".join(map(encode_text, texts)))

    @override
    def send_ping(self) -> None:
        self.write(encode_ping())

    @override
    def write(self, data: bytes) -> None:
        if not (self._is_closing or self._is_lost):
            self._transport.write(data)
            if self._is_paused and self.waiting_bytes > self.node.settings.max_send_buffer_bytes:
                self._cut_slow_peer()

    @property
    @override
    def is_writable(self) -> bool:
        return not (self._is_closing or self._is_lost)

    @property
    @override
    def waiting_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    @override
    def tick(self) -> None:
        if self._is_lost or self._is_closing:
            return
        now = self.node.clock.monotonic()
        if self._transport.get_write_buffer_size() == 0:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > _STUCK_LIMIT_S:
            self._cut_slow_peer()
            return
        self.run(self.session.on_tick(now))

    def _cut_slow_peer(self) -> None:
        # It would not read a close frame either; it resumes from its position when it is back.
        self.run(self.session.close(CloseCode.SLOW_CONSUMER, "the peer does not read"))
        self._transport.abort()

    @override
    def end(self, code: CloseCode, reason: str) -> None:
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        limit_s = _CLOSE_LIMIT_S
        if code is CloseCode.GOING_AWAY:
            limit_s = _ABSENT_CLOSE_LIMIT_S
            if self.waiting_bytes:
                # It answers no pings because it reads nothing.
                code, reason = CloseCode.SLOW_CONSUMER, "the peer does not read"
        metrics.ws_closed.labels(str(int(code))).inc()
        try:
            self._protocol.send_close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
        except InvalidState:
            self._transport.abort()
            return
        self._write_protocol_output()
        self._close_later(limit_s)

    def _close_later(self, limit_s: float = _CLOSE_LIMIT_S) -> None:
        self._loop.call_later(limit_s, self._transport.abort)

    def _write_protocol_output(self) -> None:
        output = b"".join(self._protocol.data_to_send())
        if output and not self._is_lost:
            self._transport.write(output)
            if self.waiting_bytes > self.node.settings.max_send_buffer_bytes:
                # It asks and does not read the answers, be they pongs.
                self._transport.abort()


_QUIET = logging.getLogger("websockets.server")


def make_protocol_class(node: GatewayNode) -> type[Connection]:
    """The class uvicorn is given (`ws=`), tied to one node."""
    return type("GatewayConnection", (Connection,), {"gateway": node})
