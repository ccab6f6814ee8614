from django.db import migrations


def make_default_tenant(apps, schema_editor):
    apps.get_model("tenants", "Tenant").objects.get_or_create(slug="default", defaults={"name": "Default"})


class Migration(migrations.Migration):
    """The operator's own tenant, which everyone belongs to who was not put into another."""

    dependencies = [("tenants", "0001_initial")]
    operations = [migrations.RunPython(make_default_tenant, migrations.RunPython.noop)]
