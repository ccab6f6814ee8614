from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from typing_extensions import override

from auth_service.tokens.key_actions import do_cut_off_all_tokens


class Command(BaseCommand):
    help = "Refuse every access token issued until now. Devices refresh and go on; rotate_keys --leaked goes further."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        do_cut_off_all_tokens()
        self.stdout.write("every access token issued until now is refused")
