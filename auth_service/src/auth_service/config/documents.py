"""The OpenAPI document and the page that shows it; both work without any other host."""

from __future__ import annotations

import threading
from typing import ClassVar

from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.renderers import TemplateHTMLRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from auth_service.api.access import Access, Rules
from auth_service.api.renderers import JsonRenderer
from auth_service.api.views import ApiView

# drf-spectacular finds out on first use which libraries are installed, and two threads must not do that at once.
_making = threading.Lock()


class SchemaView(SpectacularAPIView, ApiView):
    """`/api/schema`."""

    access: ClassVar[Rules] = {"GET": Access.OPERATOR}
    permission_classes = ApiView.permission_classes
    authentication_classes = ApiView.authentication_classes
    renderer_classes = [JsonRenderer]

    @override
    @extend_schema(exclude=True)
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """The document, as JSON."""
        with _making:
            response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response


class PageView(SpectacularSwaggerView, ApiView):
    """`/api/docs`."""

    access: ClassVar[Rules] = {"GET": Access.OPERATOR}
    permission_classes = ApiView.permission_classes
    authentication_classes = ApiView.authentication_classes
    renderer_classes = [TemplateHTMLRenderer]
    url_name = "SchemaView"

    @override
    @extend_schema(exclude=True)
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """The page."""
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        return response
