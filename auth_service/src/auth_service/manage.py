"""The command line of this service: `herald-auth <command>`, Django's commands and our own."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

from auth_service.config.environment import load_environment
from auth_service.config.processes import share_counts

LONG_RUNNING = frozenset({"serve", "background", "relay_identity_events"})


def main() -> None:
    """Run one command of `sys.argv`; `herald-auth help` lists them."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auth_service.config.settings")
    if LONG_RUNNING & set(sys.argv[1:2]):
        # Before anything imports prometheus-client, which looks for the folder once.
        share_counts(load_environment().run_dir)
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
