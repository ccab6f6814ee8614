"""Plain text out of a message, for channels without layout of their own. Pure."""

from __future__ import annotations

from notification_service.channels.interface import Message

_LINK_SCHEMES = ("https://", "http://")


def plain_text(message: Message, *, limit: int, with_links: bool = True) -> str:
    """Title, body and links, at most `limit` characters; what is cut ends with an ellipsis."""
    parts = [message.title, message.body]
    if with_links:
        parts += [f"{label}: {url}" for label, url in links_of(message)]
    return clip("\n".join(part for part in parts if part), limit)


def links_of(message: Message) -> list[tuple[str, str]]:
    """(label, address) of actions that lead to the web."""
    return [
        (str(each.get("label") or each["url"]), each["url"])
        for each in message.actions
        if isinstance(each.get("url"), str) and each["url"].lower().startswith(_LINK_SCHEMES)
    ]


def clip(text: str, limit: int) -> str:
    """The text, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
