"""One SMTP conversation: a mail is two round trips where the server takes commands in groups (RFC 2920), else four.

aiosmtplib connects, encrypts and authenticates; what it cannot do is send a command before the last one was answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from datetime import timedelta
from typing import Final, cast

import aiosmtplib
from typing_extensions import override

from notification_service.channels.email.compose import Mail

_MAX_REPLY_BYTES: Final = 32 * 1024
_LINE_BREAK: Final = re.compile(rb"\r\n|\r|\n")
_FORBIDDEN: Final = re.compile("[\x00-\x20<>\x7f]")
_Reply = tuple[int, str]


class Conversation(asyncio.Protocol):
    """Takes a connection over from aiosmtplib's client, which has greeted the server.

    Args:
        client: Connected; not to be used any more.
        limit: How long the server may take to answer what it was asked, in one step.
    """

    def __init__(self, client: aiosmtplib.SMTP, limit: timedelta) -> None:
        self._transport = cast("asyncio.Transport", client.transport)
        self._limit_s = limit.total_seconds()
        self._takes_groups = client.supports_extension("pipelining")
        self._takes_utf8 = client.supports_extension("smtputf8")
        self._takes_size = client.supports_extension("size")
        self._text = b""
        self._replies: deque[_Reply] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_lost = False
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether the next mail may be tried on it."""
        # A reply nobody asked for is a farewell (421): what follows could not be told apart from it.
        return not (self._is_lost or self._replies or self._transport.is_closing())

    async def send(self, mail: Mail) -> None:
        """Send one mail; the server has it when this returns.

        Raises:
            aiosmtplib.SMTPResponseException: The server refused it. The conversation can go on.
            aiosmtplib.SMTPNotSupported: The address cannot be said to this server. The conversation can go on.
            aiosmtplib.SMTPServerDisconnected: The connection is gone.
            TimeoutError: No answer in time. The conversation is over.
        """
        sender, recipient, data = await self._ask(self._introduce(mail), b"RCPT TO:<%s>\r\n" % _path(mail.recipient))
        refused = next((reply for reply in (sender, recipient) if reply[0] >= 400), None)
        if refused is None and data[0] == 354:
            self._write(_stuff(mail.content))
            refused = reply if (reply := await self._read())[0] != 250 else None
        elif data[0] == 354:
            # It waits for a mail that nobody is to get (RFC 2920, section 3.1): an empty one, which it refuses.
            self._write(b".\r\n")
            await self._read()
        elif refused is None:
            refused = data
        if refused is not None:
            await self._reset()
            raise aiosmtplib.SMTPResponseException(*refused)

    async def quit(self) -> None:
        """End it politely."""
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            await self._ask_one(b"QUIT\r\n")
        self.close()

    def close(self) -> None:
        """End it."""
        self._transport.close()

    def _introduce(self, mail: Mail) -> bytes:
        options = b""
        if mail.needs_smtputf8:
            if not self._takes_utf8:
                raise aiosmtplib.SMTPNotSupported("the server takes no addresses beyond ASCII")
            options = b" BODY=8BITMIME SMTPUTF8"
        if self._takes_size:
            options += b" SIZE=%d" % len(mail.content)
        return b"MAIL FROM:<%s>%s\r\n" % (_path(mail.sender), options)

    async def _ask(self, *commands: bytes) -> list[_Reply]:
        """These and `DATA`, at once where the server allows it; else until one is refused."""
        commands = (*commands, b"DATA\r\n")
        replies: list[_Reply] = []
        if self._takes_groups:
            self._write(b"".join(commands))
        for command in commands:
            if not self._takes_groups:
                self._write(command)
            try:
                replies.append(await self._read())
            except aiosmtplib.SMTPServerDisconnected:
                # It said why before it hung up.
                if replies and replies[-1][0] >= 400:
                    break
                raise
            if replies[-1][0] >= 400 and not self._takes_groups:
                break
        return (replies + [replies[-1]] * len(commands))[: len(commands)]

    async def _reset(self) -> None:
        """Forget the mail that was refused."""
        if not self.is_open:
            return
        try:
            await self._ask_one(b"RSET\r\n")
        except (aiosmtplib.SMTPServerDisconnected, TimeoutError):
            self.close()

    async def _ask_one(self, command: bytes) -> _Reply:
        self._write(command)
        return await self._read()

    def _write(self, data: bytes) -> None:
        if not self.is_open:
            raise aiosmtplib.SMTPServerDisconnected("the connection is gone")
        self._transport.write(data)

    async def _read(self) -> _Reply:
        while not self._replies:
            if self._is_lost:
                raise aiosmtplib.SMTPServerDisconnected("the connection is gone")
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(self._limit_s):
                await self._waiter
        return self._replies.popleft()

    @override
    def data_received(self, data: bytes) -> None:
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            if line[3:4] == b"-":
                continue  # more of this reply follows; its last line says it best
            if not line[:3].isdigit():
                self._transport.abort()
                return
            self._replies.append((int(line[:3]), line[4:].strip().decode(errors="replace")))
        if len(self._text) > _MAX_REPLY_BYTES or len(self._replies) > 8:
            self._transport.abort()
        elif self._replies:
            self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _path(address: str) -> bytes:
    if _FORBIDDEN.search(address):
        raise aiosmtplib.SMTPNotSupported("the address cannot be said in SMTP")
    return address.encode()


def _stuff(content: bytes) -> bytes:
    """As it travels: every line ends with CRLF, and none is a lone period but the last (RFC 5321, section 4.5.2)."""
    breaks = content.count(b"\r\n")
    if content.count(b"\r") != breaks or content.count(b"\n") != breaks:
        content = _LINE_BREAK.sub(b"\r\n", content)
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n")
