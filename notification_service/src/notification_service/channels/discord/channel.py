"""The Discord channel. The id of what was sent comes back, so that it can be deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx
from typing_extensions import override

from notification_service.channels.http.channel import Call, HttpChannel, json_call
from notification_service.channels.http.client import Answer, HttpStatus
from notification_service.channels.interface import Address, Message, Sent, SentMessage
from notification_service.channels.text import clip, links_of

_MAX_TITLE: Final = 256
_MAX_BODY: Final = 4000


class DiscordChannel(HttpChannel):
    """One embed. Nobody is mentioned, whatever the text says."""

    name = "discord"

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        lines = [message.body, *(f"{label}: {url}" for label, url in links_of(message))]
        embed: dict[str, Any] = {
            "title": clip(message.title, _MAX_TITLE),
            "description": clip("\n".join(filter(None, lines)), _MAX_BODY),
            "timestamp": message.created_at.isoformat(),
        }
        url = httpx.URL(address.value).copy_merge_params({"wait": "true"})
        return json_call(str(url), {"embeds": [embed], "allowed_mentions": {"parse": []}})

    @override
    def read_success(self, answer: Answer) -> Sent:
        found = answer.json()
        return Sent(str(found["id"]) if isinstance(found, Mapping) and "id" in found else None)

    @override
    async def withdraw(self, sent: SentMessage, address: Address) -> bool:
        target = _message_url(address, sent.provider_message_id)
        answer = await self.tools.http.call("DELETE", target)
        if answer.status not in (204, 404):
            raise HttpStatus(answer)
        # 404: somebody was faster.
        return True

    @override
    async def edit(self, sent: SentMessage, prepared: Call, address: Address) -> bool:
        target = _message_url(address, sent.provider_message_id)
        answer = await self.tools.http.call("PATCH", target, content=prepared.content, headers=prepared.headers)
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise HttpStatus(answer)
        return True


def _message_url(address: Address, provider_message_id: str) -> str:
    url = httpx.URL(address.value)
    return str(url.copy_with(path=f"{url.path.rstrip('/')}/messages/{provider_message_id}"))
