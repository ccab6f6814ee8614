"""The command line of this service: `herald-auth <command>`, Django's commands and our own."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    """Run one command of `sys.argv`; `herald-auth help` lists them."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auth_service.config.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
