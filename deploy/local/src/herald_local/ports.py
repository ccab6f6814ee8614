"""Ports for programs that run beside whatever else the machine runs."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

# Below the ports that Linux (32768 and up) and macOS (49152 and up) give to the near end of outgoing connections: a
# port of theirs that is free now may be such a near end by the time the server we chose it for has started.
_LOWEST, _HIGHEST = 20_000, 32_000

# One locked file per port we chose, open as long as this process lives: another process choosing beside us passes it by
# even before a server listens there.
_reserved: list[int] = []


def find_free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nothing listens on and no living process has been given by this function.

    Raises:
        OSError: Fewer than `count` are left.
    """
    folder = Path(tempfile.gettempdir()) / f"herald-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    candidates = random.sample(range(_LOWEST, _HIGHEST), _HIGHEST - _LOWEST)
    found: list[int] = []
    while len(found) < count:
        if not candidates:
            raise OSError(f"no free port is left between {_LOWEST} and {_HIGHEST}")
        port = candidates.pop()
        if _reserve(folder / str(port)) and is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reserve(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _reserved.append(descriptor)
    return True
