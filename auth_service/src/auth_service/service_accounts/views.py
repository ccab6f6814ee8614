from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from auth_service.accounts.actions import check_tenant
from auth_service.api.access import Access
from auth_service.api.batches import read_rows
from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.errors import PermissionDenied
from auth_service.service_accounts.actions import (
    do_create_account,
    do_delete_account,
    do_issue_service_token,
    do_rotate_secret,
    do_update_account,
    find_visible_accounts,
    get_account,
)
from auth_service.service_accounts.models import ServiceAccount
from auth_service.service_accounts.serializers import (
    ServiceAccountChangesIn,
    ServiceAccountIn,
    ServiceAccountOut,
    ServiceAccountWithSecretOut,
    ServiceTokenIn,
    ServiceTokenOut,
    UserTokenRowIn,
    UserTokensIn,
    UserTokensOut,
)
from auth_service.service_accounts.user_token_actions import UserToken, do_issue_user_tokens
from auth_service.sessions.devices import Device
from shared_contracts.scopes import Scope

_ACCOUNT = {
    "id": "0192f6a0-c0de-7abc-8def-0000000000cc",
    "name": "shop",
    "client_id": "shop-1f2e3d4c5b6a",
    "scopes": ["notifications:send"],
    "is_active": True,
    "tenant": "default",
    "created_at": "2026-01-02T03:04:05Z",
    "secret_rotated_at": "2026-01-02T03:04:05Z",
    "last_used_at": None,
}
_WITH_SECRET = {**_ACCOUNT, "client_secret": "hss_..."}
_USER_ID = "0192f6a0-c0de-7abc-8def-0123456789ab"


class ServiceAccountsView(ApiView):
    """The service accounts of a tenant."""

    access = {"GET": Access.ADMIN, "POST": Access.ADMIN}
    serializer_class = ServiceAccountOut
    pagination_class = CursorPages
    orderings = ("created_at", "-created_at")

    @override
    def get_queryset(self) -> QuerySet[ServiceAccount]:
        """Those the caller may see."""
        if getattr(self, "swagger_fake_view", False):
            return ServiceAccount.objects.none()
        return find_visible_accounts(self.caller)

    @operation(
        "list_service_accounts",
        "List service accounts",
        response=ServiceAccountOut(many=True),
        answers=_ACCOUNT,
    )
    def get(self, request: Request) -> Response:
        """Never with their secrets: those are not kept."""
        page = self.paginate_queryset(self.get_queryset()) or []
        return self.get_paginated_response(ServiceAccountOut(page, many=True).data)

    @operation(
        "create_service_account",
        "Make a service account",
        request=ServiceAccountIn,
        response=ServiceAccountWithSecretOut,
        status=201,
        sends={"name": "shop", "scopes": ["notifications:send"]},
        answers=_WITH_SECRET,
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """The secret is shown this once."""
        fields = self.read(ServiceAccountIn)
        tenant = check_tenant(self.caller, fields.get("tenant"))
        account, secret = do_create_account(name=fields["name"], scopes=fields["scopes"], tenant=tenant, by=self.origin)
        return Response({**ServiceAccountOut(account).data, "client_secret": secret}, status=201)


class ServiceAccountView(ApiView):
    """One service account."""

    access = {"GET": Access.ADMIN, "PATCH": Access.ADMIN, "DELETE": Access.ADMIN}
    serializer_class = ServiceAccountOut

    @operation("get_service_account", "Read a service account", response=ServiceAccountOut, answers=_ACCOUNT)
    def get(self, request: Request, account_id: UUID) -> Response:
        """Without its secret."""
        return Response(ServiceAccountOut(get_account(self.caller, account_id)).data)

    @operation(
        "change_service_account",
        "Change a service account",
        request=ServiceAccountChangesIn,
        response=ServiceAccountOut,
        sends={"is_active": False},
        answers={**_ACCOUNT, "is_active": False},
        refuses=(409,),
    )
    def patch(self, request: Request, account_id: UUID) -> Response:
        """Scopes that are taken away stop counting at once, also in tokens issued before."""
        account = get_account(self.caller, account_id)
        changed = do_update_account(account, self.read(ServiceAccountChangesIn), self.origin)
        return Response(ServiceAccountOut(changed).data)

    @operation("delete_service_account", "Delete a service account", status=204)
    def delete(self, request: Request, account_id: UUID) -> Response:
        """Its tokens, and the user sessions it opened, end at once."""
        do_delete_account(get_account(self.caller, account_id), self.origin)
        return Response(status=204)


class SecretRotationView(ApiView):
    """A new secret."""

    access = {"POST": Access.ADMIN}
    serializer_class = ServiceAccountWithSecretOut

    @operation(
        "rotate_service_secret", "Replace the secret", response=ServiceAccountWithSecretOut, answers=_WITH_SECRET
    )
    def post(self, request: Request, account_id: UUID) -> Response:
        """The old secret and every token bought with it are refused from now on."""
        account, secret = do_rotate_secret(get_account(self.caller, account_id), self.origin)
        return Response({**ServiceAccountOut(account).data, "client_secret": secret})


class ServiceTokenView(ApiView):
    """Programs that log in."""

    access = {"POST": Access.PUBLIC}
    serializer_class = ServiceTokenOut

    @operation(
        "issue_service_token",
        "Log a service account in",
        request=ServiceTokenIn,
        response=ServiceTokenOut,
        sends={"client_id": "shop", "client_secret": "hss_..."},
        answers={"access": "eyJ...", "token_type": "Bearer", "expires_in": 900, "scope": "notifications:send"},
        refuses=(401, 403, 429),
    )
    def post(self, request: Request) -> Response:
        """There is no refresh token: the secret is at hand."""
        fields = self.read(ServiceTokenIn)
        issued = do_issue_service_token(fields["client_id"], fields["client_secret"], fields.get("scope"), self.origin)
        return Response(
            {
                "access": issued.token,
                "token_type": "Bearer",
                "expires_in": issued.expires_in_s,
                "scope": issued.claims.scope,
            }
        )


class UserTokensView(ApiView):
    """Tokens for users an application has logged in by itself."""

    access = {"POST": Scope.TOKENS_ISSUE}
    serializer_class = UserTokensOut

    @operation(
        "issue_user_tokens",
        "Issue access tokens for up to 500 users",
        request=UserTokensIn,
        response=UserTokensOut,
        sends={"items": [{"external_id": "customer-42", "device_id": "web"}]},
        answers={
            "items": [
                {
                    "index": 0,
                    "status": 201,
                    "user_id": _USER_ID,
                    "external_id": "customer-42",
                    "access": "eyJ...",
                    "expires_in": 900,
                    "session_id": "0192f6a0-c0de-7abc-8def-0000000000bb",
                }
            ]
        },
    )
    def post(self, request: Request) -> Response:
        """For applications that log their users in themselves. Not for users with more rights than the account."""
        if self.caller.service_account is None:
            raise PermissionDenied
        rows, refused = read_rows(self.read(UserTokensIn)["items"], UserTokenRowIn)
        device = Device(ip=self.origin.ip, user_agent=self.origin.user_agent)
        tokens = do_issue_user_tokens(rows, self.caller, device) if rows else []
        tokens += [UserToken(index, error=error) for index, error in refused]
        return Response({"items": [token.as_row() for token in sorted(tokens, key=lambda token: token.index)]})
