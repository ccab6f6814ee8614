"""What makes the audit log append-only for everyone, also for who writes SQL: triggers, the same on both databases.

One change is allowed: blanking the address and the browser of someone who has been erased.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

TABLE = "audit_auditevent"
_KEPT = (
    "id",
    "occurred_at",
    "action",
    "actor_type",
    "actor_id",
    "subject_type",
    "subject_id",
    "tenant",
    "correlation_id",
    "details",
)
_REFUSAL = "audit events are append-only"


def create_statements(vendor: str) -> list[str]:
    """SQL that puts the triggers on."""
    if vendor == "postgresql":
        same = " AND ".join(f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in _KEPT)
        return [
            f"""
            CREATE FUNCTION {TABLE}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'UPDATE' AND {same} AND NEW.ip IS NULL AND NEW.user_agent = '' THEN
                    RETURN NEW;
                END IF;
                RAISE EXCEPTION '{_REFUSAL}';
            END $$
            """,
            f"""
            CREATE TRIGGER {TABLE}_append_only BEFORE UPDATE OR DELETE ON {TABLE}
            FOR EACH ROW EXECUTE FUNCTION {TABLE}_refuse()
            """,
        ]
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _KEPT)
    return [
        f"""
        CREATE TRIGGER {TABLE}_no_update BEFORE UPDATE ON {TABLE}
        WHEN NOT ({same} AND NEW.ip IS NULL AND NEW.user_agent = '')
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
        """,
        f"""
        CREATE TRIGGER {TABLE}_no_delete BEFORE DELETE ON {TABLE}
        BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
        """,
    ]


def drop_statements(vendor: str) -> list[str]:
    """SQL that takes the triggers off."""
    if vendor == "postgresql":
        return [f"DROP TRIGGER {TABLE}_append_only ON {TABLE}", f"DROP FUNCTION {TABLE}_refuse()"]
    return [f"DROP TRIGGER {TABLE}_no_update", f"DROP TRIGGER {TABLE}_no_delete"]


def create_truncate_statements(vendor: str) -> list[str]:
    """SQL that refuses TRUNCATE, which fires no trigger of a row. SQLite has no such statement."""
    if vendor != "postgresql":
        return []
    return [
        f"""
        CREATE TRIGGER {TABLE}_no_truncate BEFORE TRUNCATE ON {TABLE}
        FOR EACH STATEMENT EXECUTE FUNCTION {TABLE}_refuse()
        """
    ]


def drop_truncate_statements(vendor: str) -> list[str]:
    """SQL that allows it again."""
    return [f"DROP TRIGGER {TABLE}_no_truncate ON {TABLE}"] if vendor == "postgresql" else []


def put_on(schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the triggers."""
    for statement in create_statements(schema_editor.connection.vendor):
        schema_editor.execute(statement)


def take_off(schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Drop the triggers."""
    for statement in drop_statements(schema_editor.connection.vendor):
        schema_editor.execute(statement)
