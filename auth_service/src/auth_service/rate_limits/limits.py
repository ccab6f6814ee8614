"""The limits, from the settings. Functions, so that tests that change a setting see the change."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv6Address, ip_address

from django.conf import settings

from auth_service.config.environment import AuthSettings
from auth_service.rate_limits.actions import Limit, Use

_MINUTE = timedelta(minutes=1)


def _settings() -> AuthSettings:
    return settings.HERALD


def address_key(ip: str | None) -> str:
    """What counts as one address: an IPv6 user owns a whole /64 and could change addresses at will."""
    if ip is None:
        return "unknown"
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return address.exploded[:19]
    return str(address)


def failed_login_of_account(key: str) -> Use:
    """Keyed by the account when the name belongs to one, else by the name: both act alike from outside."""
    return Use(Limit("login-account", _settings().login_failures_per_account, timedelta(minutes=5)), key)


def failed_login_from_address(ip: str | None) -> Use:
    """Guessing many accounts from one place."""
    return Use(Limit("login-address", _settings().login_failures_per_address, _MINUTE), address_key(ip))


def failed_password_check(user_id: str) -> Use:
    """Guessing the current password with a stolen access token."""
    return Use(Limit("password-check", _settings().login_failures_per_account, timedelta(minutes=5)), user_id)


def registration_from_address(ip: str | None) -> Use:
    """Accounts made in bulk."""
    return Use(Limit("register-address", _settings().registrations_per_minute, _MINUTE), address_key(ip))


def mail_from_address(ip: str | None) -> Use:
    """Mails to strangers."""
    return Use(Limit("mail-address", _settings().reset_per_address, _MINUTE), address_key(ip))


def mail_to_account(email_key: str) -> Use:
    """Mails that flood one mailbox; counted for unknown addresses too, so that both act alike."""
    return Use(Limit("mail-account", _settings().reset_per_account, _MINUTE), email_key)


def export_of_user(user_id: str) -> Use:
    """An export reads everything there is, in both services."""
    return Use(Limit("export-user", 10, _MINUTE), user_id)


def wrong_internal_key(ip: str | None) -> Use:
    """Guessing the internal service key."""
    return Use(Limit("internal-key", _settings().internal_failures_per_address, _MINUTE), address_key(ip))
