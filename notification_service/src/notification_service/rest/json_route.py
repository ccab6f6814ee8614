"""Reading request bodies strictly: what is not JSON, or not declared as JSON, never reaches a handler."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from typing_extensions import override

from notification_service.errors import InvalidJson, UnsupportedMediaType
from notification_service.rest.documentation import describe_route


class StrictRequest(Request):
    """A request whose `json()` refuses NaN, lone surrogates, and what is nested too deep or too long a number."""

    @override
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                self._json = from_json(body, allow_inf_nan=False)
            except ValueError as error:
                raise InvalidJson from error
        return self._json


class JsonRoute(APIRoute):
    """The route class of every router: reads strictly, and documents the rights and the problems of its route."""

    @override
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        describe_route(self)

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            if takes_body and not _is_json(request.headers.get("content-type")):
                raise UnsupportedMediaType("the body must be application/json")
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def _is_json(content_type: str | None) -> bool:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
