"""gunicorn's settings: threads, because waiting for a database or a hash must not hold anyone else up."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from typing_extensions import override

from auth_service.config.environment import load_environment
from shared_contracts.service_log import configure_logging

_herald = load_environment()
configure_logging("auth", level=_herald.log_level)

worker_class = "gthread"
workers = _herald.workers
threads = _herald.threads
keepalive = 75  # longer than the 60 s after which proxies drop idle connections, so that they close first
graceful_timeout = 20
timeout = 60
backlog = 1024
limit_request_line = 8190
limit_request_field_size = 8190
limit_request_fields = 100
forwarded_allow_ips = ",".join(str(network.network_address) for network in _herald.trusted_proxies) or "127.0.0.1"
accesslog = None  # CorrelationMiddleware writes one line per request, without the query string
control_socket_disable = True  # two instances of one user would fight over its file
errorlog = "-"
proc_name = "herald-auth"


class HeraldLogger(Logger):
    """Hands gunicorn's own lines to the log of every other line."""

    @override
    def setup(self, cfg: Any) -> None:
        """Drop gunicorn's handlers; what it says goes up to the root."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)


logger_class = HeraldLogger


def post_worker_init(_worker: Any) -> None:
    """Before the first request: load what the first request would, and keep it out of every later collection.

    Some 400,000 objects live as long as the process; to walk them stopped every thread of it for 0.1 s, once in some
    hundred requests.
    """
    from django.urls import get_resolver  # noqa: PLC0415 - Django is set up in the worker

    _ = get_resolver().url_patterns
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """Fold the counts of a process that ended into the totals."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess  # noqa: PLC0415 - it looks for the folder when it is imported

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_starting(_server: Any) -> None:
    """The run folder must be there for the log of counts."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
