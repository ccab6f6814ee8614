"""`/health/channels`: which channels are configured, what waits, and whom the circuit breakers leave alone."""

import html
from datetime import datetime
from typing import Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import AwareDatetime, BaseModel, Field

from notification_service.channels.board import BreakerState, count_waiting, list_breakers
from notification_service.channels.registry import Registry
from notification_service.clock import Clock, format_time
from notification_service.db.engine import Database
from notification_service.rest.documentation import describe_problem
from notification_service.rest.operators import OperatorsOnly
from notification_service.settings import Settings

_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5"><title>Channels</title><style>
body {{ font: 1rem system-ui, sans-serif; margin: 2rem; color-scheme: light dark }}
table {{ border-collapse: collapse; margin-bottom: 2rem }} caption {{ text-align: left; font-weight: bold }}
th, td {{ text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #8885 }}
.opened {{ color: #c33 }} .half-opened {{ color: #b70 }}</style></head>
<body><h1>Channels</h1><p>As of {now}</p>
<table><caption>Channels</caption><thead><tr><th scope="col">Channel<th scope="col">Configured<th scope="col">Pending
<th scope="col">Queued</tr></thead><tbody>{channels}</tbody></table>
<table><caption>Circuit breakers that are not closed</caption><thead><tr><th scope="col">Channel
<th scope="col">Account or endpoint<th scope="col">State<th scope="col">Since<th scope="col">Worker</tr></thead>
<tbody>{breakers}</tbody></table></body></html>"""
_NONE: Final = '<tr><td colspan="5">None: every provider and endpoint is asked as usual.</td></tr>'
# Nothing but its own style: what operators look at runs no script.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


class ChannelOut(BaseModel):
    """One channel."""

    name: str
    configured: bool
    pending: int = Field(description="Deliveries that wait for a time: quiet hours, a rate limit, a provider's wish.")
    queued: int = Field(description="Deliveries in the work queue, in the retry ladder, or being sent.")


class BreakerOut(BaseModel):
    """What one worker process thinks of one provider account or endpoint."""

    channel: str
    route: str
    state: str = Field(description="`opened`: left alone; `half-opened`: one probe decides.")
    since: AwareDatetime
    node: str


class ChannelsOut(BaseModel):
    """Everything at a glance."""

    channels: list[ChannelOut]
    breakers: list[BreakerOut] = Field(description="Those that are not closed.")


def make_channel_page_router(database: Database, clock: Clock, registry: Registry, settings: Settings) -> APIRouter:
    """The page, and the same as JSON."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/health/channels",
        summary="Channels and their circuit breakers",
        response_model=ChannelsOut,
        dependencies=[Depends(OperatorsOnly(settings))],
        responses={200: {"content": {"text/html": {}}}, 401: describe_problem(401)},
    )
    async def show(request: Request) -> Response:
        """A page for browsers, JSON for everybody else. Open in development; in production with the internal key."""
        now = clock.now()
        async with database.read() as connection:
            breakers = await list_breakers(connection, now=now)
            waiting = await count_waiting(connection)
        channels = [
            ChannelOut(
                name=each.name,
                configured=each.is_configured,
                pending=waiting.get(each.name, {}).get("pending", 0),
                queued=waiting.get(each.name, {}).get("queued", 0),
            )
            for each in registry
        ]
        if "text/html" in request.headers.get("accept", ""):
            page = _write_page(channels, breakers, now)
            return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"})
        found = [
            BreakerOut(channel=each.channel, route=each.route, state=each.state, since=each.since, node=each.node)
            for each in breakers
        ]
        content = ChannelsOut(channels=channels, breakers=found).model_dump_json()
        return Response(content, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


def _write_page(channels: list[ChannelOut], breakers: list[BreakerState], now: datetime) -> str:
    rows = [
        _row(each.name, "yes" if each.configured else "no", str(each.pending), str(each.queued)) for each in channels
    ]
    states = [
        _row(each.channel, each.route, each.state, format_time(each.since), each.node, mark=each.state)
        for each in breakers
    ]
    return _PAGE.format(now=format_time(now), channels="".join(rows), breakers="".join(states) or _NONE)


def _row(*cells: str, mark: str = "") -> str:
    return f'<tr class="{html.escape(mark)}">' + "".join(f"<td>{html.escape(each)}</td>" for each in cells) + "</tr>"
