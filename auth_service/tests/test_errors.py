from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from auth_kit import Api, Device, make_admin
from django.db import OperationalError

import auth_service
from auth_service import errors
from auth_service.errors import InvalidInput, RateLimited, ServiceError
from shared_contracts.error_codes import ErrorCode

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def all_errors() -> Iterator[type[ServiceError]]:
    for module in pkgutil.walk_packages(auth_service.__path__, "auth_service."):
        if module.name.rsplit(".", 1)[1] in {"errors", "actions", "keys"} or "action" in module.name:
            importlib.import_module(module.name)
    waiting = [ServiceError]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        if found is not ServiceError:
            yield found


def test_every_error_answers_every_question() -> None:
    statuses: dict[ErrorCode, set[int]] = {}
    for error in all_errors():
        assert isinstance(error.code, ErrorCode), error
        assert 400 <= error.status <= 503, error
        assert error.detail.endswith("."), error
        assert error.__doc__, error
        statuses.setdefault(error.code, set()).add(error.status)
    assert all(len(found) == 1 for found in statuses.values()), statuses


def test_what_cannot_be_tried_at_once_says_when() -> None:
    for error in all_errors():
        if error.status in {429, 503}:
            made = error(timedelta(seconds=0.2)) if error is RateLimited else error()
            assert int(made.headers["Retry-After"]) >= 1
        if error.status == 401:
            assert "WWW-Authenticate" in error().headers


PROBLEM = {"type", "title", "status", "detail", "code", "correlation_id"}


@pytest.mark.parametrize(
    "case",
    [
        ("GET", "/nowhere", None, JSON, 404, "not_found"),
        ("GET", "/api/v1/users/not-an-id", None, JSON, 404, "not_found"),
        ("DELETE", "/api/v1/auth/token", None, JSON, 405, "method_not_allowed"),
        ("TRACE", "/api/v1/auth/token", None, JSON, 405, "method_not_allowed"),
        ("OPTIONS", "/api/v1/auth/token", None, JSON, 405, "method_not_allowed"),
        ("POST", "/api/v1/auth/token", b"{", JSON, 400, "invalid_json"),
        ("POST", "/api/v1/auth/token", b"\xff\xfe", JSON, 400, "invalid_json"),
        (
            "POST",
            "/api/v1/auth/token",
            b"username=x",
            "application/x-www-form-urlencoded",
            415,
            "unsupported_media_type",
        ),
        ("POST", "/api/v1/auth/token", b"{}", "text/plain", 415, "unsupported_media_type"),
        ("POST", "/api/v1/auth/token", b"[]", JSON, 422, "invalid_schema"),
        ("POST", "/api/v1/auth/token", b'"x"', JSON, 422, "invalid_schema"),
        ("POST", "/api/v1/auth/token", b"", JSON, 422, "invalid_schema"),
        ("GET", "/api/v1/users/me", None, JSON, 401, "not_authenticated"),
        ("GET", "/api/v1/users", None, JSON, 401, "not_authenticated"),
    ],
)
@pytest.mark.req("E09")
def test_every_refusal_is_a_problem(api: Api, case: tuple[str, str, bytes | None, str, int, str]) -> None:
    method, path, body, content_type, status, code = case
    answer = api.call(method, path, body, Content_Type=content_type)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert set(answer.body) - {"errors"} == PROBLEM
    assert answer.body["status"] == status
    assert answer.body["correlation_id"] == answer.headers["X-Correlation-Id"]
    assert ("errors" in answer.body) == (status == 422)
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("given", ["abcdefgh", "a" * 64, "a-b.c_d~e-1234"])
def test_a_valid_correlation_id_is_echoed(api: Api, given: str) -> None:
    assert api.get("/health/live", X_Correlation_Id=given).headers["X-Correlation-Id"] == given


@pytest.mark.parametrize("given", ["", "short", "a" * 65, "with space", "new\tline", "äöüäöüäöü"])
@pytest.mark.req("G02")
def test_any_other_correlation_id_is_replaced(api: Api, given: str) -> None:
    assert api.get("/health/live", X_Correlation_Id=given).headers["X-Correlation-Id"] != given


@pytest.mark.parametrize("path", ["/api/v1/users/me", "/api/v1/users/me/", "/api/v1/users/me//"])
def test_a_slash_at_the_end_makes_no_difference(device: Device, path: str) -> None:
    assert device.get(path).status == 200


def test_a_post_with_a_slash_is_not_redirected(api: Api, alice: Any) -> None:
    answer = api.post("/api/v1/auth/token/", {"username": "alice", "password": "wrong"})
    assert answer.status == 401


@pytest.mark.req("E03")
@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"username":' * 50 + b"1" + b"}" * 50,
        b'{"username": ' + b"9" * 5_000 + b"}",
        b'{"username": 1e999}',
        b'{"username": NaN}',
        b'{"username": Infinity}',
        b'{"username": 9223372036854775808}',
    ],
)
def test_json_that_some_part_could_not_hold_is_refused(api: Api, text: bytes) -> None:
    answer = api.post("/api/v1/auth/register", text)
    assert (answer.status, answer.code) == (400, "invalid_json")


@pytest.mark.req("E05")
def test_of_two_members_with_one_name_the_last_counts(api: Api, alice: Any) -> None:
    answer = api.post("/api/v1/auth/token", b'{"username":"x","username":"alice","password":"correct horse battery"}')
    assert answer.status == 200


@pytest.mark.req("E01")
def test_a_body_over_the_limit_is_413(api: Api) -> None:
    answer = api.post("/api/v1/auth/register", b" " * (2 * 1024 * 1024 + 1))
    assert (answer.status, answer.code) == (413, "too_large")
    assert answer.headers["Connection"] == "close"


@pytest.mark.req("E09")
def test_method_override_headers_are_ignored(db: None) -> None:
    admin = make_admin()
    answer = admin.post(f"/api/v1/users/{admin.user.id}", {}, X_HTTP_Method_Override="DELETE")
    assert answer.status == 405


@pytest.mark.req("G03", "H15")
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OperationalError("could not connect to server at 10.0.0.1, user secret"), 503, "unavailable"),
        (ZeroDivisionError("SELECT * FROM accounts_user"), 500, "internal_error"),
    ],
)
def test_faults_show_nothing_of_the_inside(
    device: Device, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("auth_service.accounts.views.do_update_user", fail)
    answer = device.patch("/api/v1/users/me", {"locale": "de"})
    assert (answer.status, answer.code) == (status, code)
    assert not any(word in answer.text for word in ("SELECT", "10.0.0.1", "Traceback", ".py", "ZeroDivision"))
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_field_errors_have_dotted_paths() -> None:
    assert InvalidInput.of("a.b.0", "wrong").errors[0].field == "a.b.0"
    assert str(errors.NotFound()) == "There is no such thing."
