"""Reads beside a node: the same answers as the node's, and a network whenever something is not as it should be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_keyspace.addresses import Endpoint
from django_keyspace.backend import beside
from django_keyspace.backend import replica as module
from django_keyspace.backend.beside import BesideEngine, leveled
from django_keyspace.backend.levels import ReadNote, session
from django_keyspace.backend.replica import STALE_MS, LocalCopy, Replica, is_on_this_host
from django_keyspace.exceptions import KeyspaceError, NoConnection, StorageError, TooStale
from django_keyspace.node.beside import share
from django_keyspace.security import NO_SECURITY
from django_keyspace.store import clock, registry
from django_keyspace.store.freshness import ENDED, FRESHNESS_FILE, READABLE, RECORD_BYTES, Freshness, unpack
from django_keyspace.store.record import HEADER_BYTES

from .neighbour import LOG_MS, Neighbour

WAIT_S = 30
FAR = ("from afar", 1, 2, "n9")


class Cluster:
    """In place of the network: answers every read with the same words, and notes it."""

    def __init__(self, cluster: str | None = None) -> None:
        self.endpoints = (Endpoint("127.0.0.1", 7080),)
        self.cluster = SimpleNamespace(id=cluster, endpoints=self.endpoints)
        self.asked: list[tuple[Any, ...]] = []

    def execute(self, *call: Any) -> Any:
        self.asked.append(call)
        return FAR if call[0] == "at" else "from afar"

    async def aexecute(self, *call: Any) -> Any:
        return self.execute(*call)

    def close(self) -> None:
        self.asked.append(("close",))


class Site:
    """A process of a site beside a neighbour."""

    def __init__(self, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch) -> None:
        self.neighbour = neighbour
        self.cluster: str = neighbour.facts()["cluster"]
        self.far = Cluster(self.cluster)
        self.changes: dict[str, Any] = {}
        self.later_ms = 0
        self.stopped_ns: int | None = None
        self.last: list[ReadNote] = []
        self.replica = Replica(self.far, str(neighbour.folder), NO_SECURITY)  # type: ignore[arg-type]
        self.engine = BesideEngine(self.far, self.replica)  # type: ignore[arg-type]
        monkeypatch.setattr(beside, "clock", SimpleNamespace(boot_ns=self.boot_ns))
        monkeypatch.setattr(module, "ask_node", lambda *_, **__: self.neighbour.facts() | self.changes)

    def open(self) -> LocalCopy:
        """Find the neighbour's store, without a thread."""
        self.replica.copy = copy = self.replica.find()
        copy._boot_ns = self.boot_ns
        return copy

    def boot_ns(self) -> int:
        now_ns = clock.boot_ns() if self.stopped_ns is None else self.stopped_ns
        return now_ns + self.later_ms * 1_000_000

    def at(self, level: str, *call: Any, index: int = 0, staleness_ms: int | None = None) -> Any:
        return self.engine.execute("at", level, index, staleness_ms, call)

    def got(self, key: bytes, level: str = "dirty", **options: Any) -> Any:
        """What is under a key beside the node; "from afar" if the network answered."""
        record = self.at(level, "get", 0, key, **options)[0]
        return record[HEADER_BYTES:] if isinstance(record, bytes) else record

    def until(self, look: Callable[[], bool]) -> None:
        """Read until something holds: threads work beside."""
        deadline_s = threading.Event()
        for _ in range(WAIT_S * 100):
            self.got(b"a")
            if look():
                return
            deadline_s.wait(0.01)
        raise AssertionError(self.replica.figures())

    def close(self) -> None:
        self.replica.close()
        if self.replica._left is not None:
            self.replica._left.end()


@pytest.fixture(scope="module")
def process() -> Iterator[Neighbour]:
    process = Neighbour()
    yield process
    process.close()


@pytest.fixture
def neighbour(process: Neighbour, tmp_path: Path) -> Neighbour:
    process.begin(tmp_path / "n1")
    return process


