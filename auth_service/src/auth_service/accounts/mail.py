"""How mails leave: by SMTP, as files in development, or not at all."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.filebased import EmailBackend as FileBackend
from django.core.mail.backends.smtp import EmailBackend as SmtpBackend
from django.template.loader import render_to_string

SMTP_TIMEOUT_S = 10
FOLDER_NAME = "auth-mail"


def make_backend() -> BaseEmailBackend | None:
    """Where mails go by the settings; None when they go nowhere."""
    herald = settings.HERALD
    if herald.email_url is None:
        if herald.is_production:
            return None
        folder = herald.run_dir.resolve() / FOLDER_NAME
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return FileBackend(file_path=str(folder))
    url = urlsplit(herald.email_url.get_secret_value())
    options = parse_qs(url.query)
    implicit_tls = url.scheme == "smtps"
    return SmtpBackend(
        host=url.hostname or "localhost",
        port=url.port or (465 if implicit_tls else 587 if "starttls" in options else 25),
        username=unquote(url.username or ""),
        password=unquote(url.password or ""),
        use_ssl=implicit_tls,
        use_tls=not implicit_tls and options.get("starttls", ["0"])[0] not in {"0", "false"},
        timeout=SMTP_TIMEOUT_S,
    )


def make_message(template: str, to: str, **context: object) -> EmailMessage:
    """One mail: the template's first line is the subject.

    Everything in it comes from checked columns, so that no one can write a header line of their own (F05).
    """
    text = render_to_string(f"mails/{template}.txt", {**context, "base": settings.HERALD.links_start_with})
    subject, _, body = text.partition("\n")
    headers = {"Auto-Submitted": "auto-generated"}  # RFC 3834: out-of-office programs do not answer
    return EmailMessage(subject.strip(), body.strip() + "\n", settings.HERALD.email_from, [to], headers=headers)
