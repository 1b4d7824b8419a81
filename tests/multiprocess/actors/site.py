"""A WSGI application whose cache is used before the server forks: what ``gunicorn --preload`` calls in its first process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.multiprocess.actors import make_cache


def make_application() -> Callable[..., Iterable[bytes]]:
    """The application; its cache was read and written by then."""
    cache = make_cache(os.environ["SITE_FOLDER"])
    cache.add("requests", 0)
    cache.incr("requests")

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        number = cache.incr("requests")
        assert cache.get("requests") >= number
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{number} {os.getpid()}".encode()]

    return application
