from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from typing_extensions import override

from auth_service.tokens.key_actions import do_rotate_keys


class Command(BaseCommand):
    help = "Add a signing key. It is published at once, signs after AUTH_KEY_PUBLISH_AHEAD, and succeeds the old one."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--leaked",
            action="store_true",
            help="The present key is known to others: refuse it, and every token it signed, at once.",
        )

    @override
    def handle(self, *args: Any, leaked: bool, **options: Any) -> None:
        key = do_rotate_keys(retire_others=leaked)
        self.stdout.write(f"{key.kid} ({key.algorithm}) signs from {key.active_from.isoformat(timespec='seconds')} on")
