"""The OpenAPI document: one decorator for operations, and what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from typing_extensions import override

from auth_service.api.access import Access, Rule
from shared_contracts.problems import MEDIA_TYPE

_View = TypeVar("_View", bound=Callable[..., Any])

PROBLEM_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail", "code", "correlation_id"],
    "properties": {
        "type": {"type": "string", "example": "urn:herald:problem:invalid_schema"},
        "title": {"type": "string", "example": "Unprocessable Entity"},
        "status": {"type": "integer", "example": 422},
        "detail": {"type": "string", "example": "Some fields are wrong."},
        "code": {"type": "string", "description": "Machine word; never renamed.", "example": "invalid_schema"},
        "correlation_id": {"type": "string", "example": "0192f6a0c0de7abc8def0123456789ab"},
        "errors": {
            "type": "array",
            "description": "On 422.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {
                    "field": {"type": "string", "description": "Dotted path; empty for the body as a whole."},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_TEXTS = {
    "400": "Not JSON, or a cursor that is not this list's.",
    "401": "No token, or one that does not count.",
    "403": "The right is missing.",
    "404": "There is no such thing, or it is someone else's.",
    "409": "Contradicts what exists already.",
    "413": "The body is too long.",
    "415": "The body is not application/json.",
    "422": "Fields are wrong; `errors` names them.",
    "429": "Too many tries; `Retry-After` says how long to wait.",
    "503": "A part this needs does not answer.",
}


FORM_TYPE: Final = "application/x-www-form-urlencoded"


def operation(
    operation_id: str,
    summary: str,
    *,
    request: Any = None,
    response: Any = None,
    status: int = 200,
    media_type: str = "application/json",
    sends: Any = None,
    takes_forms: bool = False,
    answers: Any = None,
    refuses: Sequence[int] = (),
    parameters: Sequence[OpenApiParameter] = (),
    tags: Sequence[str] | None = None,
) -> Callable[[_View], _View]:
    """Describe one call.

    Args:
        sends: Example of the body.
        takes_forms: The body may be a form, too.
        answers: Example of the answer.
        refuses: Statuses beyond those that follow from the rule, the body and the address.
    """
    examples = []
    if sends is not None:
        examples.append(OpenApiExample("Request", value=sends, request_only=True))
        if takes_forms:
            examples.append(OpenApiExample("Form", value=sends, request_only=True, media_type=FORM_TYPE))
    if answers is not None:
        examples.append(OpenApiExample("Answer", value=answers, response_only=True, status_codes=[str(status)]))
    responses: dict[Any, Any] = {status: OpenApiResponse(description="Done.")}
    if response is not None:
        responses = {(status, media_type): response}
    responses |= {(code, MEDIA_TYPE): OpenApiResponse(dict(PROBLEM_SCHEMA), _TEXTS[str(code)]) for code in refuses}
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        request=request,
        responses=responses,
        examples=examples,
        parameters=list(parameters),
        tags=list(tags) if tags else None,
    )


class HeraldAutoSchema(AutoSchema):
    """Reads the declared access of a view: who needs which credentials."""

    @override
    def get_auth(self) -> list[dict[str, list[str]]]:
        """The security requirement of this call."""
        match self._rule():
            case Access.PUBLIC | Access.OPERATOR | None:
                return []
            case Access.INTERNAL:
                return [{"internalKey": []}]
            case _:
                return [{"accessToken": []}]

    @override
    def get_description(self) -> str:  # type: ignore[override] # drf-spectacular's own form
        """The view's own words, and what is needed to call it."""
        said = super().get_description() or ""
        rule = self._rule()
        match rule:
            case Access.ADMIN | Access.OPERATOR_ADMIN:
                needs = "Needs the role `admin`" + (" in the default tenant." if rule is Access.OPERATOR_ADMIN else ".")
            case Access() | None:
                needs = ""
            case scope:
                needs = f"Needs the scope `{scope}`."
        return "\n\n".join(filter(None, (said, needs)))

    @override
    def get_tags(self) -> list[str]:
        """The first word of the address after the version."""
        words = [word for word in self.path.split("/") if word and not word.startswith("{")]
        if words[:2] == ["api", "v1"]:
            return [words[2]]
        return ["internal"] if words[:1] == ["internal"] else ["service"]

    def _rule(self) -> Rule | None:
        return getattr(self.view, "access", {}).get(self.method.upper())


def add_problems(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add to every operation the errors that follow from how it is called."""
    result["components"].setdefault("schemas", {})["Problem"] = dict(PROBLEM_SCHEMA)
    for path, operations in result["paths"].items():
        for call in operations.values():
            responses = call["responses"]
            for response in responses.values():
                for media_type, content in response.get("content", {}).items():
                    if media_type == MEDIA_TYPE:
                        content["schema"] = {"$ref": "#/components/schemas/Problem"}
            for code in _implied(path, call):
                responses.setdefault(code, _problem_response(code))
    return result


def _implied(path: str, call: Mapping[str, Any]) -> list[str]:
    codes = ["503"]
    if call.get("security"):
        codes += ["401", "403"]
    if "internalKey" in str(call.get("security")):
        codes += ["429"]
    if "requestBody" in call:
        codes += ["400", "413", "415", "422"]
    if any(parameter["in"] == "query" for parameter in call.get("parameters", ())):
        codes += ["400", "422"]
    if "{" in path:
        codes += ["404"]
    return codes


def _problem_response(code: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _TEXTS[code], "content": {MEDIA_TYPE: {"schema": schema}}}


class Empty(serializers.Serializer[Any]):
    """A body without fields."""
