"""Stores and nodes for one test process alone, whatever the settings say.

Tests that run side by side must not see each other's records, and never those of the site. So each alias of this package gets
another ``LOCATION``: a folder becomes a temporary one, the address of a node that of a node which is started for it.
Aliases that shared a place go on sharing one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.test import override_settings
from django.utils.module_loading import import_string

from django_keyspace.addresses import parse_location
from django_keyspace.conf import make_config
from django_keyspace.operations import MODELS_BASE
from django_keyspace.testing.node import running_node


@contextlib.contextmanager
def isolated_caches(folder: Path | str | None = None) -> Iterator[dict[str, dict[str, Any]]]:
    """For as long as the block runs, every alias of this package has a place of its own.

    Arguments:
        folder: where to make the folders; without it, in a temporary one that goes with the block.
    Returns:
        A context manager that gives the ``CACHES`` that hold meanwhile.
    Raises:
        ConfigurationError: an alias has wrong settings.
        NodeDidNotStart: a node is needed and does not start.
    """
    from django_keyspace.backend.runtime import forget_runtimes
    from django_keyspace.store import forget_store, registry

    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="keyspace-tests-", ignore_cleanup_errors=True)
            )
        root = Path(folder).resolve()
        places = _Places(root, stack)
        aliases = {alias: places.moved(entry) if is_ours(entry) else entry for alias, entry in settings.CACHES.items()}
        stack.enter_context(override_settings(CACHES=aliases))
        try:
            yield aliases
        finally:
            forget_runtimes()
            for path, store in list(registry._stores.items()):
                if Path(path).is_relative_to(root):
                    forget_store(store)


def clear_caches() -> None:
    """Empty every alias of this package: its records, kept ones included, and its models."""
    for alias, entry in settings.CACHES.items():
        if is_ours(entry):
            cache: Any = caches[alias]
            for database in (cache._database, MODELS_BASE + cache._database):
                cache._execute(("clear", database, True))


def is_ours(entry: dict[str, Any]) -> bool:
    """Whether an entry of ``CACHES`` is one of this package."""
    from django_keyspace.backend import KeyspaceCache

    try:
        backend = import_string(entry.get("BACKEND", ""))
    except ImportError:
        return False
    return isinstance(backend, type) and issubclass(backend, KeyspaceCache)


class _Places:
    """New places by the old ones."""

    def __init__(self, root: Path, stack: contextlib.ExitStack) -> None:
        self._root = root
        self._stack = stack
        self._moved: dict[Hashable, str] = {}

    def moved(self, entry: dict[str, Any]) -> dict[str, Any]:
        """An entry of ``CACHES`` with another place, and otherwise the same."""
        config = make_config(entry.get("LOCATION"), entry.get("OPTIONS", {}))
        if not config.is_remote:
            return entry | {"LOCATION": self._place(config.location, self._new_folder)}
        # Where it was reached by TLS or with a secret, that was about other machines.
        options = {name: value for name, value in entry.get("OPTIONS", {}).items() if name not in ("secret", "tls")}
        options["database"] = config.database
        endpoints = parse_location(config.location).endpoints
        return entry | {"LOCATION": self._place(endpoints, self._new_node), "OPTIONS": options}

    def _place(self, old: Hashable, make: Callable[[], str]) -> str:
        if old not in self._moved:
            self._moved[old] = make()
        return self._moved[old]

    def _new_folder(self) -> str:
        return str(self._root / f"store{len(self._moved)}")

    def _new_node(self) -> str:
        data = self._root / f"node{len(self._moved)}"
        node = self._stack.enter_context(running_node(data=data, durability="none"))
        return node.location.rpartition("/")[0]
