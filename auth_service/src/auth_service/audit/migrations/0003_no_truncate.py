from django.db import migrations

from auth_service.audit.triggers import create_truncate_statements, drop_truncate_statements


def put_on(_apps, schema_editor):
    for statement in create_truncate_statements(schema_editor.connection.vendor):
        schema_editor.execute(statement)


def take_off(_apps, schema_editor):
    for statement in drop_truncate_statements(schema_editor.connection.vendor):
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    """Append-only also for TRUNCATE, which fires no trigger of a row."""

    dependencies = [("audit", "0002_append_only")]
    operations = [migrations.RunPython(put_on, take_off)]