@pytest.fixture
def site(neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    site = Site(neighbour, monkeypatch)
    yield site
    for thread in threading.enumerate():
        if thread.name == "keyspace-replica":
            thread.join()
    site.close()
    left = [path for path in registry._stores if Path(path).is_relative_to(tmp_path.resolve())]
    assert not left, "a copy has left a store in the registry"


# --- What is read


def test_every_read_is_answered_as_the_node_answers_it(site: Site) -> None:
    for name in (b"a", b"b", b"c1", b"c2"):
        site.neighbour.put(name, b"value of " + name)
    site.open()
    for call in (
        ("get", 0, b"a"),
        ("get", 0, b"missing"),
        ("get", 1, b"a"),
        ("get_many", 0, [b"a", b"missing", b"c1"]),
        ("exists", 0, b"b"),
        ("length", 0, b"b"),
        ("ttl", 0, b"a"),
        ("list", 0, b"c", b"", False, True, 10, False),
        ("list", 0, b"", b"b", True, False, 10, True),
        ("count", 0, b"c", b"", False, True, 0),
    ):
        result, index, age_ms, node = site.at("dirty", *call)
        assert result == site.neighbour.ask("read", *call), call
        assert (index, node) == (4, "n1") and 0 < age_ms <= WAIT_S * 1000
    batch = ("batch", [("get", 0, b"a"), ("exists", 0, b"missing")])
    assert site.at("dirty", *batch)[0] == [("ok", site.neighbour.ask("read", "get", 0, b"a")), ("ok", False)]
    assert (site.far.asked, site.replica.fallbacks, site.replica.reads) == ([], 0, 11)


def test_what_is_no_read_with_a_level_goes_where_it_went(site: Site) -> None:
    site.open()
    for call in (
        ("get", 0, b"a"),
        ("set", 0, b"a"),
        ("status",),
        ("members",),
        ("at", "safe", 0, None, ("get", 0, b"a")),
    ):
        site.engine.execute(*call)
    site.engine.execute("at", "lease", 0, None, ("get", 0, b"a"))
    site.engine.execute("at", "dirty", 0, None, ("status",))
    assert site.engine.read("get", 0, b"a") == site.engine.write("incr", 0, b"a") == "from afar"
    assert len(site.far.asked) == 9 and site.replica.reads == site.replica.fallbacks == 0


def test_a_read_sees_what_is_applied_meanwhile(site: Site) -> None:
    site.open()
    for number in range(5):
        site.neighbour.put(b"a", b"%d" % number)
        assert site.got(b"a") == b"%d" % number
    assert site.far.asked == []


def test_a_session_reads_here_only_what_it_has_seen(site: Site) -> None:
    index = site.neighbour.put(b"a", b"old")
    site.open()
    with session({site.cluster: index + 1}) as seen:
        assert site.got(b"a", "session") == "from afar", "this session has seen more"
        assert site.got(b"a", "dirty") == b"old"
        site.neighbour.put(b"a", b"new")
        assert site.got(b"a", "session") == b"new"
        site.neighbour.put(b"b")
        site.got(b"a", "session")
        assert seen.as_dict() == {site.cluster: index + 2}, "what was read was seen"
    with session({"another cluster": 10**9}):
        assert site.got(b"a", "session") == b"new"
    assert site.got(b"a", "session", index=index + 3) == "from afar"
    assert site.replica.copy is not None and site.replica.fallbacks == 2, "it is not left for that"


def test_records_expire_by_the_log_clock_moved_on_by_the_hosts(site: Site) -> None:
    site.neighbour.put(b"a", b"v", 60_000)
    site.open()
    assert site.got(b"a") == b"v"
    site.neighbour.tell(log_ms=LOG_MS + 59_000)
    site.later_ms = 500
    assert site.got(b"a") == b"v"
    site.later_ms = 1_100
    assert site.got(b"a") is None
    site.neighbour.tell(log_ms=LOG_MS)
    site.neighbour.ask("apply", [], LOG_MS + 60_000)
    assert site.got(b"a") is None, "by the store's own clock, whatever the file says"
    assert site.far.asked == []


def test_a_read_that_allows_less_than_the_age_goes_over_the_network(site: Site) -> None:
    site.neighbour.put(b"a")
    site.open()
    site.neighbour.tell(age_ms=5_000)
    site.later_ms = 20  # so that it looks again
    assert site.got(b"a", staleness_ms=4_999) == "from afar"
    assert site.got(b"a", staleness_ms=WAIT_S * 1000) == b"v"
    assert 5_000 <= site.at("dirty", "get", 0, b"a")[2] <= WAIT_S * 1000
    site.later_ms = 1_000
    assert site.at("dirty", "get", 0, b"a")[2] >= 5_900, "it grows older by itself"
    site.neighbour.tell(age_ms=2**53)  # nobody knows
    site.later_ms = 1_100
    assert site.got(b"a", staleness_ms=2**40) == "from afar" and site.got(b"a") == b"v"


# --- When it is of no use


LEAVING = {
    "it is silent": {"boot_ms": 0},
    "it has ended": {"flags": ENDED},
    "another life": {"life": b"x" * 16},
    "another generation": {"generation": 99},
}


@pytest.mark.parametrize("why", LEAVING)
def test_a_node_that_is_gone_is_left_and_found_again(site: Site, why: str) -> None:
    site.neighbour.put(b"a")
    site.open()
    site.later_ms = 20
    assert site.got(b"a") == b"v"
    site.neighbour.tell(**LEAVING[why])
    site.later_ms = 40
    assert site.got(b"a") == "from afar" and site.replica.fallbacks == 1
    site.neighbour.tell()
    site.until(lambda: site.replica.copy is not None)
    assert site.got(b"a") == b"v"


def test_time_without_a_word_is_enough(site: Site) -> None:
    site.neighbour.put(b"a")
    site.open()
    site.later_ms = STALE_MS // 2
    site.neighbour.tell()
    assert site.got(b"a") == b"v"
    site.neighbour.kill()
    site.later_ms = STALE_MS * 20
    assert site.got(b"a") == "from afar" and site.replica.copy is None


def test_a_node_that_catches_up_is_not_left(site: Site) -> None:
    site.neighbour.put(b"a")
    copy = site.open()
    site.neighbour.tell(flags=0, generation=0)
    site.later_ms = 20
    assert site.got(b"a") == "from afar"
    site.neighbour.tell()
    assert site.got(b"a") == b"v" and site.replica.copy is copy


def test_a_store_that_was_replaced_is_left_at_the_next_read(site: Site) -> None:
    site.neighbour.put(b"a", b"old")
    copy = site.open()
    assert site.got(b"a") == b"old"
    assert site.neighbour.ask("install") == 2  # nothing was told yet
    site.neighbour.ask("apply", [("set", 0, b"a", (1, 0, b"new"), None, "always")])
    assert site.got(b"a") == "from afar"
    site.neighbour.tell()
    site.until(lambda: site.replica.copy is not None)
    assert site.got(b"a") == b"new" and site.replica.copy is not copy
    with pytest.raises(StorageError, match="not read here any more"):
        copy.store.visit(0, LOG_MS, "get", (0, b"a"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boot_id": "another"}, "another machine, or in another boot"),
        ({"boot_ms": 5}, "another clock"),
        ({"boot_ms": 2**60}, "another clock"),
        ({"cluster": "another"}, "which LOCATION does not name"),
        ({"life": b"y" * 16}, "has ended"),
        ({"generation": 7}, "was replaced"),
        ({"store": "/nowhere"}, "nowhere"),
        ({"databases": 5}, "fewer than 5 databases"),
    ],
)
def test_what_cannot_be_read_is_not_opened(site: Site, change: dict[str, Any], says: str) -> None:
    site.changes = change
    with pytest.raises(KeyspaceError, match=says):
        site.replica.find()
    assert site.got(b"a") == "from afar"


def test_a_folder_without_a_node(tmp_path: Path) -> None:
    lone = Replica(Cluster(), str(tmp_path), NO_SECURITY)  # type: ignore[arg-type]
    with pytest.raises(NoConnection):
        lone.find()


def test_before_any_node_has_answered_the_addresses_tell_whose_it_is(site: Site) -> None:
    site.far.cluster.id = None
    site.open()
    site.replica.close()
    site.changes = {"addresses": ("10.0.0.1:7080", None)}
    with pytest.raises(NoConnection, match="not known before"):
        site.replica.find()


def test_another_cluster_at_the_same_addresses(site: Site) -> None:
    site.neighbour.put(b"a")
    site.open()
    site.far.cluster.id = "another"
    site.later_ms = 20
    assert site.got(b"a") == "from afar" and site.replica.copy is None


def test_a_wiped_node(site: Site) -> None:
    site.neighbour.put(b"a", b"old")
    site.open()
    site.neighbour.kill()
    shutil.rmtree(site.neighbour.folder)
    site.neighbour.begin(site.neighbour.folder)
    site.neighbour.put(b"a", b"new")
    site.later_ms = STALE_MS + 1_000  # the file that is mapped is nobody's
    assert site.got(b"a") == "from afar"
    site.until(lambda: "which LOCATION does not name" in str(site.replica.last_error))
    site.far.cluster.id = site.neighbour.facts()["cluster"]

    def found() -> bool:
        site.neighbour.tell()
        return site.replica.copy is not None

    site.until(found)
    assert site.got(b"a") == b"new"


def test_a_record_that_is_torn_sends_the_read_away_and_nothing_else(site: Site) -> None:
    site.neighbour.put(b"a")
    copy = site.open()
    path = site.neighbour.folder / FRESHNESS_FILE
    whole = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(whole[:20] + b"\xff" * 4)
    site.later_ms = 20
    assert site.got(b"a") == "from afar" and site.replica.copy is copy
    with open(path, "r+b") as file:
        file.write(whole)
    assert site.got(b"a") == b"v"


def test_no_flipped_bit_of_a_record_goes_unnoticed() -> None:
    record = Freshness(READABLE, 1, 2, 3, 4, 5, 6, b"l" * 16)
    data = record.pack()
    assert unpack(data) == record and len(data) == RECORD_BYTES
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        assert unpack(bytes(flipped)) is None
    assert unpack(b"") is None and unpack(data[:-1]) is None and unpack(bytes(RECORD_BYTES)) is None


@pytest.mark.parametrize("call", [("get", 0, b""), ("get", 7, b"a"), ("get", 0), ("list", 0)])
def test_a_call_that_is_not_legal_is_the_networks_to_refuse(site: Site, call: Any) -> None:
    site.neighbour.put(b"a")
    copy = site.open()
    assert site.at("dirty", *call) == FAR
    assert site.replica.copy is copy and site.got(b"a") == b"v"


def test_each_reason_is_logged_once_in_a_while(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.open()
    with caplog.at_level(logging.WARNING, "django_keyspace.replica"):
        for _ in range(50):
            site.at("dirty", "get", 7, b"a")
    assert len(caplog.records) == 1 and "over the network" in caplog.text


# --- What LMDB asks for


def test_a_map_that_the_node_has_grown(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.StoreOptions, "__init__", _with_small_map(module.StoreOptions.__init__))
    site.neighbour.begin(tmp_path / "small", 2**20)
    site.far.cluster.id = site.neighbour.facts()["cluster"]
    site.neighbour.put(b"a")
    copy = site.open()
    assert site.got(b"a") == b"v" and copy.store._environment.lmdb.info()["map_size"] == 2**20  # type: ignore[union-attr]
    for number in range(40):
        site.neighbour.put(b"large %d" % number, b"x" * 100_000)
    assert site.got(b"large 39") == b"x" * 100_000 and site.got(b"a") == b"v"
    assert site.far.asked == []


def _with_small_map(init: Callable[..., None]) -> Callable[..., None]:
    return lambda self, **fields: init(self, **{**fields, "map_bytes": 2**20})


def test_nothing_is_written_beside_the_node(site: Site) -> None:
    site.neighbour.put(b"a")
    folder = site.neighbour.folder

    def files() -> dict[str, tuple[int, int]]:
        found = {path: path.stat() for path in folder.rglob("*") if path.name not in ("lock.mdb", FRESHNESS_FILE)}
        return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items() if path.is_file()}

    before = files()
    copy = site.open()
    assert site.got(b"a") == b"v"
    with pytest.raises(StorageError, match="written by its node alone"):
        copy.store.write("delete", 0, b"a")
    site.replica.close()
    assert files() == before


def test_slots_are_used_again(site: Site) -> None:
    site.neighbour.put(b"a")
    most = site.neighbour.ask("readers") + 4
    site.open()
    for _ in range(30):
        threads = [threading.Thread(target=site.got, args=(b"a",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert site.neighbour.ask("readers") <= most and site.far.asked == []


def test_a_forked_worker_reads_too(site: Site) -> None:
    site.neighbour.put(b"a", b"before")
    site.open()
    assert site.got(b"a") == b"before"
    site.neighbour.put(b"a", b"after")
    # A fork of a large process may take its time, and the neighbour has said its word.
    site.stopped_ns = clock.boot_ns()
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if site.got(b"a") == b"after" and site.far.asked == [] else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert site.got(b"a") == b"after"
    assert site.far.asked == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may pass, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_somebody_of_the_group_reads_and_nobody_else(site: Site, open_folder: Path) -> None:
    folder, group = open_folder / "n1", 54_321
    site.neighbour.begin(folder)
    site.neighbour.put(b"a")
    site.far.cluster.id = site.neighbour.facts()["cluster"]
    site.replica._place = str(folder)
    (folder / "node.sock").touch()
    share(folder, folder / "store-1", group)

    def read_as(own_group: int) -> int:
        child = os.fork()
        if not child:
            code = 1
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(own_group)
                os.setuid(54_321)
                try:
                    site.open()
                    code = 0 if site.got(b"a") == b"v" else 2
                except (KeyspaceError, PermissionError):
                    code = 3
            os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert (read_as(group), read_as(group + 1)) == (0, 3)


def test_threads_read_while_the_store_is_replaced_again_and_again(site: Site) -> None:
    site.neighbour.put(b"a", b"0")
    site.open()
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        last = 0
        try:
            while not done.is_set():
                found = site.got(b"a", "session")
                if found != "from afar":
                    assert int(found) >= last, "time went back"
                    last = int(found)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, 30):
            site.neighbour.put(b"a", b"%d" % number)
            if number % 10 == 0:
                site.neighbour.ask("install")
                site.neighbour.tell()
                # "session" is of this process: what it read far away is of no cluster.
                site.until(lambda: site.replica.copy is not None)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == [] and site.replica.reads > 0
    assert site.neighbour.ask("readers") < 20


# --- How it is found


def test_reads_do_not_wait_for_the_search(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.neighbour.put(b"a")
    searches, going_on = [], threading.Event()
    find = site.replica.find

    def slow() -> LocalCopy:
        searches.append(threading.current_thread().name)
        assert going_on.wait(WAIT_S)
        return find()

    monkeypatch.setattr(site.replica, "find", slow)
    assert [site.got(b"a") for _ in range(20)] == ["from afar"] * 20
    assert len(searches) <= 1 and (site.replica.reads, site.replica.fallbacks) == (0, 20)
    going_on.set()
    site.until(lambda: site.replica.copy is not None)
    assert site.got(b"a") == b"v" and searches == ["keyspace-replica"]
    assert site.replica.figures()["node"] == "n1"


def test_a_search_that_fails_is_not_begun_again_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.changes = {"boot_id": "another"}
    now_s = 1_000.0
    monkeypatch.setattr(module, "monotonic", lambda: now_s)
    pauses = []
    for _ in range(10):
        site.replica._seek()
        pauses.append(site.replica._seek_at_s - now_s)
        began = threading.active_count()
        site.replica.seek()
        assert threading.active_count() == began, "it is too early"
        now_s = site.replica._seek_at_s
    assert 0 < pauses[0] < 0.5 and 5 < pauses[-1] < 25


def test_auto_asks_the_nodes_of_this_host(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(endpoint: Endpoint, *_: Any, **__: Any) -> dict[str, Any]:
        asked.append(str(endpoint))
        if endpoint.port == 7081:
            raise NoConnection("It is not there.")
        return site.neighbour.facts()

    monkeypatch.setattr(module, "ask_node", ask)
    site.replica._place = "auto"
    here = [Endpoint("127.0.0.1", 7080), Endpoint("192.0.2.1", 7080), Endpoint("127.0.0.1", 7081)]
    site.far.cluster.endpoints = tuple(here)
    assert site.open().node == "n1"
    assert asked == ["127.0.0.1:7081", "127.0.0.1:7080", str(site.neighbour.folder / "node.sock")]
    site.replica.close()
    site.far.cluster.endpoints = (here[1],)
    with pytest.raises(NoConnection, match="No node of the location is on this host"):
        site.replica.find()


def test_which_addresses_are_of_this_host() -> None:
    assert is_on_this_host(Endpoint("127.0.0.1", 1)) and is_on_this_host(Endpoint("localhost", 1))
    assert not is_on_this_host(Endpoint("192.0.2.1", 1)) and not is_on_this_host(Endpoint("no such host.invalid", 1))


# --- The engines


def test_coroutines_read_in_their_loop_and_long_reads_beside_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.neighbour.put(b"a")
    site.open()
    where = []
    answer = site.engine.answer

    def noted(*arguments: Any) -> Any:
        where.append((arguments[3][0], threading.current_thread() is threading.main_thread()))
        return answer(*arguments)

    monkeypatch.setattr(site.engine, "answer", noted)

    async def main() -> None:
        short = await site.engine.aexecute("at", "dirty", 0, None, ("get", 0, b"a"))
        long = await site.engine.aexecute("at", "dirty", 0, None, ("list", 0, b"", b"", False, True, 10, False))
        assert short[0][HEADER_BYTES:] == b"v" and long[0][0] == [b"a"]
        site.replica.close()
        site.changes = {"boot_id": "another"}
        assert await site.engine.aexecute("at", "dirty", 0, None, ("get", 0, b"a")) == FAR
        assert await site.engine.aexecute("set", 0, b"a") == "from afar"

    asyncio.run(main())
    assert where == [("get", True), ("list", False), ("get", True)]


@pytest.mark.parametrize("level", ["dirty", "session"])
def test_the_short_way_of_an_alias_with_a_level(site: Site, level: str) -> None:
    index = site.neighbour.put(b"a")
    engine = leveled(site.engine, level, 1_000_000, site.last.append)
    site.replica._seek_at_s = float("inf")
    assert engine.read("get", 0, b"a") == "from afar", "there is no copy yet"
    site.open()
    assert engine.read("get", 0, b"a")[HEADER_BYTES:] == engine.execute("get", 0, b"a")[HEADER_BYTES:] == b"v"
    assert [(node, index) for node, index, _ in site.last] == [("n9", 1), ("n1", index), ("n1", index)]
    assert engine.write("set", 0, b"a") == "from afar"

    async def main() -> None:
        assert (await engine.aexecute("get", 0, b"a"))[HEADER_BYTES:] == b"v"
        assert (await engine.aexecute("count", 0, b"", b"", False, True, 0)) == (1, None)
        assert await engine.aexecute("set", 0, b"a") == "from afar"
        assert site.last[-1][:2] == ("n1", index)
        site.neighbour.tell(age_ms=2_000_000)
        site.later_ms = 20
        assert await engine.aexecute("get", 0, b"a") == "from afar"

    asyncio.run(main())
    site.neighbour.tell(age_ms=2_000_000)
    site.later_ms = 40
    assert engine.read("get", 0, b"a") == "from afar" and site.replica.copy is not None
    site.neighbour.tell(flags=ENDED)
    site.later_ms = 60
    assert engine.read("get", 0, b"a") == "from afar" and site.replica.copy is None


def test_an_alias_with_a_stronger_level_has_no_short_way(site: Site) -> None:
    site.open()
    engine = leveled(site.engine, "lease", None, site.last.append)
    assert engine.read("get", 0, b"a") == "from afar" and site.replica.reads == 0


def open_files() -> list[str]:
    """What this process has open, where the system tells; the same name may stand there twice."""
    found = []
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):  # it was the listing's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if name.startswith("/") and not name.startswith("/proc"))


def test_closing_lets_go_of_both(site: Site) -> None:
    folder, before = str(site.neighbour.folder), open_files()
    copy = site.open()
    site.changes = {"store": "/nowhere"}
    with pytest.raises(StorageError):
        site.replica.find()
    site.engine.close()
    assert open_files() == before and not [name for name in open_files() if name.startswith(folder)]
    assert site.replica.copy is None and site.far.asked == [("close",)]
    with pytest.raises((StorageError, TooStale, ValueError)):
        copy.read(0, None, "get", (0, b"a"))
