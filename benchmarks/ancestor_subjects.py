"""What ``ancestors.py`` drives: clients of the ancestors' APIs, ours, beside py-lmdb and redis-py.

Each subject has the measures that it can do as methods; a method does a bounded amount of work once and answers how many
calls or keys that was.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from benchmarks.data import chunks, keys, text
from benchmarks.servers import Workspace

VALUE = text(100)
CALLS = 200
BULK = 100
BATCH = 10_000
LISTED = 100_000
LOAD = 10_000


def searched_keys(count: int) -> Iterator[str]:
    """Keys of the large store: most are not found by :data:`PATTERN`."""
    return (f"article:{number:07d}:{number * 7919 % 1_000_003:06d}" for number in range(count))


PATTERN = r":0000[0-9]7$"
SIMILAR_TO = "article:0000042:332598"


class Small:
    """A subject's data for single calls, bulks of 100 and batches of 10,000: the same in every subject."""

    def __init__(self) -> None:
        self.single = itertools.cycle(keys(1_000))
        self.bulks = itertools.cycle(list(chunks(keys(BULK * 20, "bulk"), BULK)))
        self.batch = [f"batch:{number:08d}" for number in range(BATCH)]

    def some(self) -> list[str]:
        """The keys of the next calls."""
        return list(itertools.islice(self.single, CALLS))


class Subject:
    """The base of all subjects.

    Arguments:
        workspace: where stores and servers are.
        listed: keys with the prefix ``list:``.
        searched: keys of the large store.
    """

    def __init__(self, workspace: Workspace, listed: int, searched: int) -> None:
        self.small, self.listed, self.searched = Small(), listed, searched
        self.open(workspace)

    def open(self, workspace: Workspace) -> None:
        """Make the store, or start the server."""
        raise NotImplementedError

    def put(self, pairs: dict[str, str]) -> None:
        """Store pairs, to prepare a measure."""
        raise NotImplementedError

    def put_searched(self, pairs: dict[str, str]) -> None:
        """Store pairs of the large store."""
        self.put(pairs)

    def prepare(self, measure: str) -> None:
        """Store what a measure needs."""
        if measure.startswith("list"):
            names = [f"list:{number:07d}" for number in range(self.listed)]
            for some in chunks(names, LOAD):
                self.put(dict.fromkeys(some, "v"))
        elif measure.startswith("match"):
            for some in chunks(list(searched_keys(self.searched)), LOAD):
                self.put_searched(dict.fromkeys(some, "v"))
        else:
            self.put(dict.fromkeys(keys(1_000), VALUE))
            self.put(dict.fromkeys(keys(BULK * 20, "bulk"), VALUE))
            self.put(dict.fromkeys(self.small.batch, VALUE))

    def close(self) -> None:
        """Let go of connections."""


def _expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise LookupError(f"it answered {found!r:.80} instead of {wanted!r:.80}")


class Keyspace(Subject):
    """Our ``keyspace.Client`` on a folder."""

    durability = "interval"

    def open(self, workspace: Workspace) -> None:
        from django_keyspace.keyspace import Client

        self.client = Client(
            workspace.folder(f"{type(self).__name__}-store"), durability=self.durability, max_bytes=4 << 30
        )

    def put(self, pairs: dict[str, str]) -> None:
        self.client.begin()
        for key, value in pairs.items():
            self.client.set(key, value)
        _expect(self.client.submit(), 0)

    def get(self) -> int:
        get = self.client.get
        for key in self.small.some():
            _expect(get(key), VALUE)
        return CALLS

    def set(self) -> int:
        put = self.client.set
        for key in self.small.some():
            _expect(put(key, VALUE), 0)
        return CALLS

    def incr(self) -> int:
        self.client.set("counter", "0")
        for _ in range(CALLS):
            self.client.add("counter", 1)
        _expect(self.client.get("counter"), str(CALLS))
        return CALLS

    def get_100(self) -> int:
        return self._get(next(self.small.bulks))

    def set_100(self) -> int:
        self.put(dict.fromkeys(next(self.small.bulks), VALUE))
        return BULK

    def get_10000(self) -> int:
        return self._get(self.small.batch)

    def set_10000(self) -> int:
        put = self.client.set
        self.client.begin()
        for key in self.small.batch:
            put(key, VALUE)
        _expect(self.client.submit(), 0)
        return BATCH

    def list(self) -> int:
        _expect(len(self.client.list_keys("list:") or ()), self.listed)
        return self.listed

    def _get(self, names: list[str]) -> int:
        get = self.client.get
        self.client.begin()
        for key in names:
            get(key)
        _expect(self.client.submit(), 0)
        return len(names)


