"""The Telegram channel. A message it sent can be edited and deleted; the API knows no idempotency key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import orjson
from pydantic import Field, SecretStr
from typing_extensions import override

from notification_service.channels.http.channel import Call, classify_http_error, json_call
from notification_service.channels.http.client import Answer, HttpStatus
from notification_service.channels.interface import (
    Address,
    Channel,
    CheckedAddress,
    Failure,
    FailureKind,
    InvalidAddress,
    Message,
    Sent,
    SentMessage,
    Tools,
)
from notification_service.channels.settings import ChannelSettings
from notification_service.channels.text import links_of, plain_text
from shared_contracts.error_codes import Reason

MAX_LENGTH: Final = 4096
_CHAT = re.compile(r"-?\d{1,20}")


class TelegramSettings(ChannelSettings):
    """What the channel needs."""

    telegram_bot_token: SecretStr | None = Field(None, description="Of the bot, from @BotFather.")
    telegram_api_url: str = Field("https://api.telegram.org", description="Where the Bot API is.")
    telegram_bot_name: str | None = Field(None, description="Of the bot, for links that start a chat with it.")
    telegram_webhook_secret: SecretStr | None = Field(
        None, description="The `secret_token` of the bot's webhook; without it no chat can be linked."
    )


class TelegramChannel(Channel):
    """Messages from a bot."""

    name = "telegram"
    concurrency_per_route = 32

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.settings = TelegramSettings()

    @property
    @override
    def is_configured(self) -> bool:
        return self.settings.telegram_bot_token is not None

    @override
    async def check_address(self, address: str, secret: str | None) -> CheckedAddress:
        if not _CHAT.fullmatch(address):
            raise InvalidAddress("must be the number of a chat, or left out to link one by a start code")
        return CheckedAddress(address, address, proof="start")

    @override
    def start_link(self, code: str) -> str:
        name = self.settings.telegram_bot_name
        return f"https://t.me/{name}?start={code}" if name else ""

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        body: dict[str, Any] = {
            "chat_id": int(address.value),
            # No parse mode: nothing in the text is markup.
            "text": plain_text(message, limit=MAX_LENGTH, with_links=False),
            "disable_notification": message.priority == "low",
            "link_preview_options": {"is_disabled": True},
        }
        if links := links_of(message):
            body["reply_markup"] = {"inline_keyboard": [[{"text": label, "url": url}] for label, url in links]}
        return self._call("sendMessage", body)

    @override
    async def send(self, prepared: Any, route: str) -> Sent:
        result = await self._post(prepared)
        message_id, chat = result.get("message_id"), result.get("chat", {}).get("id")
        if chat is None:
            chat = orjson.loads(prepared.content)["chat_id"]
        return Sent(f"{chat}:{message_id}" if message_id is not None else None)

    @override
    async def withdraw(self, sent: SentMessage, address: Address) -> bool:
        chat_id, _, message_id = sent.provider_message_id.partition(":")
        call = self._call("deleteMessage", {"chat_id": int(chat_id), "message_id": int(message_id)})
        try:
            await self._post(call)
        except HttpStatus as error:
            # Older than 48 hours, in a private chat; or the user deleted it.
            text = _describe_answer(error.answer)
            if "message to delete not found" in text:
                return True
            if "can't be deleted" in text:
                return False
            raise
        return True

    @override
    async def edit(self, sent: SentMessage, prepared: Call, address: Address) -> bool:
        chat_id, _, message_id = sent.provider_message_id.partition(":")
        body = {**orjson.loads(prepared.content), "chat_id": int(chat_id), "message_id": int(message_id)}
        body.pop("disable_notification", None)
        try:
            await self._post(self._call("editMessageText", body))
        except HttpStatus as error:
            text = _describe_answer(error.answer)
            if "message is not modified" in text:
                return True
            if "message to edit not found" in text or "can't be edited" in text:
                return False
            raise
        return True

    @override
    def classify_error(self, error: Exception) -> Failure:
        if isinstance(error, HttpStatus):
            return _classify_answer(error.answer) or classify_http_error(
                error, now=self.tools.clock.now(), gone=frozenset()
            )
        return classify_http_error(error, now=self.tools.clock.now())

    def _call(self, method: str, body: dict[str, Any]) -> Call:
        assert self.settings.telegram_bot_token is not None
        token = self.settings.telegram_bot_token.get_secret_value()
        return json_call(f"{self.settings.telegram_api_url.rstrip('/')}/bot{token}/{method}", body)

    async def _post(self, call: Call) -> Mapping[str, Any]:
        answer = await self.tools.http.call_provider("POST", call.url, content=call.content, headers=call.headers)
        if answer.status != 200:
            raise HttpStatus(answer)
        found = answer.json()
        result = found.get("result") if isinstance(found, Mapping) else None
        return result if isinstance(result, Mapping) else {}


def _describe_answer(answer: Answer) -> str:
    found = answer.json()
    return str(found.get("description", "")) if isinstance(found, Mapping) else ""


def _classify_answer(answer: Answer) -> Failure | None:
    found = answer.json()
    text = _describe_answer(answer)
    detail = f"status {answer.status}: {text[:200]}"
    if answer.status == 403 or (answer.status == 400 and "chat not found" in text):
        # Blocked the bot, deleted the account, or never spoke to the bot.
        return Failure(FailureKind.PERMANENT, Reason.PROVIDER_REJECTED, detail, disables_address=True)
    if answer.status == 429 and isinstance(found, Mapping):
        seconds = found.get("parameters", {}).get("retry_after")
        if isinstance(seconds, int):
            wait = timedelta(seconds=min(seconds, 3600))
            return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, detail, retry_after=wait)
    if answer.status in (401, 404):
        return Failure(FailureKind.TEMPORARY, Reason.PROVIDER_UNAVAILABLE, "the bot is refused", blames_provider=True)
    return None
