from django.db import migrations

from auth_service.audit.triggers import put_on, take_off


class Migration(migrations.Migration):
    """The log is append-only for everyone, also for who writes SQL."""

    dependencies = [("audit", "0001_initial")]
    operations = [
        migrations.RunPython(
            lambda _apps, schema_editor: put_on(schema_editor), lambda _apps, schema_editor: take_off(schema_editor)
        )
    ]
