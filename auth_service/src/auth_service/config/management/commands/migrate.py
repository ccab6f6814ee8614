from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.commands import migrate
from django.db import connection
from typing_extensions import override

# Any number that no other program uses for an advisory lock in this database.
_LOCK = 0x48_45_52_41


class Command(migrate.Command):
    help = "Bring the database up to date. Of several that start together one does it, the others wait (J03)."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        """Django's command, under a lock."""
        with _locked():
            super().handle(*args, **options)


@contextmanager
def _locked() -> Iterator[None]:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            # Requests give up after seconds; a migration waits for the other one, and takes the time it takes.
            cursor.execute("SET lock_timeout = 0")
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
            try:
                yield
            finally:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
                # The connection goes back to a pool: what uses it next must not wait without end.
                cursor.execute("RESET lock_timeout")
                cursor.execute("RESET statement_timeout")
        return
    path = Path(str(connection.settings_dict["NAME"]))
    if path.name.startswith((":memory:", "file:")):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".migrating").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    sys.stdout.flush()
