"""The Slack channel. Mattermost and others that take Slack's webhooks work too."""

from __future__ import annotations

from typing import Any, Final

from typing_extensions import override

from notification_service.channels.http.channel import Call, HttpChannel, json_call
from notification_service.channels.interface import Address, Message
from notification_service.channels.text import clip, links_of

_MAX_SECTION: Final = 3000
_MAX_HEADER: Final = 150


class SlackChannel(HttpChannel):
    """One block each for title, body and links."""

    name = "slack"

    @override
    def prepare(self, message: Message, address: Address) -> Call:
        blocks: list[dict[str, Any]] = [
            {"type": "header", "text": {"type": "plain_text", "text": clip(message.title, _MAX_HEADER)}}
        ]
        if message.body:
            blocks.append(_section(escape(message.body)))
        if links := links_of(message):
            blocks.append(_section("\n".join(f"<{escape(url)}|{escape(label)}>" for label, url in links)))
        return json_call(address.value, {"text": escape(message.title), "blocks": blocks})


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clip(text, _MAX_SECTION)}}


def escape(text: str) -> str:
    """Slack's three control characters: with them, nobody can mention `@channel` or forge a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "¦")
