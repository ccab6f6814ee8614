from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from auth_service.accounts.actions import NewUser, do_create_user
from auth_service.accounts.models import User
from auth_service.accounts.names import make_username_key
from auth_service.audit.origin import SYSTEM
from auth_service.groups.actions import do_change_members, do_create_group
from auth_service.groups.models import Group
from auth_service.service_accounts.actions import do_create_account
from auth_service.service_accounts.models import ServiceAccount
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.scopes import Role, Scope

PEOPLE = {
    "admin": (Role.USER, Role.ADMIN),
    "alice": (Role.USER,),
    "bob": (Role.USER,),
}
MEMBERS = ("alice", "bob")
SHOP_SCOPES = (Scope.NOTIFICATIONS_SEND, Scope.NOTIFICATIONS_BROADCAST, Scope.TOKENS_ISSUE)


class Command(BaseCommand):
    help = "Make the demonstration accounts, unless they exist. Development only: their passwords are public."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        """Make what is missing; what exists stays as it is.

        Raises:
            CommandError: In production.
        """
        if settings.HERALD.is_production:
            raise CommandError("demonstration accounts have public passwords: not in production")
        users = {name: _find_or_make_user(name, roles) for name, roles in PEOPLE.items()}
        group = Group.objects.filter(tenant_id=DEFAULT_TENANT, slug="demo").first()
        if group is None:
            group = do_create_group(DEFAULT_TENANT, {"name": "Demo", "slug": "demo"}, SYSTEM)
        do_change_members(group, add=[users[name].id for name in MEMBERS], remove=[], by=SYSTEM)
        if not ServiceAccount.objects.filter(client_id="shop").exists():
            do_create_account(
                name="shop",
                scopes=SHOP_SCOPES,
                tenant=DEFAULT_TENANT,
                by=SYSTEM,
                client_id="shop",
                secret="herald-shop-secret",  # noqa: S106 - public on purpose
            )
        self.stdout.write("demonstration accounts are there")


def _find_or_make_user(name: str, roles: tuple[Role, ...]) -> User:
    found = User.objects.filter(username_key=make_username_key(name)).first()
    if found is not None:
        return found
    new = NewUser(
        username=name,
        email=f"{name}@example.org",
        email_verified=True,
        password=f"herald-{name}",
        roles=tuple(str(role) for role in roles),
    )
    return do_create_user(new, SYSTEM)
