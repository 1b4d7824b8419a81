"""Which caches are compared: what each needs, how its server is started, and how Django is told to use it.

A peer is a description. ``start`` makes an *instance* of it: a cache with a store or a server of its own, so that two
instances of one peer never share data.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.servers import Server, Workspace

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
FILEBASED = "django.core.cache.backends.filebased.FileBasedCache"
DATABASE = "django.core.cache.backends.db.DatabaseCache"
REDIS = "django.core.cache.backends.redis.RedisCache"
PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
OURS = "django_keyspace.backend.KeyspaceCache"

#: Django's backends cull at 300 entries by default, which would measure the culling and not the cache.
NO_CULLING = {"MAX_ENTRIES": 10_000_000}

MEMCACHED_MEGABYTES = 1024
DISKCACHE_BYTES = 8 << 30

Config = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """One running cache: the alias under which Django knows it, its settings, and its server if it has one."""

    alias: str
    config: Config
    server: Server | None = None


@dataclass(frozen=True)
class Peer:
    """One row of the comparison.

    ``packages`` maps the modules that must import to the distributions whose versions are recorded; ``program`` is the
    server's executable. ``cache`` is False for what is no Django cache (only plain operations are measured then);
    ``lists_folder`` is True where each set looks at all entries, which large stores would never finish. ``finish``
    closes what this process keeps open, before the folders are removed.
    """

    name: str
    title: str
    backend: str
    launch: Callable[[Workspace, str], tuple[Config, Server | None]]
    packages: tuple[tuple[str, str], ...] = ()
    program: str | None = None
    cache: bool = True
    lists_folder: bool = False
    finish: Callable[[], None] | None = None

    def why_absent(self) -> str | None:
        """Why this peer can't be measured on this machine; None when it can."""
        for module, distribution in self.packages:
            try:
                importlib.import_module(module)
            except ImportError as error:
                return f"{distribution} can't be imported: {error}"
        if self.program is not None and shutil.which(self.program) is None:
            return f"the program {self.program} is not installed"
        module, _, name = self.backend.rpartition(".")
        try:
            getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            return f"{self.backend} can't be imported: {error}"
        return None

    def versions(self) -> dict[str, str]:
        """The versions of what this row measures: packages and server."""
        found = {}
        for _module, distribution in self.packages:
            found[distribution] = distribution_version(distribution)
        if self.program is not None:
            found[self.program] = program_version(self.program)
        return found

    def start(self, workspace: Workspace, tag: str) -> Instance:
        """Make an instance with a store or server of its own.

        Arguments: the run's workspace; a tag that tells this instance from the peer's others.
        Errors: ServerFailed when its server does not come up.
        """
        alias = f"{self.name}-{tag}"
        config, server = self.launch(workspace, alias)
        return Instance(alias, {"BACKEND": self.backend, **config}, server)


