"""The folder of a store: whose it is, whether its file can be trusted, and what is done about a damaged one."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest

from django_keyspace.exceptions import DamagedStore, ForeignStore, NoSpace, StorageError, UncleanStore
from django_keyspace.store import Store, environment, errors, folder
from django_keyspace.store.folder import DATA_FILE, STATE_FILE, Folder, FolderState
from tests.store.helpers import got, put, small_options


def make(path: Path, **options: Any) -> Store:
    store = Store(str(path), small_options(**options))
    store._maintenance.start = lambda: None
    return store


def state(path: Path) -> dict[str, Any]:
    return json.loads((path / STATE_FILE).read_text())


def change_state(path: Path, **fields: Any) -> None:
    (path / STATE_FILE).write_text(json.dumps({**state(path), **fields}))


def kill(store: Store) -> None:
    """Leave a store as a killed process does: nothing is marked clean."""
    store._close()


def test_a_new_store_is_private_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store"
    store = make(path)
    assert not path.exists(), "nothing is made before the first operation"
    assert got(store, b"k") is None
    assert oct(path.stat().st_mode & 0o777) == "0o700"
    assert {"data.mdb", "lock.mdb", "keyspace.lock", "keyspace.json"} <= set(os.listdir(path))
    found = state(path)
    assert (found["format"], found["clean"], found["keeps_records"]) == (1, True, False)
    assert len(found["store_id"]) == 32 and found["boot_id"] == folder.boot_id()
    store.shutdown()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_no_other_boot_is_assumed_when_nothing_can_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A cache with unsynced writes starts empty after a boot; being out of files is none."""
    store = make(tmp_path)
    put(store, b"k")
    kill(store)
    with monkeypatch.context() as starved:
        starved.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
        with pytest.raises(StorageError, match="boot of this machine"):
            got(make(tmp_path), b"k")
    again = make(tmp_path)
    assert got(again, b"k") == b"v"
    again.shutdown()


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(StorageError, match="is a file"):
        got(make(tmp_path / "store"), b"k")
    with pytest.raises(StorageError, match="cannot be made"):
        got(make(tmp_path / "store" / "below"), b"k")
    assert (tmp_path / "store").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("store").mkdir()
    monkeypatch.setattr(os, "access", lambda *args: False)  # root may write everywhere
    with pytest.raises(StorageError, match="cannot be written by this user"):
        got(make(tmp_path / "store"), b"k")
    monkeypatch.undo()
    store = make(tmp_path / "store")
    put(store, b"k")
    store.shutdown()


def test_a_state_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="No space left"):
            put(make(tmp_path / "store"), b"k")
    store = make(tmp_path / "store")
    put(store, b"k")
    store.shutdown()


def test_somebody_elses_lmdb_database_is_not_touched(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as other, other.begin(write=True) as txn:
        txn.put(b"their", b"data")
    before = (tmp_path / DATA_FILE).read_bytes()
    with pytest.raises(ForeignStore, match="did not make"):
        put(make(tmp_path), b"k")
    # ... nor with a state file that says it were ours.
    Folder(str(tmp_path)).save()
    change_state(tmp_path, boot_id=folder.boot_id())
    with pytest.raises(ForeignStore, match="meta record"):
        put(make(tmp_path), b"k")
    assert (tmp_path / DATA_FILE).read_bytes() == before


def test_a_store_of_a_newer_format_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path)
    put(store, b"k")
    store.shutdown()
    change_state(tmp_path, format=2)
    with pytest.raises(ForeignStore, match="format 2"):
        got(make(tmp_path), b"k")
    change_state(tmp_path, format=1, something_new=True)
    with monkeypatch.context() as patch:
        patch.setattr(environment, "_META_FORMAT", 9)
        with pytest.raises(ForeignStore, match="format 1"):
            got(make(tmp_path), b"k")
    again = make(tmp_path)
    assert got(again, b"k") == b"v"
    again.shutdown()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "7", "null", "\xff"])
