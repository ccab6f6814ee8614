"""What is said to SMTP servers, in groups of commands and one by one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import aiosmtplib
import pytest
from aiosmtpd.smtp import SMTP
from channel_kit import MailSink, mail_sink
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from notification_service.channels.email.compose import Mail
from notification_service.channels.email.smtp import Account, SmtpPool
from notification_service.clock import SystemClock

MAIL = Mail("herald@example.com", "ada@example.org", b"Subject: x\r\n\r\nHello\r\n", "<1@example.com>")
BOTH = pytest.mark.parametrize("takes_groups", [True, False], ids=["groups", "one-by-one"])


@contextlib.asynccontextmanager
async def pool_of(port: int) -> AsyncIterator[SmtpPool]:
    pool = SmtpPool(Account("127.0.0.1", port), SystemClock())
    yield pool
    await pool.close()


@contextlib.asynccontextmanager
async def scripted(answers: Sequence[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers line after line as told, and hangs up; its port, and what it was told."""
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 sink.example\r\n")
        for answer in answers:
            told.append(await reader.readline())
            writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], told
    finally:
        server.close()


@pytest.fixture
async def sink() -> AsyncIterator[MailSink]:
    async with mail_sink() as running:
        yield running


@BOTH
async def test_mails_follow_each_other_on_one_connection(sink: MailSink, *, takes_groups: bool) -> None:
    sink.takes_groups = takes_groups
    async with pool_of(sink.port) as pool:
        for _ in range(3):
            await pool.send(MAIL)
    assert sink.sessions == 1
    assert [mail.content for mail in sink.mails] == [MAIL.content] * 3
    assert [(mail.mail_from, mail.rcpt_tos) for mail in sink.mails] == [(MAIL.sender, [MAIL.recipient])] * 3


@BOTH
async def test_a_refused_mail_leaves_the_connection_to_the_next_one(sink: MailSink, *, takes_groups: bool) -> None:
    sink.takes_groups = takes_groups
    sink.refuse_recipient = lambda address: "550 5.1.1 no such user" if address.startswith("eve") else None
    async with pool_of(sink.port) as pool:
        eve = Mail(MAIL.sender, "eve@example.org", MAIL.content, "<2@example.com>")
        with pytest.raises(aiosmtplib.SMTPResponseException, match="no such user") as refused:
            await pool.send(eve)
        assert refused.value.code == 550
        await pool.send(MAIL)
    assert (sink.sessions, len(sink.mails)) == (1, 1)


@pytest.mark.req("F06")
@BOTH
@pytest.mark.parametrize(
    ("content", "arrived"),
    [
        (b"A: b\r\n\r\n.\r\nDATA\r\n..\r\n", b"A: b\r\n\r\n.\r\nDATA\r\n..\r\n"),
        (b"A: b\n\n.\nMAIL FROM:<x@y.z>", b"A: b\r\n\r\n.\r\nMAIL FROM:<x@y.z>\r\n"),
        (b"A: b\r\r.\r\r", b"A: b\r\n\r\n.\r\n\r\n"),
        (b".", b".\r\n"),
    ],
)
async def test_nothing_in_a_mail_ends_it(content: bytes, arrived: bytes, sink: MailSink, *, takes_groups: bool) -> None:
    sink.takes_groups = takes_groups
    async with pool_of(sink.port) as pool:
        await pool.send(Mail(MAIL.sender, MAIL.recipient, content, MAIL.message_id))
    assert [mail.content for mail in sink.mails] == [arrived]


@pytest.mark.req("F05")
@BOTH
@pytest.mark.parametrize("recipient", ["a@x.org>\r\nRCPT TO:<eve@x.org", "a@x.org b", "a@x.org\x00"])
async def test_no_address_is_a_command(recipient: str, sink: MailSink, *, takes_groups: bool) -> None:
    sink.takes_groups = takes_groups
    async with pool_of(sink.port) as pool:
        with pytest.raises(aiosmtplib.SMTPNotSupported):
            await pool.send(Mail(MAIL.sender, recipient, MAIL.content, MAIL.message_id))
        await pool.send(MAIL)
    assert [mail.rcpt_tos for mail in sink.mails] == [[MAIL.recipient]]


