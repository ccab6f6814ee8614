"""Fields take what the documents say, and nothing that pydantic would read as it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from shared_contracts.json_types import Flag, FlagParameter, Moment, Whole


class Body(BaseModel):
    flag: Flag | None = None
    parameter: FlagParameter | None = None
    whole: Whole | None = None
    moment: Moment | None = None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("flag", [True, False, None], [0, 1, "true", "false", "", 0.0]),
        ("parameter", [True, False, "true", "false", None], [0, 1, "1", "yes", "on", "True", ""]),
        ("whole", [5, 5.0, 0, None], ["5", True, 5.5, "", float("inf")]),
        ("moment", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678+02:00", None], [0, 0.5, "0.5", "1767323045"]),
        (
            "moment",
            [datetime(2026, 1, 2, tzinfo=UTC)],
            ["2026-01-02", "2026-01-02T03:04:05", "now"],
        ),
    ],
)
def test_only_what_the_document_says(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        Body.model_validate({name: value})
    for value in bad:
        with pytest.raises(ValidationError):
            Body.model_validate({name: value})


def test_json_and_its_schema_say_the_same() -> None:
    body = {"flag": True, "parameter": False, "whole": 5, "moment": "2026-01-02T03:04:05Z"}
    read = Body.model_validate_json(json.dumps(body))
    assert read.moment == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    kinds = {name: field["anyOf"][0] for name, field in Body.model_json_schema()["properties"].items()}
    assert [kinds[name]["type"] for name in body] == ["boolean", "boolean", "integer", "string"]
    assert kinds["moment"]["format"] == "date-time"
