from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from auth_service import clock
from auth_service.accounts.models import User
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import NotFound
from auth_service.identity_events.actions import NewEvent, do_emit
from auth_service.service_accounts.models import ServiceAccount
from auth_service.sessions.devices import Device
from auth_service.sessions.models import EndReason, Session
from shared_contracts.identity_events import IdentityEventType, NewDeviceLogin, SessionRevoked


def find_sessions(user_id: UUID) -> QuerySet[Session]:
    """The user's living sessions."""
    return Session.objects.filter(user_id=user_id).alive(clock.now())


def get_session(user_id: UUID, session_id: UUID) -> Session:
    """One living session of this user.

    Raises:
        NotFound: It is over, or someone else's.
    """
    session = find_sessions(user_id).filter(id=session_id).first()
    if session is None:
        raise NotFound
    return session


def make_session(user: User, device: Device, *, client: ServiceAccount | None = None) -> Session:
    """A new session, not written yet."""
    now = clock.now()
    device = device.trimmed()
    return Session(
        user=user,
        client=client,
        device_id=device.id,
        device_key=device.key,
        device_name=device.name,
        ip=device.ip,
        user_agent=device.user_agent,
        created_at=now,
        last_seen_at=now,
        expires_at=now + settings.HERALD.session_lifetime,
    )


def do_open_session(user: User, device: Device) -> tuple[Session, list[NewEvent]]:
    """Begin a session; the events are for the caller to emit.

    A user's very first login is no news; every later one from a device not seen before is.
    """
    session = make_session(user, device)
    known = Session.objects.filter(user=user)
    is_news = known.exists() and not known.filter(device_key=session.device_key).exists()
    session.save(force_insert=True)
    return session, [_new_device_event(user, session)] if is_news else []


def do_end_session(session: Session, reason: EndReason, by: Origin) -> None:
    """End one session: its refresh tokens, its access tokens, its sockets. Ending it twice changes nothing."""
    with transaction.atomic():
        ended = Session.objects.filter(id=session.id, ended_at=None).update(ended_at=clock.now(), end_reason=reason)
        if not ended:
            return
        tenant = session.user.tenant_id
        do_record(
            Action.SESSION_ENDED,
            by,
            subject=("session", session.id),
            tenant=tenant,
            details={"reason": reason, "user_id": str(session.user_id)},
        )
        do_emit(make_revoked_event(session.user, reason, session_id=session.id))


def do_end_all_sessions(user: User, reason: EndReason, *, except_id: UUID | None = None) -> NewEvent:
    """End every session of the user but one, inside the caller's transaction; the event is for the caller to emit."""
    now = clock.now()
    ending = Session.objects.filter(user=user, ended_at=None)
    if except_id is not None:
        ending = ending.exclude(id=except_id)
    ending.update(ended_at=now, end_reason=reason)
    return make_revoked_event(user, reason, except_id=except_id)


def do_log_out_everywhere(user: User, by: Origin, *, reason: EndReason = EndReason.LOGOUT_ALL) -> None:
    """End every session of the user."""
    with transaction.atomic():
        event = do_end_all_sessions(user, reason)
        do_record(
            Action.SESSION_ENDED,
            by,
            subject=("user", user.id),
            tenant=user.tenant_id,
            details={"reason": reason, "all": True},
        )
        do_emit(event)


def make_revoked_event(
    user: User, reason: EndReason, *, session_id: UUID | None = None, except_id: UUID | None = None
) -> NewEvent:
    """`session.revoked` for one session, or for all of the user but one."""
    if session_id is not None:
        data = SessionRevoked(user_id=user.id, session_ids=(session_id,), reason=reason)
    elif except_id is not None:
        data = SessionRevoked(user_id=user.id, session_ids=None, except_session_id=except_id, reason=reason)
    else:
        data = SessionRevoked(user_id=user.id, session_ids=None, reason=reason)
    return NewEvent(IdentityEventType.SESSION_REVOKED, user.tenant_id, data)


def _new_device_event(user: User, session: Session) -> NewEvent:
    return NewEvent(
        IdentityEventType.LOGIN_NEW_DEVICE,
        user.tenant_id,
        NewDeviceLogin(
            user_id=user.id,
            session_id=session.id,
            device_name=session.device_name,
            ip=session.ip,
            user_agent=session.user_agent or None,
        ),
        subject_id=user.id,
    )