async def test_an_address_beyond_ascii_needs_a_server_that_knows_them(sink: MailSink) -> None:
    mail = Mail(MAIL.sender, "ädä@exämple.org", "To: ädä@exämple.org\r\n\r\n".encode(), "<3@example.com>", True)
    async with pool_of(sink.port) as pool:
        await pool.send(mail)
    assert sink.mails[0].rcpt_tos == ["ädä@exämple.org"]
    async with scripted([b"250 sink.example\r\n"]) as (port, _), pool_of(port) as pool:
        with pytest.raises(aiosmtplib.SMTPNotSupported):
            await pool.send(mail)


async def test_a_server_that_waits_for_a_mail_to_nobody_gets_an_empty_one() -> None:
    """RFC 2920, section 3.1."""
    answers = [b"250-sink\r\n250 PIPELINING\r\n", b"250 ok\r\n", b"550 5.1.1 nobody\r\n", b"354 go on\r\n"]
    answers += [b"554 no recipients\r\n", b"250 ok\r\n", b"221 bye\r\n"]
    async with scripted(answers) as (port, told), pool_of(port) as pool:
        with pytest.raises(aiosmtplib.SMTPResponseException, match="nobody"):
            await pool.send(MAIL)
        assert told[1:] == [
            b"MAIL FROM:<herald@example.com>\r\n",
            b"RCPT TO:<ada@example.org>\r\n",
            b"DATA\r\n",
            b".\r\n",
            b"RSET\r\n",
        ]


@pytest.mark.parametrize("extensions", [b"250-sink\r\n250 PIPELINING\r\n", b"250 sink\r\n"])
async def test_who_says_why_before_it_hangs_up_is_heard(extensions: bytes) -> None:
    async with scripted([extensions, b"421 closing\r\n"]) as (port, _), pool_of(port) as pool:
        with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
            await pool.send(MAIL)
        assert refused.value.code == 421


@pytest.mark.parametrize("last", [b"", b"no reply at all\r\n", b"2" * 40_000])
async def test_whoever_hangs_up_or_talks_nonsense_has_perhaps_taken_it(last: bytes) -> None:
    answers = [b"250-sink\r\n250 PIPELINING\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n", last]
    async with scripted(answers) as (port, _), pool_of(port) as pool:
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await pool.send(MAIL)


async def test_a_farewell_between_two_mails_is_no_answer_to_the_second(sink: MailSink) -> None:
    """The second one goes over a new connection."""
    greeting = [b"250-sink\r\n250 PIPELINING\r\n"]
    taken = [b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n", b"", b"", b"", b"250 taken\r\n421 you talk too little\r\n"]
    async with scripted(greeting + taken) as (port, told), pool_of(port) as pool:
        await pool.send(MAIL)
        before = len(told)
        await asyncio.wait_for(pool.send(MAIL), timedelta(seconds=20).total_seconds())
        assert told[before].startswith(b"EHLO")


async def test_a_server_of_the_old_kind() -> None:
    answers = [b"502 what?\r\n", b"250 sink\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n"]
    answers += [b"", b"", b"", b"250 taken\r\n", b"221 bye\r\n"]
    async with scripted(answers) as (port, told), pool_of(port) as pool:
        await pool.send(MAIL)
    assert [line[:4] for line in told[:5]] == [b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA"]


def make_certificate(folder: Path) -> ssl.SSLContext:
    """A server's context for `localhost`; its certificate is `certificate.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kept = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*kept))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("scheme", ["smtps", "starttls"])
@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "unknown"])
async def test_over_tls(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool) -> None:
    context = make_certificate(tmp_path)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    sink = MailSink()
    sink.answering.set()
    is_implicit = scheme == "smtps"

    def make_session() -> SMTP:
        return SMTP(
            sink,
            hostname="sink.example",
            tls_context=None if is_implicit else context,
            require_starttls=not is_implicit,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(make_session, "127.0.0.1", 0, ssl=context if is_implicit else None)
    port = server.sockets[0].getsockname()[1]
    pool = SmtpPool(Account("localhost", port, is_implicit, not is_implicit), SystemClock())
    if is_trusted:
        for _ in range(2):
            await pool.send(MAIL)
    else:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
            await pool.send(MAIL)
    await pool.close()
    server.close()
    assert [mail.content for mail in sink.mails] == [MAIL.content] * (2 if is_trusted else 0)
