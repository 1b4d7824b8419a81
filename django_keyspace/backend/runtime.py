"""What all backend objects of one alias share in a process: engine, codec, counters.

Django makes one backend object per thread and per task, and a site may make one per call. So the objects are thin, and
everything that costs something is here, once per ``LOCATION`` and ``OPTIONS``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from django_keyspace.backend.codec import Codec
from django_keyspace.backend.degrade import OutageLog
from django_keyspace.backend.embedded import EmbeddedEngine, Engine
from django_keyspace.backend.levels import LeveledEngine, ReadNote
from django_keyspace.conf import Config, make_config
from django_keyspace.status import Status
from django_keyspace.store import Counters, open_store

if TYPE_CHECKING:
    from django_keyspace.backend.replica import Replica

_REMEMBERED_MAX: Final = 256


class Runtime:
    """The shared part of an alias.

    Attributes:
        config: the alias's checked settings.
        engine: carries operations out.
        codec: encodes and decodes values.
        counters: hits and misses of this process.
        outages: counts what ``on_error="miss"`` has swallowed.
        last_status: status of the last call, per thread and task.
        last_read: where the last read with a level was answered, per thread and task.
        safe_engine: the same with safe reads, whatever the option ``consistency`` says.
        replica: the node of this host beside which it reads: see the option of this name.
        scripts: Lua that ``load_script`` was given, by name.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.codec = Codec(config)
        self.outages = OutageLog()
        self.last_status: ContextVar[Status | None] = ContextVar("django_keyspace_last_status", default=None)
        self.last_read: ContextVar[ReadNote | None] = ContextVar("django_keyspace_last_read", default=None)
        self.scripts: dict[str, str] = {}
        self.replica: Replica | None = None
        self.engine: Engine
        if config.is_remote:
            from django_keyspace.backend.transport import remote_engine

            remote = remote_engine(
                config.location,
                timeout_ms=config.timeout_ms,
                leader_timeout_ms=config.leader_timeout_ms,
                security=config.security,
            )
            self.safe_engine: Engine = remote
            self.engine = self.safe_engine
            if config.replica is not None:
                from django_keyspace.backend.beside import BesideEngine, leveled
                from django_keyspace.backend.replica import replica_of

                self.replica = replica_of(remote, config.replica, config.security, config.replica_by_default)
                self.engine = self.safe_engine = beside = BesideEngine(remote, self.replica)
                if config.consistency != "safe":
                    self.engine = leveled(beside, config.consistency, config.max_staleness_ms, self.last_read.set)
            elif config.consistency != "safe":
                self.engine = LeveledEngine(
                    self.safe_engine, config.consistency, config.max_staleness_ms, self.last_read.set
                )
            self.counters = Counters()
        else:
            store = open_store(config.location, config.store)
            self.engine = self.safe_engine = EmbeddedEngine(store, config.timeout_ms)
            self.counters = store.counters


_runtimes: dict[Config, Runtime] = {}
_by_identity: dict[tuple[Any, int], tuple[Any, Runtime]] = {}
_lock = threading.Lock()


def get_runtime(location: Any, options: Mapping[str, Any]) -> Runtime:
    """The runtime of an alias.

    Arguments:
        location: the alias's ``LOCATION``.
        options: the alias's ``OPTIONS``; the same object means the same options, as in Django's settings.
    Raises:
        ConfigurationError: see :func:`django_keyspace.conf.make_config`.
    """
    identity = (str(location), id(options))
    remembered = _by_identity.get(identity)
    if remembered is not None and remembered[0] is options:
        return remembered[1]
    config = make_config(location, options)
    with _lock:
        runtime = _runtimes.get(config)
        if runtime is None:
            runtime = _runtimes[config] = Runtime(config)
        if len(_by_identity) >= _REMEMBERED_MAX:
            _by_identity.clear()
        _by_identity[identity] = (options, runtime)
    return runtime


def _after_fork_in_child() -> None:
    """A thread that this process did not inherit may have held these locks."""
    global _lock
    _lock = threading.Lock()
    for runtime in _runtimes.values():
        runtime.outages.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def forget_runtimes() -> None:
    """Forget every alias; the next backend object makes its runtime anew. For tests and for changed settings."""
    with _lock:
        _by_identity.clear()
        _runtimes.clear()
