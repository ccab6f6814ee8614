from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from typing_extensions import override


class Command(BaseCommand):
    help = "Serve the REST API and the admin with gunicorn."
    requires_system_checks = "__all__"

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        """Where to listen."""
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)

    @override
    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        """Become gunicorn: signals then reach it directly."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        program = os.path.join(os.path.dirname(sys.executable), "gunicorn")  # noqa: PTH118, PTH120 - not resolved: venv
        command = [program, "--config", "python:auth_service.config.gunicorn", "--bind", address]
        sys.stdout.flush()
        os.execv(program, [*command, "auth_service.config.wsgi:application"])  # noqa: S606 - the very point
