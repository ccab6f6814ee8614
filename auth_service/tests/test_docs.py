"""`docs/identity.md` says what the code does. `herald-auth document_settings` prints the parts made from the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands
from prometheus_client import REGISTRY

from auth_service.config.documentation import find_tables, make_action_list, make_settings_table
from shared_contracts.identity_events import IdentityEventType
from shared_contracts.scopes import ASSIGNABLE_ROLES

pytestmark = pytest.mark.only_on("sqlite")

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "identity.md").read_text()


def test_the_parts_made_from_the_code_are_up_to_date(page: str) -> None:
    assert list(find_tables(page)) == [make_action_list(), make_settings_table()]


def test_every_event_role_command_and_metric_is_on_the_page(page: str) -> None:
    for word in (*IdentityEventType, *ASSIGNABLE_ROLES):
        assert f"`{word}`" in page, word
    own = {name for name, app in get_commands().items() if str(app).startswith("auth_service")}
    for command in own:
        assert f"herald-auth {command}" in page, command
    ours = {metric.name for metric in REGISTRY.collect() if metric.name.startswith(("auth_", "publish_", "http_"))}
    for name in ours:
        assert name in page, name


def test_decision_records_have_their_parts() -> None:
    records = sorted((DOCS / "decisions").glob("00[23]*.md"))
    assert len(records) >= 15
    for record in records:
        text = record.read_text()
        assert re.match(rf"# {record.name[:4]}\. \S", text), record.name
        for part in ("Status: ", "## Context", "## Decision", "## Consequences", "## Alternatives"):
            assert part in text, (record.name, part)