def distribution_version(distribution: str) -> str:
    """The version of an installed distribution, or of a module that lies beside the benchmarks."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return str(importlib.import_module(distribution.replace("-", "_")).__version__)
    except (ImportError, AttributeError):
        return "not installed"


def program_version(program: str) -> str:
    """The version that a server program reports about itself, or ``unknown``."""
    flag = "-V" if program == "memcached" else "--version"
    output = subprocess.run([program, flag], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(r"\d+\.\d+[\w.-]*", output.stdout + output.stderr)
    return found.group() if found else "unknown"


def _locmem(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": alias, "OPTIONS": NO_CULLING}, None


def _filebased(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": str(workspace.folder(alias)), "OPTIONS": NO_CULLING}, None


def _database(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    from django.core.management import call_command

    table = re.sub(r"\W", "_", alias)
    call_command("createcachetable", table, verbosity=0)
    return {"LOCATION": table, "OPTIONS": NO_CULLING}, None


def redis_server(workspace: Workspace, alias: str) -> Server:
    """Start a Redis that keeps nothing on disk."""
    folder = workspace.folder(alias)
    return workspace.start_server(
        alias,
        lambda port: (
            ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
            + ["--dir", str(folder)]
        ),
    )


def _django_redis(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    server = redis_server(workspace, alias)
    options = {"CLIENT_CLASS": "django_redis.client.DefaultClient"}
    return {"LOCATION": f"redis://127.0.0.1:{server.port}/0", "OPTIONS": options}, server


def _redis(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    server = redis_server(workspace, alias)
    return {"LOCATION": f"redis://127.0.0.1:{server.port}/0"}, server


def _memcached(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    limits = ["-m", str(MEMCACHED_MEGABYTES), "-U", "0", "-t", "2"]
    # The -u flag matters only to a superuser, whom memcached otherwise refuses to serve.
    server = workspace.start_server(
        alias, lambda port: ["memcached", "-l", "127.0.0.1", "-p", str(port), "-u", "root", *limits]
    )
    return {"LOCATION": f"127.0.0.1:{server.port}"}, server


def _diskcache(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": str(workspace.folder(alias)), "OPTIONS": {"size_limit": DISKCACHE_BYTES}}, None


def _raw_lmdb(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": str(workspace.folder(alias))}, None


def _embedded(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": str(workspace.folder(alias))}, None


def _close_stores() -> None:
    from django_keyspace.store.registry import shutdown_all

    shutdown_all()


def _embedded_commit(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    return {"LOCATION": str(workspace.folder(alias)), "OPTIONS": {"durability": "commit"}}, None


def node_command(port: int, data: Path) -> list[str]:
    """The command line of a single node of ours."""
    flags = ["--id", "n1", "--listen", f"127.0.0.1:{port}", "--data", str(data)]
    return [sys.executable, "-m", "django_keyspace.node", *flags]


def _node(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    data = workspace.folder(alias)
    server = workspace.start_server(alias, lambda port: node_command(port, data))
    return {"LOCATION": f"keyspace://127.0.0.1:{server.port}/0"}, server


def _node_unix(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    config, server = _node_unix_direct(workspace, alias)
    return {**config, "OPTIONS": {"replica": False}}, server


def _node_unix_direct(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    data = workspace.folder(alias)
    server = workspace.start_server(alias, lambda port: node_command(port, data))
    return {"LOCATION": f"keyspace+unix://{data}/node.sock"}, server


_clusters = contextlib.ExitStack()


def _beside(workspace: Workspace, alias: str) -> tuple[Config, Server | None]:
    """Three nodes, and reads beside the first one."""
    from django_keyspace.testing import running_cluster

    cluster = _clusters.enter_context(running_cluster(3, data=workspace.folder(alias)))
    options = {"consistency": "session", "replica": str(cluster.nodes["n1"].data)}
    return {"LOCATION": cluster.location, "OPTIONS": options}, None


def _close_clusters() -> None:
    _close_stores()
    _clusters.close()


_DJANGO = (("django", "Django"),)
_KEYSPACE = (*_DJANGO, ("lmdb", "lmdb"), ("msgpack", "msgpack"), ("django_keyspace", "django-keyspace"))

PEERS: tuple[Peer, ...] = (
    Peer("embedded", "django-keyspace, embedded", OURS, _embedded, _KEYSPACE, finish=_close_stores),
    Peer(
        "embedded-commit",
        "django-keyspace, embedded, fsync per commit",
        OURS,
        _embedded_commit,
        _KEYSPACE,
        finish=_close_stores,
    ),
    Peer("node", "django-keyspace, one node over TCP", OURS, _node, (*_KEYSPACE, ("django_keyspace.node", "uvloop"))),
    Peer(
        "node-unix",
        "django-keyspace, one node over its Unix socket alone",
        OURS,
        _node_unix,
        (*_KEYSPACE, ("django_keyspace.node", "uvloop")),
    ),
    Peer(
        "node-unix-direct",
        "django-keyspace, one node over its Unix socket, reads from its store",
        OURS,
        _node_unix_direct,
        (*_KEYSPACE, ("django_keyspace.node", "uvloop")),
        finish=_close_stores,
    ),
    Peer(
        "beside",
        "django-keyspace, three nodes, session reads beside one",
        OURS,
        _beside,
        (*_KEYSPACE, ("django_keyspace.node", "uvloop")),
        finish=_close_clusters,
    ),
    Peer("locmem", "LocMemCache", LOCMEM, _locmem, _DJANGO),
    Peer("filebased", "FileBasedCache", FILEBASED, _filebased, _DJANGO, lists_folder=True),
    Peer("database", "DatabaseCache (SQLite)", DATABASE, _database, _DJANGO, lists_folder=True),
    Peer(
        "django-redis",
        "django-redis + hiredis",
        "django_redis.cache.RedisCache",
        _django_redis,
        (*_DJANGO, ("django_redis", "django-redis"), ("redis", "redis"), ("hiredis", "hiredis")),
        "redis-server",
    ),
    Peer("redis", "Django's RedisCache", REDIS, _redis, (*_DJANGO, ("redis", "redis")), "redis-server"),
    Peer("pylibmc", "PyLibMCCache", PYLIBMC, _memcached, (*_DJANGO, ("pylibmc", "pylibmc")), "memcached"),
    Peer(
        "pymemcache", "PyMemcacheCache", PYMEMCACHE, _memcached, (*_DJANGO, ("pymemcache", "pymemcache")), "memcached"
    ),
    Peer(
        "diskcache",
        "diskcache.DjangoCache",
        "diskcache.DjangoCache",
        _diskcache,
        (*_DJANGO, ("diskcache", "diskcache")),
    ),
    Peer("lmdb", "raw py-lmdb, no fsync", "benchmarks.raw_lmdb.RawLmdb", _raw_lmdb, (("lmdb", "lmdb"),), cache=False),
)

PEERS_BY_NAME = {peer.name: peer for peer in PEERS}
