"""One-click unsubscribing (RFC 8058): the link in a mail, without logging in, by POST only."""

import html
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from notification_service.channels.links import UNSUBSCRIBE_PATH, Links, Unsubscription
from notification_service.errors import NotFound
from notification_service.rest.json_route import JsonRoute

Unsubscribe = Callable[[Unsubscription], Awaitable[None]]

_PAGE: Final = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Unsubscribe</title></head>
<body><h1>Unsubscribe</h1><p>No more {channel} about “{topic}”?</p>
<form method="post"><button>Unsubscribe</button></form></body></html>"""
_DONE: Final = "<!DOCTYPE html><html lang='en'><title>Unsubscribed</title><p>You are unsubscribed.</p></html>"


def make_unsubscribe_router(links: Links, unsubscribe: Unsubscribe) -> APIRouter:
    """`/unsubscribe/{token}`."""
    router = APIRouter(prefix=UNSUBSCRIBE_PATH, tags=["contacts"], route_class=JsonRoute)

    @router.get("/{token}", summary="Ask whether to unsubscribe", response_class=HTMLResponse)
    async def ask(token: str) -> HTMLResponse:
        """Changes nothing: mail scanners follow links."""
        wanted = _read(links, token)
        topic = wanted.category or wanted.event_type
        return HTMLResponse(_PAGE.format(channel=html.escape(wanted.channel), topic=html.escape(topic)))

    @router.post("/{token}", summary="Unsubscribe", response_class=HTMLResponse)
    async def confirm(token: str) -> Response:
        """From the page, or from the mail program."""
        await unsubscribe(_read(links, token))
        return HTMLResponse(_DONE)

    return router


def _read(links: Links, token: str) -> Unsubscription:
    wanted = links.read(token)
    if wanted is None:
        raise NotFound("there is no such link")
    return wanted
