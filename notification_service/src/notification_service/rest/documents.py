"""The machine-readable contracts and the page that shows the API. The page works without any other host."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import orjson
from fastapi import Depends, FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

from notification_service.rest.asyncapi import make_asyncapi_document
from notification_service.rest.operators import OperatorsOnly
from notification_service.settings import Settings

_ASSETS = "/api/docs/assets"


def install_documents(app: FastAPI, settings: Settings) -> None:
    """`/api/openapi.json`, `/api/docs` and `/api/asyncapi.json`; in production only with the internal key."""
    operators = Depends(OperatorsOnly(settings))
    asyncapi = orjson.dumps(make_asyncapi_document(version=app.version))

    @app.get("/api/openapi.json", include_in_schema=False, dependencies=[operators])
    async def openapi() -> Response:
        return Response(orjson.dumps(app.openapi()), media_type="application/json")

    @app.get("/api/asyncapi.json", include_in_schema=False, dependencies=[operators])
    async def describe_messages() -> Response:
        return Response(asyncapi, media_type="application/json")

    @app.get("/api/docs", include_in_schema=False, dependencies=[operators])
    async def page() -> Response:
        return get_swagger_ui_html(
            openapi_url="/api/openapi.json",
            title=app.title,
            oauth2_redirect_url=None,
            swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{_ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{_ASSETS}/favicon.png",
        )

    app.mount(_ASSETS, StaticFiles(directory=_find_assets()), name="documentation-assets")


def _find_assets() -> Path:
    """The folder with Swagger UI inside the package that ships it; the package itself is not needed."""
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "static"
