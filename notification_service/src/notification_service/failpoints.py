"""Places where tests let a process die, to hit windows that are microseconds wide otherwise.

`HERALD_FAIL_POINT=after_db_commit` kills the process (`kill -9` on itself) the first time it gets there;
`after_db_commit:3` the fourth time. Without the variable every call returns at once; production refuses it.
"""

from __future__ import annotations

import os
import signal
from typing import Final, Literal

VARIABLE: Final = "HERALD_FAIL_POINT"

FailPoint = Literal[
    "after_db_commit",
    "after_answer",
    "after_confirm_before_mark",
    "after_ws_send_before_client_ack",
    "after_client_ack_before_amqp_ack",
    "before_channel_send",
    "after_channel_send_before_ack",
    "after_record_before_ack",
    "before_digest_commit",
    "after_digest_commit",
]

_wanted, _, _skips = os.environ.get(VARIABLE, "").partition(":")
_left: list[int] = [int(_skips or 0)]


def reach(point: FailPoint) -> None:
    """Die here if that is wanted."""
    if point != _wanted:
        return
    if _left[0]:
        _left[0] -= 1
        return
    os.kill(os.getpid(), signal.SIGKILL)
