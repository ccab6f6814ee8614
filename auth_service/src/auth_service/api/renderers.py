from __future__ import annotations

from collections.abc import Iterable

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.utils.mediatypes import media_type_matches
from typing_extensions import override


class JsonRenderer(JSONRenderer):
    """Compact UTF-8."""

    charset = None
    ensure_ascii = False


class JsonOnly(BaseContentNegotiation):
    """Answers in JSON whatever `Accept` says (RFC 9110, section 12.5.1 allows it), so that errors are never 406."""

    @override
    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """The parser for the body's declared type; none means 415."""
        return next((each for each in parsers if media_type_matches(each.media_type, request.content_type)), None)

    @override
    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """The only one there is."""
        only = next(iter(renderers))
        return only, only.media_type
