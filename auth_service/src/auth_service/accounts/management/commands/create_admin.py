from __future__ import annotations

import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from auth_service.accounts.actions import NewUser, do_create_user, do_set_roles
from auth_service.accounts.models import User
from auth_service.accounts.names import check_username, make_username_key
from auth_service.accounts.passwords import check_new_password
from auth_service.audit.origin import SYSTEM
from auth_service.errors import ServiceError
from shared_contracts.scopes import Role

ROLES = (str(Role.USER), str(Role.ADMIN))


class Command(BaseCommand):
    help = "Make the first administrator, or make a user one. The password is asked for, or read from standard input."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--email", default=None)

    @override
    def handle(self, *args: Any, username: str, email: str | None, **options: Any) -> None:
        """Create the user with the role `admin`; one who exists only gets the role.

        Raises:
            CommandError: The name or the password breaks a rule.
        """
        try:
            username = check_username(username)
        except ValueError as error:
            raise CommandError(f"username: {error}") from None
        found = User.objects.filter(username_key=make_username_key(username)).first()
        try:
            if found is not None:
                do_set_roles(found, {*found.roles, *ROLES}, SYSTEM)
                self.stdout.write(f"{found.username} is an administrator; the password is as it was")
                return
            password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
            check_new_password(password, User(username=username, email=email))
            new = NewUser(
                username=username, email=email, email_verified=email is not None, password=password, roles=ROLES
            )
            do_create_user(new, SYSTEM)
        except ServiceError as error:
            described = "; ".join(f"{each.field}: {each.message}" for each in error.errors) or str(error)
            raise CommandError(described) from None
        self.stdout.write(f"{username} is an administrator")