class KeyspaceCommit(Keyspace):
    """The same with an fsync before each commit returns."""

    durability = "commit"


class KeyspaceNode(Keyspace):
    """The same through a node."""

    def open(self, workspace: Workspace) -> None:
        from django_keyspace.keyspace import Client

        self.client = Client([f"127.0.0.1:{start_node(workspace, 'keyspace-node')}"])


def start_node(workspace: Workspace, name: str) -> int:
    """Start a node. Returns: its port."""
    import sys

    folder = workspace.folder(name)
    command = [sys.executable, "-m", "django_keyspace.node", "--id", "n1", "--data", str(folder)]
    limits = ["--max-bytes", str(4 << 30)]
    return workspace.start_server(name, lambda port: [*command, "--listen", f"127.0.0.1:{port}", *limits]).port


class Kyoto(Subject):
    """Our ``kyoto.KyotoTycoon`` on a folder."""

    def open(self, workspace: Workspace) -> None:
        from django_keyspace.kyoto import KyotoTycoon

        folder = workspace.folder(f"{type(self).__name__}-store")
        self.client = KyotoTycoon(folder, durability="interval", max_bytes=4 << 30)

    def put(self, pairs: dict[str, str]) -> None:
        self.client.set_bulk(pairs)

    def put_searched(self, pairs: dict[str, str]) -> None:
        self.client.set_bulk(pairs, db=1)

    def get(self) -> int:
        get = self.client.get
        for key in self.small.some():
            _expect(get(key), VALUE)
        return CALLS

    def set(self) -> int:
        put = self.client.set
        for key in self.small.some():
            put(key, VALUE)
        return CALLS

    def incr(self) -> int:
        before = self.client.incr("counter", 0)
        for _ in range(CALLS):
            self.client.incr("counter")
        _expect(self.client.incr("counter", 0), before + CALLS)
        return CALLS

    def get_100(self) -> int:
        _expect(len(self.client.get_bulk(next(self.small.bulks))), BULK)
        return BULK

    def set_100(self) -> int:
        _expect(self.client.set_bulk(dict.fromkeys(next(self.small.bulks), VALUE)), BULK)
        return BULK

    def get_10000(self) -> int:
        _expect(len(self.client.get_bulk(self.small.batch)), BATCH)
        return BATCH

    def set_10000(self) -> int:
        _expect(self.client.set_bulk(dict.fromkeys(self.small.batch, VALUE)), BATCH)
        return BATCH

    def list(self) -> int:
        _expect(len(self.client.match_prefix("list:")), self.listed)
        return self.listed

    def match_regex(self) -> int:
        _expect(bool(self.client.match_regex(PATTERN, db=1)) or self.searched < LISTED, True)
        return self.searched

    def match_similar(self) -> int:
        _expect(
            SIMILAR_TO in self.client.match_similar(SIMILAR_TO, 2, db=1), SIMILAR_TO in searched_keys(self.searched)
        )
        return self.searched


class KyotoNode(Kyoto):
    """The same through a node."""

    def open(self, workspace: Workspace) -> None:
        from django_keyspace.kyoto import KyotoTycoon

        self.client = KyotoTycoon("127.0.0.1", start_node(workspace, "kyoto-node"), timeout=60)


