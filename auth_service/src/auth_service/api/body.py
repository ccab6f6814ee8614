"""Bodies without a length, which Django would take for empty."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from auth_service.errors import TooLarge
from shared_contracts.headers import CORRELATION_ID, correlation_id_from
from shared_contracts.problems import MEDIA_TYPE, make_problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def read_chunked(application: WSGIApplication, *, max_bytes: int) -> WSGIApplication:
    """Read a chunked body up to the limit, then hand it on with its length; refuse a longer one (E01)."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "chunked" not in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            return application(environ, start_response)
        body = environ["wsgi.input"].read(max_bytes + 1)
        if len(body) > max_bytes:
            return _refuse(environ, start_response)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
        return application(environ, start_response)

    return call


def _refuse(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    error = TooLarge()
    correlation_id = correlation_id_from(environ.get("HTTP_X_CORRELATION_ID"))
    problem = make_problem(status=error.status, code=error.code, detail=str(error), correlation_id=correlation_id)
    headers = {"Content-Type": MEDIA_TYPE, CORRELATION_ID: correlation_id, **error.headers}
    start_response("413 Content Too Large", list(headers.items()))
    return [problem.model_dump_json(exclude_none=True).encode()]
