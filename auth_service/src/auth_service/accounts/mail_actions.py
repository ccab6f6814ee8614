"""Mails to people: asked for by requests, sent by the background process.

A request only leaves a row. The account is looked up, and the link made, when the mail is sent, so that a known address
takes no longer to answer than an unknown one, and no link is ever stored.
"""

from __future__ import annotations

from datetime import timedelta
from smtplib import SMTPException

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from auth_service import clock
from auth_service.accounts.lookup import find_by_email
from auth_service.accounts.mail import make_backend, make_message
from auth_service.accounts.models import LinkPurpose, MailedLink, MailJob, MailKind, User
from auth_service.accounts.names import make_email_key
from auth_service.metrics import MAILS
from auth_service.tokens.secrets import hash_secret, make_secret

log = structlog.get_logger(__name__)

LINK_PREFIX = "hml"
BATCH_SIZE = 50
BATCH_LIFETIME = timedelta(seconds=40)
"""With the ten seconds one mail may take: less than the lease's minute, after which another process sends the rest."""
MAX_ATTEMPTS = 10
"""With the pauses below: about eight hours. Then the mail is given up, and whoever waits for it asks again."""
_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(hours=2)


def do_ask_for_mail(kind: MailKind, address: str, *, user: User | None = None) -> None:
    """Leave a mail to be sent; the same statement for a known and for an unknown address."""
    MailJob.objects.create(kind=kind, address=address, user=user)


def do_send_due_mails() -> int:
    """Send what is due, as far as the mail server takes it; answer how many left."""
    backend = make_backend()
    started = clock.now()
    jobs = list(MailJob.objects.filter(due_at__lte=started).select_related("user").order_by("due_at")[:BATCH_SIZE])
    sent = 0
    for job in jobs:
        if clock.now() - started >= BATCH_LIFETIME:
            break
        if _do_send(job, backend):
            sent += 1
    return sent


def do_prune_links() -> int:
    """Delete links that are past their time; answer how many."""
    return MailedLink.objects.filter(expires_at__lt=clock.now()).delete()[0]


def _do_send(job: MailJob, backend: BaseEmailBackend | None) -> bool:
    message = _make_mail(job)
    if message is None or backend is None:
        if message is not None:
            log.warning("mail_not_sent", kind=job.kind, reason="AUTH_EMAIL_URL is not set")
        job.delete()
        return False
    try:
        backend.send_messages([message])
    except (SMTPException, OSError) as error:
        MAILS.labels(outcome="failed").inc()
        _do_postpone(job, error)
        return False
    MAILS.labels(outcome="sent").inc()
    log.info("mail_sent", kind=job.kind, mail_job_id=str(job.id))
    job.delete()
    return True


def _do_postpone(job: MailJob, error: Exception) -> None:
    job.attempts += 1
    if job.attempts >= MAX_ATTEMPTS:
        log.error("mail_given_up", kind=job.kind, mail_job_id=str(job.id), error=type(error).__name__)
        job.delete()
        return
    pause = min(_FIRST_PAUSE * 2 ** (job.attempts - 1), _LONGEST_PAUSE)
    job.due_at = clock.now() + pause
    job.save(update_fields=["attempts", "due_at"])
    log.warning("mail_postponed", kind=job.kind, error=type(error).__name__, again_in=str(pause))


def _make_mail(job: MailJob) -> EmailMessage | None:
    """The mail, with a fresh link in it; None when there is nobody to write to."""
    match MailKind(job.kind):
        case MailKind.PASSWORD_RESET:
            return _make_reset_mail(job)
        case MailKind.EMAIL_VERIFICATION:
            return _make_verification_mail(job)
        case MailKind.PASSWORD_CHANGED:
            user = job.user
            return make_message("password_changed", user.email, user=user) if user and user.email else None
        case MailKind.EMAIL_CHANGED:
            return make_message("email_changed", job.address, user=job.user) if job.user else None


def _make_reset_mail(job: MailJob) -> EmailMessage | None:
    user = find_by_email(job.address)
    if user is None or not user.email or not user.is_active or not user.tenant.is_active:
        return None
    token = _do_make_link(user, LinkPurpose.PASSWORD_RESET, settings.HERALD.reset_lifetime)
    return make_message("password_reset", user.email, user=user, token=token)


def _make_verification_mail(job: MailJob) -> EmailMessage | None:
    user = job.user or find_by_email(job.address)
    if user is None or not user.email or user.email_verified or not user.is_active:
        return None
    owner = find_by_email(user.email)
    if owner is not None and owner.email_verified and owner.email:
        # Whoever has proved this address learns that someone else uses it; nobody else learns anything (B03).
        return make_message("address_in_use", owner.email, user=owner)
    token = _do_make_link(user, LinkPurpose.EMAIL_VERIFICATION, settings.HERALD.verify_lifetime)
    return make_message("email_verification", user.email, user=user, token=token)


def _do_make_link(user: User, purpose: LinkPurpose, lifetime: timedelta) -> str:
    token = make_secret(LINK_PREFIX)
    MailedLink.objects.create(
        user=user,
        purpose=purpose,
        token_hash=hash_secret(token),
        email_key=make_email_key(user.email or ""),
        expires_at=clock.now() + lifetime,
    )
    return token