class Lmdb(Subject):
    """py-lmdb with nothing around it: the limit."""

    def open(self, workspace: Workspace) -> None:
        from benchmarks.raw_lmdb import RawLmdb

        self.store = RawLmdb(str(workspace.folder("lmdb-store")), {})

    def put(self, pairs: dict[str, str]) -> None:
        self.store.set_many(pairs)

    def get(self) -> int:
        for key in self.small.some():
            self.store.get(key)
        return CALLS

    def set(self) -> int:
        for key in self.small.some():
            self.store.set(key, VALUE)
        return CALLS

    def incr(self) -> int:
        for _ in range(CALLS):
            self.store.incr("counter")
        return CALLS

    def get_100(self) -> int:
        return len(self.store.get_many(next(self.small.bulks)))

    def set_100(self) -> int:
        self.store.set_many(dict.fromkeys(next(self.small.bulks), VALUE))
        return BULK

    def get_10000(self) -> int:
        return len(self.store.get_many(self.small.batch))

    def set_10000(self) -> int:
        self.store.set_many(dict.fromkeys(self.small.batch, VALUE))
        return BATCH

    def list(self) -> int:
        _expect(len(self.store.keys("list:")), self.listed)
        return self.listed

    def match_regex(self) -> int:
        search = re.compile(PATTERN).search
        _expect(bool([key for key in self.store.keys("article:") if search(key)]) or self.searched < LISTED, True)
        return self.searched


class Redis(Subject):
    """redis-py with hiredis, on a Redis that keeps nothing on disk."""

    def open(self, workspace: Workspace) -> None:
        import redis

        from benchmarks.peers import redis_server

        self.client = redis.Redis(port=redis_server(workspace, "redis").port, decode_responses=True)

    def put(self, pairs: dict[str, str]) -> None:
        self.client.mset(pairs)

    def get(self) -> int:
        for key in self.small.some():
            _expect(self.client.get(key), VALUE)
        return CALLS

    def set(self) -> int:
        for key in self.small.some():
            self.client.set(key, VALUE)
        return CALLS

    def incr(self) -> int:
        for _ in range(CALLS):
            self.client.incr("counter")
        return CALLS

    def get_100(self) -> int:
        return len(self.client.mget(next(self.small.bulks)))

    def set_100(self) -> int:
        self.client.mset(dict.fromkeys(next(self.small.bulks), VALUE))
        return BULK

    def get_10000(self) -> int:
        return self._pipelined(self.client.pipeline(transaction=False).get, [(key,) for key in self.small.batch])

    def set_10000(self) -> int:
        return self._pipelined(self.client.pipeline(transaction=False).set, [(key, VALUE) for key in self.small.batch])

    def _pipelined(self, method: Any, arguments: list[tuple[Any, ...]]) -> int:
        for each in arguments:
            method(*each)
        return len(method.__self__.execute())

    def list(self) -> int:
        _expect(len(list(self.client.scan_iter("list:*", count=1_000))), self.listed)
        return self.listed

    def match_regex(self) -> int:
        list(self.client.scan_iter("*:0000[0-9]7", count=1_000))  # it has no regular expressions: as a glob
        return self.searched

    def close(self) -> None:
        self.client.close()


SUBJECTS: dict[str, tuple[str, type[Subject]]] = {
    "keyspace": ("keyspace.Client on a folder, durability interval", Keyspace),
    "keyspace-commit": ("keyspace.Client on a folder, durability commit", KeyspaceCommit),
    "keyspace-node": ("keyspace.Client through a node", KeyspaceNode),
    "kyoto": ("kyoto.KyotoTycoon on a folder", Kyoto),
    "kyoto-node": ("kyoto.KyotoTycoon through a node", KyotoNode),
    "lmdb": ("py-lmdb alone: the limit", Lmdb),
    "redis": ("redis-py: the everyday peer", Redis),
}
"""By name: what it is, and what drives it."""