def test_a_damaged_state_file_is_an_error(tmp_path: Path, text: str) -> None:
    store = make(tmp_path)
    put(store, b"k")
    store.shutdown()
    (tmp_path / STATE_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(DamagedStore, match="cannot be read"):
        got(make(tmp_path), b"k")


@pytest.mark.parametrize("durability", ["commit", "interval", "none"])
def test_the_state_says_whether_writes_may_be_unsynced(tmp_path: Path, durability: str) -> None:
    store = make(tmp_path, durability=durability)
    got(store, b"k")
    assert state(tmp_path)["clean"] is True
    store.write("delete", 0, b"missing")
    assert state(tmp_path)["clean"] is True, "nothing was written"
    put(store, b"k")
    assert state(tmp_path)["clean"] is (durability == "commit")
    store.mark_clean()
    assert state(tmp_path)["clean"] is True
    put(store, b"k2")
    assert state(tmp_path)["clean"] is (durability == "commit")
    store.shutdown()
    assert state(tmp_path)["clean"] is True
    again = make(tmp_path, durability=durability)
    put(again, b"k3")
    assert state(tmp_path)["clean"] is (durability == "commit")
    kill(again)
    third = make(tmp_path, durability=durability)
    assert [got(third, key) for key in (b"k", b"k2", b"k3")] == [b"v"] * 3, "a killed process loses nothing"
    third.shutdown()


def test_the_state_says_that_kept_records_were_there(tmp_path: Path) -> None:
    store = make(tmp_path)
    put(store, b"k")
    assert state(tmp_path)["keeps_records"] is False
    put(store, b"kept", kept=True)
    assert state(tmp_path)["keeps_records"] is True
    store.shutdown()
    assert state(tmp_path)["keeps_records"] is True


def test_after_a_power_cut_an_unclean_cache_starts_empty_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(tmp_path)
    put(store, b"k")
    kill(store)
    monkeypatch.setattr(folder, "boot_id", lambda: "another boot")
    again = make(tmp_path)
    with caplog.at_level(logging.WARNING, "django_keyspace.store"):
        assert got(again, b"k") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "starts empty" in caplog.text
    put(again, b"k2")
    again.shutdown()
    assert state(tmp_path)["boot_id"] == "another boot"


def test_after_a_power_cut_a_clean_cache_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(tmp_path)
    put(store, b"k")
    store.shutdown()
    monkeypatch.setattr(folder, "boot_id", lambda: "another boot")
    again = make(tmp_path)
    assert got(again, b"k") == b"v"
    again.shutdown()
    assert state(tmp_path)["boot_id"] == "another boot" and caplog.text == ""


def test_after_a_power_cut_an_unclean_store_with_kept_records_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path)
    put(store, b"kept", kept=True)
    kill(store)
    data = (tmp_path / DATA_FILE).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(folder, "boot_id", lambda: "another boot")
        for _ in range(2):
            with pytest.raises(UncleanStore, match="backup"):
                got(make(tmp_path), b"kept")
    assert (tmp_path / DATA_FILE).read_bytes() == data
    same_boot = make(tmp_path)
    assert got(same_boot, b"kept") == b"v"
    same_boot.shutdown()


