from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from typing_extensions import override

from auth_service.config.background import run_background


class Command(BaseCommand):
    help = "Everything that happens beside requests: the relay of identity events, mails, pruning. Safe to run twice."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or Ctrl-C."""
        run_background("auth-background", with_chores=True)
