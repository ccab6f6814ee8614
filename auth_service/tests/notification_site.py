"""The notification service's side of an export, as real HTTP on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override


class NotificationSite:
    """Answers `GET /internal/v1/users/{id}/export`.

    Attributes:
        status: Of every answer.
        body: Of every answer; None: an object that names the user.
        is_cut_short: Whether the connection ends before the body does.
        asked: Paths and internal keys, in order.
    """

    def __init__(self) -> None:
        self.reset()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, self.headers.get("X-Internal-Key")))
                body = site.body
                if body is None:
                    body = json.dumps({"inbox": [{"title": "Grüße", "for": self.path.split("/")[4]}]}).encode()
                self.send_response(site.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # whoever asked has heard enough
                    self._write(body)

            def _write(self, body: bytes) -> None:
                for start in range(0, len(body), 50_000):
                    part = body[start : start + 50_000]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                if site.is_cut_short:
                    self.close_connection = True
                    return
                self.wfile.write(b"0\r\n\r\n")

            @override
            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def reset(self) -> None:
        self.status = 200
        self.body: bytes | None = None
        self.is_cut_short = False
        self.asked: list[tuple[str, str | None]] = []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
