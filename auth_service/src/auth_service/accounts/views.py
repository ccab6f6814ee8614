from __future__ import annotations

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from auth_service.accounts import examples
from auth_service.accounts.actions import (
    NewUser,
    check_tenant,
    do_create_user,
    do_erase_user,
    do_set_active,
    do_set_roles,
    do_update_user,
    find_visible_users,
    get_user,
)
from auth_service.accounts.batch_actions import Outcome, do_write_batch
from auth_service.accounts.filters import UserFilter
from auth_service.accounts.models import User
from auth_service.accounts.password_actions import do_set_password
from auth_service.accounts.passwords import check_new_password
from auth_service.accounts.registration_actions import do_register
from auth_service.accounts.serializers import (
    MeIn,
    RegisterIn,
    RolesIn,
    UserBatchIn,
    UserBatchOut,
    UserBatchRowIn,
    UserChangesIn,
    UserIn,
    UserOut,
)
from auth_service.api.access import Access
from auth_service.api.batches import read_rows
from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import do_count_within
from shared_contracts.scopes import Scope

_TENANT = OpenApiParameter("tenant", str, description="Another tenant's users: administrators of `default` only.")


class RegisterView(ApiView):
    """Visitors who make an account."""

    access = {"POST": Access.PUBLIC}
    serializer_class = UserOut

    @operation(
        "register",
        "Make an account",
        request=RegisterIn,
        response=UserOut,
        status=201,
        sends=examples.REGISTRATION,
        answers={**examples.USER, "email_verified": False, "external_id": None, "last_login_at": None},
        refuses=(409, 429),
    )
    def post(self, request: Request) -> Response:
        """A taken username is told; a taken e-mail address is not, its owner gets a mail."""
        do_count_within(limits.registration_from_address(self.origin.ip))
        fields = self.read(RegisterIn)
        user = do_register(NewUser(**{name: value for name, value in fields.items() if value is not None}), self.origin)
        return Response(UserOut(user).data, status=201)


class MeView(ApiView):
    """One's own account."""

    access = {"GET": Access.USER, "PATCH": Access.USER, "DELETE": Access.USER}
    serializer_class = UserOut

    @operation("get_me", "Read one's own profile", response=UserOut, answers=examples.USER)
    def get(self, request: Request) -> Response:
        """The caller's own profile, with the roles of this moment."""
        return Response(UserOut(self.user).data)

    @operation(
        "change_me",
        "Change one's own profile",
        request=MeIn,
        response=UserOut,
        sends={"locale": "de", "timezone": "Europe/Berlin"},
        answers=examples.USER,
    )
    def patch(self, request: Request) -> Response:
        """A new e-mail address is unverified until the link mailed to it has been followed."""
        return Response(UserOut(do_update_user(self.user, self.read(MeIn), self.origin)).data)

    @operation("erase_me", "Erase one's own account", status=204, refuses=(422,))
    def delete(self, request: Request) -> Response:
        """Erases the account and everything held about it. There is no way back."""
        do_erase_user(self.user, self.origin)
        return Response(status=204)


