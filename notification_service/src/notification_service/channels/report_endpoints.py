"""What providers say later about what they took: one address per channel, proved by the provider's signature."""

from typing import Protocol

from fastapi import APIRouter, Request, Response

from notification_service.channels.interface import NotGenuine, ProviderCall, Report
from notification_service.channels.registry import Registry
from notification_service.errors import NotAuthenticated
from notification_service.rest.json_route import JsonRoute

REPORTS_PATH = "/api/v1/channels/{channel}/status"

_REFUSAL = "the signature of the channel's provider is needed"


class OnReport(Protocol):
    """Writes a report down; the entrypoints hand it over."""

    async def __call__(self, channel: str, report: Report) -> None:
        """A report about a delivery of this channel; of one that does not exist, nothing happens."""


def make_report_router(registry: Registry, public_url: str, on_report: OnReport) -> APIRouter:
    """`/channels/{channel}/status`. `public_url` is what providers were told, which their signatures cover."""
    router = APIRouter(tags=["channels"], route_class=JsonRoute)

    @router.post(REPORTS_PATH, status_code=204, summary="A provider reports on a delivery")
    async def report(channel: str, request: Request) -> Response:
        """For providers alone, in their own form and with their own signature: today Twilio, for `sms`."""
        found = registry.get(channel)
        query = request.url.query
        call = ProviderCall(
            url=f"{public_url.rstrip('/')}{request.url.path}{'?' if query else ''}{query}",
            query=dict(request.query_params),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.body(),
        )
        if found is None or not found.is_configured:
            raise NotAuthenticated(_REFUSAL)
        try:
            what = found.read_report(call)
        except NotGenuine:
            raise NotAuthenticated(_REFUSAL) from None
        if what is not None:
            await on_report(channel, what)
        return Response(status_code=204)

    return router
