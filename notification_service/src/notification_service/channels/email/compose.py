"""The mail of one delivery: multipart, threaded, one-click unsubscribe, the same bytes on every attempt. Pure."""

from __future__ import annotations

import html
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address as Mailbox
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any, Final

from notification_service.channels.interface import Message, reject
from shared_contracts.error_codes import Reason

_LINK_SCHEMES: Final = ("https://", "http://", "mailto:", "tel:")
# 900: links must stay in one piece, and folding at 78 would make encoded words of them. RFC 5322 allows 998.
_POLICY: Final = SMTP.clone(max_line_length=900)
_POLICY_UTF8: Final = _POLICY.clone(utf8=True)
_NAMESPACE: Final = uuid.UUID("5b1c7e0a-6f0e-4a52-9f43-3b6c1de1a001")


@dataclass(frozen=True, slots=True)
class Mail:
    """What the SMTP server is told."""

    sender: str
    recipient: str = field(repr=False)
    content: bytes = field(repr=False)
    message_id: str
    needs_smtputf8: bool = False


def compose(message: Message, *, recipient: str, sender: str, reply_to: str | None = None) -> Mail:
    """Make the mail.

    Args:
        message: What to say.
        recipient: One address.
        sender: `Name <address>` or an address.
        reply_to: The same, for answers.

    Raises:
        SendFailed: A header cannot be made of what was given (a line break in the title, for example).
    """
    domain = parseaddr(sender)[1].rpartition("@")[2] or "herald.invalid"
    message_id = f"<{message.delivery_id}@{domain}>"
    mail = EmailMessage(policy=_POLICY)
    try:
        _add_headers(mail, message, recipient=recipient, sender=sender, reply_to=reply_to, message_id=message_id)
    except (ValueError, MessageError, IndexError) as error:
        raise reject(f"a header cannot be made: {error}", reason=Reason.TEMPLATE_ERROR) from None
    mail.set_content(_plain(message))
    mail.add_alternative(message.html or _as_html(message), subtype="html")
    is_international = not recipient.isascii()
    content = mail.as_bytes(policy=_POLICY_UTF8 if is_international else _POLICY)
    return Mail(parseaddr(sender)[1], recipient, content, message_id, is_international)


def check_recipient(address: str) -> str:
    """The address, when it is exactly one.

    Raises:
        ValueError: It is not.
    """
    if any(ord(character) < 33 or character in ',;<>()[]\\"' for character in address) or len(address) > 320:
        raise ValueError("must be one e-mail address")
    try:
        mailbox = Mailbox(addr_spec=address)
    except (ValueError, MessageError, IndexError):
        raise ValueError("must be one e-mail address") from None
    if not mailbox.username or "." not in mailbox.domain.strip("."):
        raise ValueError("must be one e-mail address")
    return f"{mailbox.username}@{mailbox.domain.lower()}"


def _add_headers(
    mail: EmailMessage, message: Message, *, recipient: str, sender: str, reply_to: str | None, message_id: str
) -> None:
    name, address = parseaddr(sender)
    domain = message_id.rpartition("@")[2].rstrip(">")
    mail["From"] = Mailbox(name, addr_spec=address)
    mail["To"] = Mailbox(addr_spec=check_recipient(recipient))
    if reply_to:
        mail["Reply-To"] = reply_to
    mail["Subject"] = message.title
    mail["Date"] = format_datetime(message.created_at)
    mail["Message-ID"] = message_id
    if message.collapse_key is not None:
        # Mails of one collapse key are one conversation: they all answer the same message, which nobody ever sent.
        thread = uuid.uuid5(_NAMESPACE, f"{message.tenant}:{message.user_id}:{message.collapse_key}")
        mail["In-Reply-To"] = mail["References"] = f"<thread.{thread}@{domain}>"
    # RFC 3834: no vacation answers, please.
    mail["Auto-Submitted"] = "auto-generated"
    mail["Content-Language"] = message.locale
    mail["X-Herald-Notification"] = str(message.notification_id)
    if unsubscribe := message.links.get("unsubscribe"):
        # RFC 8058: the mail program posts, so that a scanner that follows links unsubscribes nobody.
        mail["List-Unsubscribe"] = f"<{unsubscribe}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"


def _plain(message: Message) -> str:
    lines = [message.body]
    lines += [f"{label}: {url}" for label, url in _links(message)]
    return "\n\n".join(filter(None, lines)) + "\n"


def _as_html(message: Message) -> str:
    """For templates without HTML of their own: everything is escaped, links are of known schemes (requirement F04)."""
    paragraphs = "".join(
        f"<p>{html.escape(part).replace(chr(10), '<br>')}</p>" for part in message.body.split("\n\n") if part
    )
    links = "".join(
        f'<p><a href="{html.escape(url, quote=True)}">{html.escape(label)}</a></p>' for label, url in _links(message)
    )
    title = html.escape(message.title)
    return (
        f'<!DOCTYPE html><html lang="{html.escape(message.locale, quote=True)}"><head><meta charset="utf-8">'
        f"<title>{title}</title></head><body><h1>{title}</h1>{paragraphs}{links}</body></html>"
    )


def _links(message: Message) -> list[tuple[str, str]]:
    """Actions, and attachments, which are sent as links: nobody's mailbox fills up, and access can end."""
    attachments = message.data.get("attachments")
    found: list[tuple[Any, Any]] = [(each.get("label"), each.get("url")) for each in message.actions]
    if isinstance(attachments, Sequence) and not isinstance(attachments, str):
        found += [(each.get("name"), each.get("url")) for each in attachments if isinstance(each, dict)]
    return [
        (label or url, url)
        for label, url in found
        if isinstance(url, str) and url.lower().startswith(_LINK_SCHEMES) and isinstance(label or url, str)
    ]