class UsersView(ApiView):
    """The users of a tenant."""

    access = {"GET": Scope.USERS_READ, "POST": Scope.USERS_WRITE}
    serializer_class = UserOut
    pagination_class = CursorPages
    filter_backends = (DjangoFilterBackend,)
    filterset_class = UserFilter
    orderings = ("-created_at", "created_at", "username", "-username")
    ordering_columns = {"username": "username_key"}

    @override
    def get_queryset(self) -> QuerySet[User]:
        """Those the caller may see."""
        if getattr(self, "swagger_fake_view", False):
            return User.objects.none()
        return find_visible_users(self.caller, tenant=self.request.query_params.get("tenant"))

    @operation("list_users", "List users", response=UserOut(many=True), answers=examples.USER, parameters=[_TENANT])
    def get(self, request: Request) -> Response:
        """Pages of users, newest first unless ordered otherwise."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(UserOut(page, many=True).data)

    @operation(
        "create_user",
        "Create a user",
        request=UserIn,
        response=UserOut,
        status=201,
        sends=examples.NEW_USER,
        answers=examples.USER,
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """Without a password the user cannot log in with one until it is set or reset."""
        fields = self.read(UserIn)
        fields = {name: value for name, value in fields.items() if value is not None}
        tenant = check_tenant(self.caller, fields.pop("tenant", None))
        self.caller.check_may_grant(fields.get("roles", ()))
        if "password" in fields:
            check_new_password(fields["password"], User(username=fields["username"], email=fields.get("email")))
        user = do_create_user(NewUser(**fields, tenant=tenant), self.origin)
        return Response(UserOut(user).data, status=201)


class UserView(ApiView):
    """One user."""

    access = {"GET": Scope.USERS_READ, "PATCH": Scope.USERS_WRITE, "DELETE": Scope.USERS_WRITE}
    serializer_class = UserOut

    @operation("get_user", "Read a user", response=UserOut, answers=examples.USER)
    def get(self, request: Request, user_id: UUID) -> Response:
        """One user of a tenant the caller may see."""
        return Response(UserOut(get_user(self.caller, user_id)).data)

    @operation(
        "change_user",
        "Change a user",
        request=UserChangesIn,
        response=UserOut,
        sends={"email": "ada@example.org", "email_verified": True},
        answers=examples.USER,
        refuses=(409,),
    )
    def patch(self, request: Request, user_id: UUID) -> Response:
        """Changes what is named and leaves the rest."""
        user = get_user(self.caller, user_id)
        self.caller.check_may_grant(user.roles)
        changes = self.read(UserChangesIn)
        self.caller.check_may_grant(changes.get("roles", ()))
        if "password" in changes:
            check_new_password(changes["password"], user)
        with transaction.atomic():
            if "password" in changes:  # first: it hashes, and nothing is locked yet
                user = do_set_password(user, changes["password"], self.origin)
            user = do_update_user(user, changes, self.origin)
            if "roles" in changes:
                user = do_set_roles(user, changes["roles"], self.origin)
            if "is_active" in changes:
                user = do_set_active(user, self.origin, is_active=changes["is_active"])
        return Response(UserOut(user).data)

    @operation("erase_user", "Erase a user", status=204, refuses=(422,))
    def delete(self, request: Request, user_id: UUID) -> Response:
        """Erases the account and everything held about it. What was erased is in the audit event."""
        user = get_user(self.caller, user_id)
        self.caller.check_may_grant(user.roles)
        do_erase_user(user, self.origin)
        return Response(status=204)


class UserActivationView(ApiView):
    """Letting a user in."""

    access = {"POST": Scope.USERS_WRITE}
    serializer_class = UserOut
    is_active = True

    @operation("activate_user", "Let a user in again", response=UserOut, answers=examples.USER)
    def post(self, request: Request, user_id: UUID) -> Response:
        """The user may log in again; sessions that ended stay ended."""
        return self._set(user_id)

    def _set(self, user_id: UUID) -> Response:
        user = get_user(self.caller, user_id)
        self.caller.check_may_grant(user.roles)
        return Response(UserOut(do_set_active(user, self.origin, is_active=self.is_active)).data)


class UserDeactivationView(UserActivationView):
    """Shutting a user out."""

    is_active = False

    @override
    @operation(
        "deactivate_user",
        "Shut a user out",
        response=UserOut,
        answers={**examples.USER, "is_active": False},
        refuses=(422,),
    )
    def post(self, request: Request, user_id: UUID) -> Response:
        """Ends every session and closes every socket of the user, within seconds."""
        return self._set(user_id)


class UserRolesView(ApiView):
    """The roles of a user."""

    access = {"PUT": Scope.USERS_WRITE}
    serializer_class = UserOut

    @operation(
        "set_user_roles",
        "Set the roles of a user",
        request=RolesIn,
        response=UserOut,
        sends={"roles": ["user", "staff"]},
        answers={**examples.USER, "roles": ["user", "staff"]},
    )
    def put(self, request: Request, user_id: UUID) -> Response:
        """Replaces all roles. Nobody gives a role above their own, and the last administrator keeps theirs."""
        user = get_user(self.caller, user_id)
        roles: list[str] = self.read(RolesIn)["roles"]
        self.caller.check_may_grant([*user.roles, *roles])
        return Response(UserOut(do_set_roles(user, roles, self.origin)).data)


class UserBatchView(ApiView):
    """Many users at once."""

    access = {"POST": Scope.USERS_WRITE}
    serializer_class = UserBatchOut

    @operation(
        "write_users",
        "Create or update up to 1,000 users",
        request=UserBatchIn,
        response=UserBatchOut,
        sends=examples.BATCH,
        answers=examples.BATCH_ANSWER,
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """A row whose `external_id` is known changes that user, any other row makes one."""
        body = self.read(UserBatchIn)
        tenant = check_tenant(self.caller, body.get("tenant"))
        rows, refused = read_rows(body["items"], UserBatchRowIn)
        written = do_write_batch(rows, self.caller, tenant)
        outcomes = [*written, *(Outcome(index, error.status, error=error) for index, error in refused)]
        return Response({"items": [each.as_row() for each in sorted(outcomes, key=lambda each: each.index)]})
