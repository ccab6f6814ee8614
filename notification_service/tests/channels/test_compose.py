"""The mail of a delivery."""

from __future__ import annotations

from email import charset, message_from_bytes
from email.header import decode_header, make_header
from typing import Any

import pytest
from channel_kit import make_message

from notification_service.channels.email.compose import check_recipient, compose
from notification_service.channels.email.smtp import Account, parse_account
from notification_service.channels.interface import SendFailed

SENDER = "Herald Ü <herald@example.com>"


def composed(recipient: str = "ada@example.org", **fields: Any) -> Any:
    return message_from_bytes(compose(make_message(**fields), recipient=recipient, sender=SENDER).content)


def test_a_mail_has_both_texts_and_the_headers_programs_look_for() -> None:
    links = {"unsubscribe": "https://herald.example/api/v1/unsubscribe/" + "x" * 200}
    mail = composed(title="Größe 42 ✓", body="Grüße\n\nzwei", links=links, collapse_key="order-1042")
    assert str(make_header(decode_header(mail["Subject"]))) == "Größe 42 ✓"
    assert mail["To"] == "ada@example.org"
    assert mail["Message-ID"] == "<018f0000-0000-7000-8000-00000000dddd@example.com>"
    assert mail["In-Reply-To"] == mail["References"]
    assert mail["List-Unsubscribe"] == f"<{links['unsubscribe']}>"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["Auto-Submitted"] == "auto-generated"
    plain, html = mail.get_payload()
    assert plain.get_payload(decode=True).decode() == "Grüße\n\nzwei\n"
    assert "<p>Grüße</p><p>zwei</p>" in html.get_payload(decode=True).decode()


def test_a_repeat_is_the_same_byte_for_byte() -> None:
    message = make_message()
    first, second = (compose(message, recipient="ada@example.org", sender=SENDER) for _ in range(2))
    assert first == second


def test_what_other_libraries_change_for_the_whole_process_changes_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    message = make_message(title="Größe 42 ✓", body="Grüße")
    before = compose(message, recipient="ada@example.org", sender=SENDER)
    # As Apprise does when it is loaded.
    monkeypatch.setitem(charset.CHARSETS, "utf-8", (charset.QP, charset.QP, "utf-8"))
    assert compose(message, recipient="ada@example.org", sender=SENDER) == before


def test_mails_of_one_collapse_key_are_one_conversation() -> None:
    references = {composed(collapse_key=key)["References"] for key in ("a", "a", "b")}
    assert len(references) == 2
    assert composed()["References"] is None


def test_addresses_beyond_ascii() -> None:
    mail = compose(make_message(title="Größe"), recipient="ädä@exämple.org", sender=SENDER)
    assert mail.needs_smtputf8
    assert "To: ädä@exämple.org" in mail.content.decode()


def test_no_line_of_a_mail_is_longer_than_programs_take() -> None:
    links = {"unsubscribe": "https://herald.example/" + "x" * 400, "open": "https://herald.example/" + "y" * 400}
    sender = "Herald <herald@example.com>"
    answers = ", ".join(f"person-{number}@example.com" for number in range(60))
    mail = compose(make_message(links=links), recipient="ada@example.org", sender=sender, reply_to=answers)
    # RFC 5322, section 2.1.1: 998 characters, without the end of the line.
    assert max(map(len, mail.content.split(b"\r\n"))) <= 998
    assert "".join(str(message_from_bytes(mail.content)["Reply-To"]).split()) == answers.replace(" ", "")


@pytest.mark.req("F04")
def test_what_is_given_is_escaped_and_links_are_of_known_schemes() -> None:
    actions = [
        {"id": "a", "label": "<b>go</b>", "url": "https://shop.example/?a=1&b=2"},
        {"id": "b", "label": "no", "url": "javascript:alert(1)"},
        {"id": "c", "label": "no", "url": None},
    ]
    data = {
        "attachments": [{"name": "invoice.pdf", "url": "https://files.example/1"}, "x", {"url": "data:text/html,x"}]
    }
    mail = composed(body="<script>alert(1)</script>", actions=actions, data=data)
    html = mail.get_payload()[1].get_payload()
    assert "&lt;script&gt;" in html
    assert '<a href="https://shop.example/?a=1&amp;b=2">&lt;b&gt;go&lt;/b&gt;</a>' in html
    assert "invoice.pdf" in html
    for word in ("<script", "javascript:", "data:text"):
        assert word not in html


@pytest.mark.req("F05")
@pytest.mark.parametrize("title", ["a\r\nBcc: eve@example.org", "a\nb", "a\rb", "a\x00b", "a\x7f"])
def test_no_line_break_gets_into_a_header(title: str) -> None:
    with pytest.raises(SendFailed):
        compose(make_message(title=title), recipient="ada@example.org", sender=SENDER)


@pytest.mark.req("F05")
@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@local",
        "a@x.org,b@x.org",
        "a b@x.org",
        "<a@x.org>",
        "a@x.org\r\nx: y",
        "a@@x.org",
    ],
)
def test_what_is_not_one_address(address: str) -> None:
    with pytest.raises(ValueError, match="one e-mail address"):
        check_recipient(address)


def test_long_lines_are_sent_in_a_form_that_every_server_takes() -> None:
    content = compose(make_message(body="x" * 5000), recipient="ada@example.org", sender=SENDER).content
    assert max(len(line) for line in content.split(b"\r\n")) <= 998


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("smtp://mail.example", Account("mail.example", 25)),
        ("smtp://u:p%40ss@mail.example:2525", Account("mail.example", 2525, False, False, "u", "p@ss")),
        ("smtps://mail.example", Account("mail.example", 465, True)),
        ("smtp://mail.example?starttls=1", Account("mail.example", 587, False, True)),
    ],
)
def test_reading_an_account(url: str, account: Account) -> None:
    assert parse_account(url) == account


@pytest.mark.parametrize("url", ["http://x", "smtp://", "smtps://x?starttls=1"])
def test_what_is_no_account(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text differs
        parse_account(url)
