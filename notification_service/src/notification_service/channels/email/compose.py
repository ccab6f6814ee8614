"""The mail of one delivery: multipart, threaded, one-click unsubscribe, the same bytes on every attempt. Pure."""

from __future__ import annotations

import base64
import html
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.charset import BASE64, SHORTEST, Charset
from email.errors import MessageError
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from typing import Any, Final

from notification_service.channels.interface import Message, reject
from shared_contracts.error_codes import Reason

_LINK_SCHEMES: Final = ("https://", "http://", "mailto:", "tel:")
_MAX_LINE: Final = 900
"""Characters of a line. Links must stay in one piece, and folding at 78 would break them; RFC 5322 allows 998."""

_INTERNATIONAL: Final = SMTPUTF8.clone(max_line_length=_MAX_LINE)
_BREAK: Final = re.compile(r"\r\n|\r|\n")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_ADDRESS: Final = re.compile(r"""[\x00-\x20,;<>()[\]\\"]""")
_LABEL: Final = re.compile(r"[^\W_](?:[\w-]{0,61}[^\W_])?")
_UTF8: Final = Charset("utf-8")
# Said here, because other libraries (Apprise) change it for the whole process, and a repeat would be another mail.
_UTF8.header_encoding, _UTF8.body_encoding = SHORTEST, BASE64
_Headers = list[tuple[str, str]]
_Texts = tuple[tuple[str, str], ...]
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
    sender_address = _address_of(sender)
    domain = sender_address.rpartition("@")[2] or "herald.invalid"
    message_id = f"<{message.delivery_id}@{domain}>"
    try:
        headers = _make_headers(message, recipient=recipient, sender=sender, reply_to=reply_to, message_id=message_id)
    except (ValueError, MessageError, IndexError) as error:
        raise reject(f"a header cannot be made: {error}", reason=Reason.TEMPLATE_ERROR) from None
    texts = (("plain", _plain(message)), ("html", message.html or _as_html(message)))
    # Not at random: a repeat is the same, byte for byte.
    boundary = f"=_{message.delivery_id.hex}"
    is_international = not recipient.isascii()
    make = _encode_international if is_international else _encode
    return Mail(sender_address, recipient, make(headers, texts, boundary), message_id, is_international)


def _encode(headers: _Headers, texts: _Texts, boundary: str) -> bytes:
    """Line by line: a tenth of the time of the standard library's generator, which parses and folds every header anew.

    What is plain stays as it is, so that links stay in one piece; long or foreign words and lines are encoded.
    """
    lines = [_header(name, value) for name, value in headers]
    lines += ["MIME-Version: 1.0", f'Content-Type: multipart/alternative; boundary="{boundary}"', ""]
    for subtype, text in texts:
        lines.append(f"--{boundary}")
        is_plain = text.isascii() and len(max(_BREAK.split(text), key=len)) <= _MAX_LINE
        charset, encoding = ("us-ascii", "7bit") if is_plain else ("utf-8", "base64")
        lines += [f'Content-Type: text/{subtype}; charset="{charset}"', f"Content-Transfer-Encoding: {encoding}", ""]
        lines.append(_BREAK.sub("\r\n", text) if is_plain else _base64(text))
    lines += [f"--{boundary}--", ""]
    return "\r\n".join(lines).encode("ascii")


def _header(name: str, value: str) -> str:
    if not value.isascii():
        value = Header(value, _UTF8, header_name=name).encode(linesep="\r\n")
    elif len(value) > _MAX_LINE:
        value = Header(value, header_name=name, maxlinelen=_MAX_LINE).encode(linesep="\r\n")
    return f"{name}: {value}"


def _base64(text: str) -> str:
    # A surrogate alone is no character: what cannot be encoded is shown as a question mark.
    return base64.encodebytes(text.encode(errors="replace")).decode().replace("\n", "\r\n").rstrip()


def _encode_international(headers: _Headers, texts: _Texts, boundary: str) -> bytes:
    """With addresses beyond ASCII (RFC 6532)."""
    mail = EmailMessage(policy=_INTERNATIONAL)
    for name, value in headers:
        mail[name] = value
    mail.set_content(texts[0][1])
    mail.add_alternative(texts[1][1], subtype="html")
    mail.set_boundary(boundary)
    return mail.as_bytes()


def check_recipient(address: str) -> str:
    """The address, when it is exactly one.

    Raises:
        ValueError: It is not.
    """
    if len(address) > 320 or _NOT_IN_ADDRESS.search(address):
        raise ValueError("must be one e-mail address")
    name, _, domain = address.rpartition("@")
    is_dotted = all(part for part in (*name.split("."), *domain.split("."))) and "." in domain
    if not is_dotted or "@" in name or not all(map(_LABEL.fullmatch, domain.split("."))):
        raise ValueError("must be one e-mail address")
    return f"{name}@{domain.lower()}"


@lru_cache(maxsize=16)
def _address_of(sender: str) -> str:
    return parseaddr(sender)[1]


@lru_cache(maxsize=16)
def _format_sender(sender: str) -> str:
    return formataddr(parseaddr(sender), _UTF8)


def _make_headers(message: Message, *, recipient: str, sender: str, reply_to: str | None, message_id: str) -> _Headers:
    domain = message_id.rpartition("@")[2].rstrip(">")
    headers = [
        ("From", _format_sender(sender)),
        ("To", check_recipient(recipient)),
        ("Subject", message.title),
        ("Date", format_datetime(message.created_at)),
        ("Message-ID", message_id),
        # RFC 3834: no vacation answers, please.
        ("Auto-Submitted", "auto-generated"),
        ("Content-Language", message.locale),
        ("X-Herald-Notification", str(message.notification_id)),
    ]
    if reply_to:
        headers.append(("Reply-To", reply_to))
    if message.collapse_key is not None:
        # Mails of one collapse key are one conversation: they all answer the same message, which nobody ever sent.
        thread = uuid.uuid5(_NAMESPACE, f"{message.tenant}:{message.user_id}:{message.collapse_key}")
        reference = f"<thread.{thread}@{domain}>"
        headers += [("In-Reply-To", reference), ("References", reference)]
    if unsubscribe := message.links.get("unsubscribe"):
        # RFC 8058: the mail program posts, so that a scanner that follows links unsubscribes nobody.
        headers += [
            ("List-Unsubscribe", f"<{unsubscribe}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ]
    for name, value in headers:
        if _CONTROL.search(value):
            raise ValueError(f"{name} must be one line without control characters")
    return headers


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
