"""Settings of the example site.

There is no other database than django-keyspace: a folder for the cache (rendered pages, counters, sessions) and one
beside it for the objects of ``reader/models.py``, or a node or a cluster for both when DEMO_NODE names one.

Environment variables:

* ``DEMO_CACHE``: folder of the embedded store (default: ``var/cache`` beside this project).
* ``DEMO_RECORDS``: folder of the store for objects (default: ``records`` beside the folder of the cache).
* ``DEMO_NODE``: URL of a node, such as ``keyspace://127.0.0.1:7080/0``, or of a cluster's nodes; takes the place of the
  folders.
* ``DEMO_NODE_DATA``: folder in which ``demo --node`` lets its node keep its data (default: ``var/node``).
* ``DEMO_CLUSTER_DATA``: the same for ``demo --cluster`` (default: ``var/cluster``).
* ``DEMO_TIMEOUT_MS``: how long a call to a node may take (default: 5,000).
* ``DEMO_SECRET_KEY``: the site's secret (default: made once and kept in ``var/secret_key``).
* ``DEMO_DEBUG``: ``1`` for Django's debug pages.
"""

from __future__ import annotations

import os
from pathlib import Path

from docsite.secret import secret_key

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = BASE_DIR / "var"

# Signed cache entries of an earlier run stay readable only when the key stays the same, so it is kept in a file.
SECRET_KEY = os.environ.get("DEMO_SECRET_KEY") or secret_key(VAR_DIR / "secret_key")
DEBUG = os.environ.get("DEMO_DEBUG") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = ["django.contrib.humanize", "django_keyspace", "reader"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "reader.middleware.content_security_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "docsite.urls"
WSGI_APPLICATION = "docsite.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DATABASES: dict[str, dict[str, object]] = {}

CACHE_DIR = Path(os.environ.get("DEMO_CACHE") or VAR_DIR / "cache")
NODE_DATA_DIR = Path(os.environ.get("DEMO_NODE_DATA") or VAR_DIR / "node")
RECORDS_DIR = Path(os.environ.get("DEMO_RECORDS") or CACHE_DIR.parent / "records")
NODE_URL = os.environ.get("DEMO_NODE")
CLUSTER_DATA_DIR = Path(os.environ.get("DEMO_CLUSTER_DATA") or VAR_DIR / "cluster")
TIMEOUT_MS = int(os.environ.get("DEMO_TIMEOUT_MS") or 5_000)
# By which the status page kills and starts nodes; given by ``demo --cluster`` alone.
SWITCH = os.environ.get("DEMO_SWITCH")
# A cache may forget; what visitors wrote may not. So objects have a store of their own, whose writes are on the disk when
# they return. A node has one durability for all, and keeps objects apart from its caches by itself.
CACHES = {
    "default": {
        "BACKEND": "django_keyspace.backend.KeyspaceCache",
        "LOCATION": NODE_URL or str(CACHE_DIR),
        "OPTIONS": {"timeout_ms": TIMEOUT_MS},
    },
    "records": {
        "BACKEND": "django_keyspace.backend.KeyspaceCache",
        "LOCATION": NODE_URL or str(RECORDS_DIR),
        "OPTIONS": {"evictable": False, "timeout_ms": TIMEOUT_MS} | ({} if NODE_URL else {"durability": "commit"}),
    },
}
SESSION_ENGINE = "reader.sessions"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"

STATIC_URL = "/static/"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

# Without DEBUG Django keeps errors to itself; whoever runs the demo wants to see them in the terminal.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"terminal": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["terminal"], "level": "WARNING"},
    "loggers": {"django.request": {"level": "ERROR"}},
}

# What the reader app may be tuned by; its modules say what each means.
READER = {
    "page_timeout_s": 6 * 3600,
    "searches_per_minute": 30,
    "render_timeout_s": 30,
    "renders_at_once": 2,
}
