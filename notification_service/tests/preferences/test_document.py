from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from notification_service.preferences.document import Document, find_switched_off, merge


def test_merging_is_rfc_7396() -> None:
    before = {"channels": {"email": False, "sms": True}, "locale": "de", "digest": {"email": "daily"}}
    patch: dict[str, Any] = {
        "channels": {"email": None, "push": False},
        "locale": None,
        "digest": {"email": "hourly"},
        "devices": {"a": {}},
    }
    assert merge(before, patch) == {
        "channels": {"sms": True, "push": False},
        "digest": {"email": "hourly"},
        "devices": {"a": {}},
    }
    assert merge({"locale": "de"}, {"locale": {"a": 1}}) == {"locale": {"a": 1}}


def test_only_what_says_something_is_kept() -> None:
    assert Document.model_validate({"channels": None, "locale": None, "unknown": 1}).stored() == {}
    kept = Document.model_validate({"quiet_hours": {"start": "21:00"}}).stored()
    assert kept["quiet_hours"] == {
        "enabled": True,
        "start": "21:00",
        "end": "07:00",
        "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": {"pigeon": True}},
        {"channels": {"email": "perhaps"}},
        {"categories": {"": {"email": True}}},
        {"categories": {"a\nb": {"email": True}}},
        {"event_types": {"Not A Code": {"email": True}}},
        {"quiet_hours": {"start": "24:00"}},
        {"quiet_hours": {"days": []}},
        {"quiet_hours": {"days": ["someday"]}},
        {"digest": {"email": "yearly"}},
        {"timezone": "Mars/Olympus"},
        {"locale": "not a locale"},
        {"devices": {"": {}}},
    ],
)
def test_what_is_no_preference_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Document.model_validate(wrong)


def test_a_document_has_an_end() -> None:
    many = {f"code.{number}": dict.fromkeys(("email", "sms", "push", "slack", "teams"), True) for number in range(300)}
    long = {f"{'c' * 60}{number}": dict.fromkeys(("email", "sms", "push"), True) for number in range(300)}
    with pytest.raises(ValueError, match="at most 32768 bytes"):
        Document.model_validate({"event_types": many, "categories": long}).stored()


def test_what_is_switched_off() -> None:
    assert find_switched_off({"event_types": {"a": {"email": True}, "b": {"email": True, "sms": False}}}) == ["b"]
    assert find_switched_off({}) == []
