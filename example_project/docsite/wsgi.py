"""WSGI entry point, for any server that runs one: ``gunicorn --chdir example_project docsite.wsgi``."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "docsite.settings")
application = get_wsgi_application()
