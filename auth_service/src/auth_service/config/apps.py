from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ConfigApp(AppConfig):
    """Holds the commands that belong to no domain."""

    name = "auth_service.config"
    label = "config"


class HeraldAdminConfig(AdminConfig):
    """Django's admin with our login in front."""

    default_site = "auth_service.config.admin_site.HeraldAdminSite"
