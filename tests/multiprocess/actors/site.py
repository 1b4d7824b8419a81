"""A WSGI application that uses its cache while it is imported: what ``gunicorn --preload`` forks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.multiprocess.actors import make_cache

cache = make_cache(os.environ["SITE_FOLDER"])
cache.add("requests", 0)
cache.incr("requests")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Count the request."""
    number = cache.incr("requests")
    assert cache.get("requests") >= number
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{number} {os.getpid()}".encode()]
