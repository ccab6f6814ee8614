from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction

from auth_service import clock
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import SYSTEM
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.tokens.access_tokens import key_folder
from auth_service.tokens.keys import SigningKey
from auth_service.tokens.models import GlobalCutOff
from shared_contracts.claims import DEFAULT_TENANT
from shared_contracts.identity_events import IdentityEventType, KeyRotated

log = structlog.get_logger(__name__)


def do_rotate_keys(*, retire_others: bool = False, publish_ahead: timedelta | None = None) -> SigningKey:
    """Add a signing key. It is published now and signs after the publish-ahead time, so that nobody is surprised.

    Args:
        retire_others: For a key that has leaked: the new key signs at once and every other is refused at once, and
            with it every token it signed.
        publish_ahead: None takes the setting.
    """
    herald = settings.HERALD
    ahead = herald.key_publish_ahead if publish_ahead is None else publish_ahead
    key = key_folder().rotate(herald.signing_algorithm, publish_ahead=ahead, retire_others=retire_others)
    with transaction.atomic():
        details = {"kid": key.kid, "algorithm": key.algorithm, "retired_others": retire_others}
        do_record(Action.KEY_ROTATED, SYSTEM, subject=("key", key.kid), details=details)
        do_emit(NewEvent(IdentityEventType.KEY_ROTATED, DEFAULT_TENANT, KeyRotated(kid=key.kid)))
    log.info("signing_key_rotated", kid=key.kid, algorithm=key.algorithm, active_from=key.active_from.isoformat())
    return key


def do_cut_off_all_tokens() -> None:
    """Refuse every token issued until now, whoever it belongs to. Sessions go on: their next refresh works."""
    with transaction.atomic():
        GlobalCutOff.objects.update_or_create(id=1, defaults={"tokens_not_before": clock.now()})
        do_record(Action.ALL_TOKENS_CUT_OFF, SYSTEM, subject=("tokens", "all"))
        do_emit(make_look_again_event())
    log.warning("all_tokens_cut_off")


def make_look_again_event() -> NewEvent:
    """Has every gateway look at every token again, as after a rotation: the key named is the one that signs now."""
    kid = key_folder().ensure(settings.HERALD.signing_algorithm).signing_key(clock.now()).kid
    return NewEvent(IdentityEventType.KEY_ROTATED, DEFAULT_TENANT, KeyRotated(kid=kid))
