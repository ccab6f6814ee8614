from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from typing_extensions import override

from auth_service.config.documentation import make_action_list, make_settings_table


class Command(BaseCommand):
    help = "Print the tables of docs/identity.md that are made from the code."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(make_settings_table())
        self.stdout.write(make_action_list())
