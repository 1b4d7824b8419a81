"""A module's page: taken from the cache, or rendered through pydoc in a process of its own and then kept.

Keys: ``page:NAME`` is the rendered HTML, ``cold:NAME`` what it cost to make (ms), ``warm:NAME`` what it cost to take
from the cache the last time (ms), ``failed:NAME`` why it could not be made (kept for a minute only).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import cache
from django.template.loader import render_to_string

from reader.catalogue import find_module, submodules

WORKER = Path(__file__).with_name("pydoc_worker.py")
FAILURE_TIMEOUT_S = 60
# Renders are whole processes: a crowd of cold pages waits its turn here instead of starting hundreds of them.
_render_slots = threading.BoundedSemaphore(settings.READER["renders_at_once"])


class ModuleNotFound(LookupError):
    """The site does not show a module of this name."""


class RenderFailed(Exception):
    """The module exists, and pydoc could not be run on it. The message says why."""


class RenderBusy(Exception):
    """Too many cold pages are being rendered; trying again shortly will do."""


@dataclass(frozen=True, slots=True)
class Page:
    """The documentation of one module as HTML, and where this copy came from."""

    html: str
    is_hit: bool
    cost_ms: float
    cold_ms: float | None


def get_page(name: str) -> Page:
    """Return the page of a module, rendering it only if the cache does not have it.

    Raises ModuleNotFound, RenderFailed or RenderBusy.
    """
    started = time.perf_counter()
    page = _cached_page(name, started)
    if page is not None:
        return page
    spec = find_module(name)
    if spec is None:
        raise ModuleNotFound(name)
    failure = cache.get(f"failed:{name}")
    if failure is not None:
        raise RenderFailed(failure)
    if not _render_slots.acquire(timeout=settings.READER["render_timeout_s"]):
        raise RenderBusy(name)
    try:
        # While this request waited for its turn, another one may have made the same page.
        return _cached_page(name, started) or _render(name, spec)
    finally:
        _render_slots.release()


def _cached_page(name: str, started: float) -> Page | None:
    found = cache.get_many([f"page:{name}", f"cold:{name}"])
    html = found.get(f"page:{name}")
    if html is None:
        return None
    cost_ms = (time.perf_counter() - started) * 1000
    cache.set(f"warm:{name}", cost_ms, settings.READER["page_timeout_s"])
    return Page(html=html, is_hit=True, cost_ms=cost_ms, cold_ms=found.get(f"cold:{name}"))


def _render(name: str, spec: ModuleSpec) -> Page:
    started = time.perf_counter()
    try:
        parts = _run_pydoc(name)
    except RenderFailed as error:
        cache.set(f"failed:{name}", str(error), FAILURE_TIMEOUT_S)
        raise
    parts["submodules"] = submodules(name, spec)
    # Adding a plain text makes a plain str of the template's SafeString: the store keeps that as it is, unpickled.
    html = render_to_string("reader/_module_body.html", {"doc": parts}) + ""
    cost_ms = (time.perf_counter() - started) * 1000
    timeout_s = settings.READER["page_timeout_s"]
    cache.set_many({f"page:{name}": html, f"cold:{name}": cost_ms}, timeout_s)
    return Page(html=html, is_hit=False, cost_ms=cost_ms, cold_ms=cost_ms)


def _run_pydoc(name: str) -> dict[str, Any]:
    """Return what the worker says about a module that ``find_module`` has accepted."""
    timeout_s = settings.READER["render_timeout_s"]
    with tempfile.TemporaryDirectory(prefix="pydoc-") as empty_folder:
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(WORKER), name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_worker_environment(empty_folder),
                cwd=empty_folder,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RenderFailed(f"importing and describing it took longer than {timeout_s} seconds") from error
    try:
        parts: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise RenderFailed(f"its import ended the interpreter (exit code {done.returncode})") from error
    if "error" in parts:
        raise RenderFailed(parts["error"])
    return parts


def _worker_environment(home: str) -> dict[str, str]:
    """Return an environment with the same import path and nothing of ours that a page could show."""
    own_folder = str(settings.BASE_DIR)
    import_path = [entry for entry in sys.path if entry and entry != own_folder]
    kept = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT", "LANG", "LC_ALL") if key in os.environ}
    # BROWSER: should a module open a web page all the same, this "browser" does nothing.
    return {**kept, "HOME": home, "BROWSER": "true", "PYTHONUTF8": "1", "PYTHONPATH": os.pathsep.join(import_path)}
