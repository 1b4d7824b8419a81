"""The Django app: registers system checks. It opens nothing."""

from __future__ import annotations

from django.apps import AppConfig


class KeyspaceConfig(AppConfig):
    """``INSTALLED_APPS = [..., "django_keyspace"]``: for the system checks and management commands."""

    name = "django_keyspace"
    verbose_name = "Keyspace"

    def ready(self) -> None:
        """Register the system checks."""
        from django_keyspace import checks  # noqa: F401
