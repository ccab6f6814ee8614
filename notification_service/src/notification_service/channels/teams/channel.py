"""The Teams channel: an adaptive card, as the workflow "when a Teams webhook request is received" takes it."""

from __future__ import annotations

from typing import Any, Final

from typing_extensions import override

from notification_service.channels.http.channel import Call, HttpChannel, json_call
from notification_service.channels.interface import Address, Message
from notification_service.channels.text import clip, links_of

_MAX_TEXT: Final = 20_000  # the whole card may have 28 KiB


class TeamsChannel(HttpChannel):
    """Cards."""

    name = "teams"

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        card: dict[str, Any] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": clip(message.title, 500), "weight": "bolder", "size": "medium"},
                {"type": "TextBlock", "text": clip(message.body, _MAX_TEXT), "wrap": True},
            ],
            "actions": [{"type": "Action.OpenUrl", "title": label, "url": url} for label, url in links_of(message)],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return json_call(address.value, {"type": "message", "attachments": [attachment]})
