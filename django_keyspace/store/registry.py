"""One store per folder and process, and what happens when the process is forked or ends.

LMDB forbids a second environment of the same file in a process, and Django makes a backend object per thread: so whoever
wants a store asks here. Folders are told apart by what they are (device and inode), not by how their path is written.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
from collections.abc import Callable

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.store.options import StoreOptions
from django_keyspace.store.store import Store

_stores: dict[str, Store] = {}
_lock = threading.RLock()
_quiet: dict[str, bool] = {}


def open_store(
    path: str | os.PathLike[str],
    options: StoreOptions | None = None,
    make: Callable[[str, StoreOptions], Store] = Store,
) -> Store:
    """The process's store of a folder. Nothing is opened on the disk until its first operation.

    Arguments:
        path: the folder; it need not exist.
        options: how to open it. None: as this process uses it already, otherwise with default options.
        make: makes the object if there is none yet.
    Returns:
        Always the same object for the same folder.
    Raises:
        ConfigurationError: the folder is already used with other options in this process.
    """
    real_path = os.path.realpath(os.fspath(path))
    with _lock:
        store = _stores.get(real_path)
        if store is None:
            store = _stores[real_path] = make(real_path, options or StoreOptions())
        elif options is not None and store.options != options:
            raise ConfigurationError(
                f"Two aliases use the folder {real_path} with different options: {store.options} and {options}. "
                "Give them the same durability, databases, max_bytes, map_bytes and value_bytes_max."
            )
    return store


def forget_store(store: Store) -> None:
    """Shut a store down and take it from the registry, so that its folder can be opened with other options."""
    with _lock:
        store.shutdown()
        if _stores.get(store.path) is store:
            del _stores[store.path]


def shutdown_all() -> None:
    """Sync and close every store of this process. Runs by itself when the interpreter ends."""
    for store in list(_stores.values()):
        store.shutdown()


def _before_fork() -> None:
    _lock.acquire()
    _quiet.clear()
    for path, store in _stores.items():
        running = store.before_fork()
        _quiet[path] = not running
        if running:
            warnings.warn(
                f"Forking while transactions run on {path} ({', '.join(running.values())}): the child cannot use the store.",
                RuntimeWarning,
                stacklevel=2,
            )


def _after_fork_in_parent() -> None:
    for path in _quiet:
        _stores[path].after_fork_in_parent()
    _quiet.clear()  # a later fork may come without its before-hook
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for path, store in _stores.items():
        if _quiet.get(path):
            store.after_fork(announced=True)
    _quiet.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(shutdown_all)
