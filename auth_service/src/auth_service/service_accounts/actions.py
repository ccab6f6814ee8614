from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from auth_service import clock
from auth_service.api.caller import Caller
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import NotFound
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import check_below, do_count, do_forget
from auth_service.service_accounts.errors import NameTaken, ScopeNotGranted
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.models import EndReason, Session
from auth_service.tokens.access_tokens import IssuedAccessToken, issue_access_token
from auth_service.tokens.errors import InvalidCredentials
from auth_service.tokens.secrets import hash_secret, is_secret, make_secret
from shared_contracts.identity_events import IdentityEventType, SessionRevoked
from shared_contracts.ids import new_id
from shared_contracts.scopes import Role, Scope, format_scope

SECRET_PREFIX = "hss"  # noqa: S105 - what scanners look for, no secret
_NO_ACCOUNT_HASH = hash_secret("")


def find_visible_accounts(caller: Caller) -> QuerySet[ServiceAccount]:
    """Those of the caller's tenant; operators see all."""
    accounts = ServiceAccount.objects.all()
    return accounts if caller.is_operator else accounts.filter(tenant_id=caller.tenant)


def get_account(caller: Caller, account_id: UUID) -> ServiceAccount:
    """One account the caller may see.

    Raises:
        NotFound: There is none, or in another tenant.
    """
    account = find_visible_accounts(caller).filter(id=account_id).first()
    if account is None:
        raise NotFound
    return account


def do_create_account(
    *,
    name: str,
    scopes: Iterable[str],
    tenant: str,
    by: Origin,
    client_id: str | None = None,
    secret: str | None = None,
) -> tuple[ServiceAccount, str]:
    """Make an account; answer it and its secret, which is not to be had again.

    Args:
        client_id: None makes one from the name. Given only by the demonstration data, as is `secret`.

    Raises:
        NameTaken: Another account of the tenant has the name.
    """
    secret = secret or make_secret(SECRET_PREFIX)
    account = ServiceAccount(
        tenant_id=tenant,
        name=name,
        client_id=client_id or _make_client_id(name),
        secret_hash=hash_secret(secret),
        scope=format_scope(set(scopes)),
    )
    try:
        with transaction.atomic():
            account.save(force_insert=True)
            do_record(
                Action.SERVICE_ACCOUNT_CREATED,
                by,
                subject=("service_account", account.id),
                tenant=tenant,
                details={"scopes": account.scope.split()},
            )
    except IntegrityError:
        raise NameTaken from None
    return account, secret


def do_update_account(account: ServiceAccount, changes: Mapping[str, Any], by: Origin) -> ServiceAccount:
    """Change name, scopes or activity. Switching it off ends its tokens and the user sessions it opened.

    Raises:
        NameTaken: Another account of the tenant has the name.
    """
    try:
        with transaction.atomic():
            fresh = _get_locked(account.id)
            fresh.name = changes.get("name", fresh.name)
            fresh.scope = format_scope(set(changes.get("scopes", fresh.scope.split())))
            is_disabled = fresh.is_active and changes.get("is_active") is False
            fresh.is_active = changes.get("is_active", fresh.is_active)
            fresh.updated_at = clock.now()
            fresh.save()
            events = _do_end_user_sessions(fresh) if is_disabled else []
            do_record(
                Action.SERVICE_ACCOUNT_UPDATED,
                by,
                subject=("service_account", fresh.id),
                tenant=fresh.tenant_id,
                details={"fields": sorted(changes), "is_active": fresh.is_active, "scopes": fresh.scope.split()},
            )
            do_emit(*events)
    except IntegrityError:
        raise NameTaken from None
    return fresh


def do_rotate_secret(account: ServiceAccount, by: Origin) -> tuple[ServiceAccount, str]:
    """Replace the secret; the old one and every token bought with it are refused from now on."""
    secret = make_secret(SECRET_PREFIX)
    now = clock.now()
    with transaction.atomic():
        fresh = _get_locked(account.id)
        fresh.secret_hash, fresh.secret_rotated_at, fresh.tokens_not_before = hash_secret(secret), now, now
        fresh.updated_at = now
        fresh.save()
        do_record(Action.SERVICE_SECRET_ROTATED, by, subject=("service_account", fresh.id), tenant=fresh.tenant_id)
    return fresh, secret


def do_delete_account(account: ServiceAccount, by: Origin) -> None:
    """Delete an account, and the user sessions it opened."""
    with transaction.atomic():
        fresh = _get_locked(account.id)
        events = _do_end_user_sessions(fresh)
        account_id, tenant = fresh.id, fresh.tenant_id
        fresh.delete()
        do_record(Action.SERVICE_ACCOUNT_DELETED, by, subject=("service_account", account_id), tenant=tenant)
        do_emit(*events)


def do_issue_service_token(client_id: str, secret: str, scope: str | None, by: Origin) -> IssuedAccessToken:
    """Trade id and secret for an access token. There is no refresh: the secret is at hand.

    Raises:
        RateLimited: Too many failures of this client or from this address.
        InvalidCredentials: Unknown, wrong, or switched off: all alike.
        ScopeNotGranted: A scope the account does not have.
    """
    uses = (limits.failed_login_of_account(f"client:{client_id}"), limits.failed_login_from_address(by.ip))
    check_below(*uses)
    account = ServiceAccount.objects.select_related("tenant").filter(client_id=client_id).first()
    is_right = is_secret(secret, account.secret_hash if account else _NO_ACCOUNT_HASH)
    if account is None or not is_right or not account.is_active or not account.tenant.is_active:
        for use in uses:
            do_count(use)
        subject = ("service_account", account.id) if account else None
        do_record(Action.SERVICE_LOGIN_FAILED, by, subject=subject, tenant=account.tenant_id if account else None)
        raise InvalidCredentials
    do_forget(uses[0])
    wanted = {Scope(word) for word in scope.split() if word in set(Scope)} if scope else set(account.scopes)
    if scope and (len(wanted) != len(set(scope.split())) or not wanted <= account.scopes):
        raise ScopeNotGranted
    ServiceAccount.objects.filter(id=account.id).update(last_used_at=clock.now())
    return issue_access_token(
        subject_id=account.id,
        session_id=new_id(),
        roles=[Role.SERVICE],
        scopes=wanted,
        tenant=account.tenant_id,
    )


def _do_end_user_sessions(account: ServiceAccount) -> list[NewEvent]:
    alive = Session.objects.filter(client=account, ended_at=None)
    by_user: dict[UUID, list[UUID]] = {}
    for session_id, user_id in alive.values_list("id", "user_id"):
        by_user.setdefault(user_id, []).append(session_id)
    alive.update(ended_at=clock.now(), end_reason=EndReason.SERVICE_ACCOUNT_DISABLED)
    return [
        NewEvent(
            IdentityEventType.SESSION_REVOKED,
            account.tenant_id,
            SessionRevoked(user_id=user_id, session_ids=tuple(ids), reason=EndReason.SERVICE_ACCOUNT_DISABLED),
        )
        for user_id, ids in by_user.items()
    ]


def _make_client_id(name: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "service"
    return f"{readable}-{secrets.token_hex(6)}"


def _get_locked(account_id: UUID) -> ServiceAccount:
    account = ServiceAccount.objects.select_for_update().filter(id=account_id).first()
    if account is None:
        raise NotFound
    return account