def test_the_boot_is_known_where_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.path.exists("/proc/sys/kernel/random/boot_id"):
        assert len(folder.boot_id()) == 36 and folder.boot_id() == folder.boot_id()

    def missing(self: Path, *args: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(folder.sys, "platform", "other")
    assert folder.boot_id() == ""
    monkeypatch.setattr(folder.sys, "platform", "darwin")
    monkeypatch.setattr(folder, "_darwin_boot_id", lambda: "A-BOOT")
    assert folder.boot_id() == "A-BOOT"


def test_flags_of_other_processes_are_not_lost(tmp_path: Path) -> None:
    one, two = Folder(str(tmp_path)), Folder(str(tmp_path))
    one.state = FolderState(store_id="x", boot_id="y")
    one.save()
    assert two.prepare() is True  # there is a state file but no data yet
    two.mark_keeps_records()
    one.mark_dirty()
    assert (state(tmp_path)["clean"], state(tmp_path)["keeps_records"]) == (False, True)


# ------------------------------------------------------------------------------------------------------ damage


def damage_header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(os.urandom(4096) * 2)


def damage_by_cutting(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2 // 4096 * 4096)


def damage_by_cutting_all(path: Path) -> None:
    os.truncate(path, 100)


def damage_by_emptying(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES = [damage_header, damage_by_cutting, damage_by_cutting_all, damage_by_emptying]


def filled(path: Path, *, kept: bool) -> None:
    store = make(path)
    for number in range(300):
        put(store, b"k%03d" % number, b"x" * 1_000, kept=kept)
    store.shutdown()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_starts_empty_with_one_loud_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    filled(tmp_path, kept=False)
    damage(tmp_path / DATA_FILE)
    store = make(tmp_path)
    with caplog.at_level(logging.WARNING, "django_keyspace.store"):
        assert got(store, b"k000") is None
        put(store, b"k000", b"new")
        assert got(store, b"k000") == b"new"
    assert [record.levelname for record in caplog.records] == ["ERROR"], caplog.text
    assert "damaged" in caplog.text and store.counters.damaged == 1
    assert (tmp_path / "data.mdb.damaged").exists()
    store.shutdown()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_with_kept_records_refuses(tmp_path: Path, damage: Any) -> None:
    filled(tmp_path, kept=True)
    damage(tmp_path / DATA_FILE)
    data = (tmp_path / DATA_FILE).read_bytes()
    store = make(tmp_path)
    for _ in range(2):
        with pytest.raises(DamagedStore, match="backup"):
            got(store, b"k000")
    with pytest.raises(DamagedStore):
        put(store, b"k")
    assert (tmp_path / DATA_FILE).read_bytes() == data or not data


def test_flipped_bytes_of_a_value_are_noticed_when_it_is_read(tmp_path: Path) -> None:
    from django_keyspace.store.record import payload_of

    store = make(tmp_path)
    put(store, b"large", b"MARK" * 5_000)
    put(store, b"small", b"fine")
    store.shutdown()
    data = (tmp_path / DATA_FILE).read_bytes()
    position = data.index(b"MARK" * 100) + 300
    with open(tmp_path / DATA_FILE, "r+b") as file:
        file.seek(position)
        file.write(b"\0")
    again = make(tmp_path)
    assert got(again, b"small") == b"fine"
    with pytest.raises(DamagedStore):
        payload_of(again.read("get", 0, b"large"))
    with pytest.raises(DamagedStore):
        again.write("append", 0, b"large", (1, 4, b"x"), None)
    again.shutdown()


@pytest.mark.parametrize("writes", [False, True])
def test_damage_that_shows_while_the_store_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, writes: bool
) -> None:
    """LMDB finds a bad page in mid-use: the file is set aside, and the same call answers from an empty cache."""
    store = make(tmp_path)
    put(store, b"k")
    name = "set" if writes else "get"
    table = "django_keyspace.store.store." + ("apply" if writes else "READS")
    real = getattr(__import__("django_keyspace.store.store", fromlist=["x"]), table.rsplit(".", 1)[1])
    failures = [lmdb.CorruptedError("bad page")]

    def fail_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args) if writes else real[name](*args)

    monkeypatch.setattr(table, fail_once if writes else {**real, name: fail_once})
    with caplog.at_level(logging.ERROR, "django_keyspace.store"):
        if writes:
            put(store, b"new", b"after")
            assert got(store, b"new") == b"after"
        assert got(store, b"k") is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert store.counters.damaged == 1
    put(store, b"k", b"again")
    assert got(store, b"k") == b"again"
    store.shutdown()


def test_a_lock_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "keyspace.lock").mkdir()  # root may open any file
    with pytest.raises(StorageError, match="lock file"):
        got(make(tmp_path), b"k")


def test_a_data_file_that_cannot_be_opened(tmp_path: Path) -> None:
    store = make(tmp_path)
    put(store, b"k")
    store.shutdown()
    (tmp_path / DATA_FILE).unlink()
    (tmp_path / DATA_FILE).mkdir()
    with pytest.raises(StorageError):
        got(make(tmp_path), b"k")


def test_errors_of_lmdb_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explained(kind: type[lmdb.Error], code: int = 0) -> StorageError:
        error = kind("why")
        error.code = code  # as lmdb sets it
        found = errors.explain(error, str(tmp_path))
        assert isinstance(found, StorageError)
        return found

    assert isinstance(explained(lmdb.CorruptedError), DamagedStore)
    assert "containers" in str(explained(lmdb.LockError))
    assert "reader slots" in str(explained(lmdb.ReadersFullError))
    assert "owner or the permissions" in str(explained(lmdb.Error, errno.EACCES))
    assert "ulimit -n" in str(explained(lmdb.Error, errno.EMFILE))
    # What says that there was no room says it although there is by now; what may be anything, only where there is none.
    for kind, code, with_room in [
        (lmdb.DiskError, errno.ENOSPC, NoSpace),
        (lmdb.Error, errno.ENOSPC, NoSpace),
        (lmdb.Error, errno.EDQUOT, NoSpace),
        (lmdb.MapFullError, 0, StorageError),
        (lmdb.Error, errno.EIO, StorageError),
    ]:
        monkeypatch.setattr(errors, "free_disk_bytes", lambda path: 10**9)
        assert type(explained(kind, code)) is with_room
        monkeypatch.setattr(errors, "free_disk_bytes", lambda path: 5)
        assert type(explained(kind, code)) is NoSpace
