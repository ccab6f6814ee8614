from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from typing_extensions import override

from auth_service.config.background import run_background


class Command(BaseCommand):
    help = "Publish identity events from the outbox to RabbitMQ until told to stop. Safe to run twice."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or Ctrl-C."""
        run_background("relay", with_chores=False)
