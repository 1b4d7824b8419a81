"""Clients as such: where they find their data, their secrets, their errors, threads, and nodes that are not there."""

from __future__ import annotations

import logging
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_keyspace import exceptions
from django_keyspace.backend.kyoto import arguments, errors, serializers
from django_keyspace.backend.kyoto.client import GET_KEYS_MAX
from django_keyspace.exceptions import ERRORS_BY_CODE, KeyspaceError, NotANumber, WrongType
from django_keyspace.kyoto import (
    KT_JSON,
    KT_PICKLE,
    KyotoTycoon,
    KyotoTycoonError,
    ProtocolError,
    ScriptError,
    ServerConnectionError,
    TokyoTyrant,
)
from django_keyspace.store import StoreOptions, open_store
from django_keyspace.store.record import Flag, Tag
from tests.contract.engines import Place

Make = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


# --- Places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, Path, lambda folder: f"embedded:{folder}"])
def test_a_folder_is_an_embedded_store(form: Callable[[Any], Any], store_folder: Path) -> None:
    db = KyotoTycoon(form(store_folder))
    assert db.set("k", "v") == 1
    assert db.path == str(store_folder)
    assert TokyoTyrant(store_folder)["k"] == "v"
    assert str(store_folder) in repr(db)


def test_options_of_a_folder(store_folder: Path) -> None:
    db = KyotoTycoon(store_folder, durability="commit", databases=2)
    assert db.set("k", "v", db=1) == 1
    assert db.report()["conf_durability"] == b"commit"
    with pytest.raises(ProtocolError, match="numbered from 0 to 1"):
        db.set("k", "v", db=2)


def test_a_store_is_taken_as_the_process_has_it_open(store_folder: Path) -> None:
    open_store(store_folder, StoreOptions(databases=3, durability="none"))
    db = KyotoTycoon(store_folder)
    assert db.set("k", "v", db=2) == 1
    with pytest.raises(ProtocolError):
        db.get("k", 3)
    with pytest.raises(KyotoTycoonError, match="different options"):
        KyotoTycoon(store_folder, databases=4)


def test_a_node_by_host_and_port_and_by_url(long_lived: Callable[[str], Place]) -> None:
    location = long_lived("node").location()
    host, _, port = location.removeprefix("keyspace://").partition("/")[0].partition(":")
    db = KyotoTycoon(host, int(port))
    db["k"] = "v"
    assert KyotoTycoon(location)["k"] == "v"
    assert TokyoTyrant(host, int(port))["k"] == "v"


def test_it_works_without_settings_of_django(tmp_path: Path) -> None:
    """And a pickle needs a secret then."""
    code = f"""
import os; os.environ.pop("DJANGO_SETTINGS_MODULE", None)
from django_keyspace.kyoto import *
db = KyotoTycoon({str(tmp_path / "store")!r}, serializer=KT_JSON)
assert db.set("k", {{"a": 1}}) == 1 and db["k"] == {{"a": 1}}
try:
    KyotoTycoon({str(tmp_path / "store")!r}, serializer=KT_PICKLE)
except ImproperlyConfigured as error:
    assert "pickle_secret=" in str(error)
else:
    raise SystemExit("it made a client that signs with nothing")
pickles = KyotoTycoon({str(tmp_path / "store")!r}, serializer=KT_PICKLE, pickle_secret="long and random")
pickles["p"] = {{1, 2}}
assert pickles["p"] == {{1, 2}}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# --- Secrets ----------------------------------------------------------------------------------------------------------


def test_pickles_need_the_secret_that_signed_them(tycoon: Make, caplog: pytest.LogCaptureFixture) -> None:
    tycoon(serializer=KT_PICKLE, pickle_secret="old").set("k", {1})
    for secret in ("old", b"old", ["new", "old"]):
        assert tycoon(serializer=KT_PICKLE, pickle_secret=secret)["k"] == {1}
    with caplog.at_level(logging.WARNING, "django.security"), pytest.raises(WrongType, match="signature is wrong"):
        tycoon(serializer=KT_PICKLE, pickle_secret="new").get("k")
    assert "wrong signature" in caplog.text
    rotated = tycoon(serializer=KT_PICKLE, pickle_secret=["new", "old"])
    rotated.set("k", {2})  # the first one signs
    assert tycoon(serializer=KT_PICKLE, pickle_secret="new")["k"] == {2}


def test_pickles_are_those_of_the_sites_caches(place: Place, tycoon: Make) -> None:
    cache = place.cache(params={"KEY_FUNCTION": "tests.kyoto.test_bad_input.plain_key"})
    db = tycoon(serializer=KT_PICKLE)
    cache.set("from-the-cache", {1, 2})
    db["from-the-client"] = {3}
    assert db["from-the-cache"] == {1, 2}
    assert cache.get("from-the-client") == {3}
    with override_settings(SECRET_KEY="another"), pytest.raises(WrongType):
        db.get("from-the-client")


class Exploding:
    """Unpickling it would be noticed."""

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise SystemExit("a foreign pickle was loaded")


@pytest.mark.parametrize("serializer", [KT_PICKLE, KT_JSON, "binary", "msgpack"])
def test_foreign_pickles_are_never_loaded(serializer: str, tycoon: Make) -> None:
    foreign = pickle.dumps(Exploding())
    db = tycoon(serializer=serializer)
    for flags in (0, int(Flag.SIGNED)):
        db._tell("set", 0, b"k", (int(Tag.PICKLE), flags, foreign), None, "always")
        with pytest.raises(KeyspaceError):
            db.get("k")
    db.set_bytes("b", foreign)
    if serializer == KT_PICKLE:
        assert db["b"] == foreign  # bytes that a caller brings are bytes
    else:
        with pytest.raises(KeyspaceError):
            db.get("b")


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_errors_are_kts_and_ours(tycoon: Make) -> None:
    db = tycoon()
    db["k"] = "text"
    with pytest.raises(NotANumber) as raised:
        db.incr("k")
    assert isinstance(raised.value, ProtocolError) and isinstance(raised.value, ValueError)
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is type(raised.value) and str(again) == str(raised.value)


@pytest.mark.parametrize("cls", ERRORS_BY_CODE.values(), ids=lambda cls: cls.__name__)
def test_every_error_has_its_words(cls: type[KeyspaceError]) -> None:
    made = errors.in_kt_words(cls("what happened"))
    assert isinstance(made, KyotoTycoonError) and isinstance(made, cls) and str(made) == "what happened"
    assert errors.in_kt_words(made) is made
    assert type(pickle.loads(pickle.dumps(made))) is type(made)
    as_script = errors.in_kt_words(cls("what happened"), ScriptError)
    assert isinstance(as_script, ScriptError) and isinstance(as_script, cls)


def test_errors_that_nobody_has_named_yet() -> None:
    class Later(exceptions.TransportError):
        pass

    assert isinstance(errors.in_kt_words(Later("x")), ServerConnectionError)


@pytest.mark.parametrize("cls", [KyotoTycoon, TokyoTyrant])
def test_a_node_that_is_not_there(cls: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        client = cls(port=probe.getsockname()[1], timeout=2)
        for call in (client.keys, lambda: client.set("k", "v"), lambda: client.get_bulk(["k"]), client.count):
            with pytest.raises(ServerConnectionError, match="No node answers at") as raised:
                call()
            assert isinstance(raised.value, ConnectionError | TimeoutError)


def test_damaged_records_are_errors(store_folder: Path) -> None:
    db = KyotoTycoon(store_folder)
    db["k"] = "value"
    record = bytearray(db._get_record(0, "k") or b"")
    record[-1] ^= 1
    for name in (serializers.KT_BINARY, serializers.KT_NONE, KT_JSON):
        with pytest.raises(exceptions.DamagedStore):
            KyotoTycoon(store_folder, serializer=name)._decode(bytes(record))


# --- Expiry -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_ms", "left_ms"), [(5_000, 1000), (5_001, 999), (5_999, 1)])
def test_no_seconds_are_the_rest_of_this_one(at_ms: int, left_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all calls but those of ``set`` and its like, where they are none at all."""
    monkeypatch.setattr(arguments.time, "time_ns", lambda: at_ms * 1_000_000 + 7)
    assert arguments.expire_of_call(0) == arguments.expire_of_call(0.9) == left_ms
    assert arguments.expire_of_set(0) is None and arguments.expire_of_call(None) is None


# --- Many keys, many threads ------------------------------------------------------------------------------------------


def test_more_keys_than_one_operation_takes(db: KyotoTycoon) -> None:
    number = GET_KEYS_MAX * 2 + 5
    data = {f"key{index}": str(index) for index in range(number)}
    assert db.set_bulk(data) == number
    assert db.get_bulk(data) == data
    assert db.count() == number
    assert db.remove_bulk(data) == number


def test_an_answer_too_large_for_a_frame_comes_in_parts(db: KyotoTycoon) -> None:
    large = "x" * 2**21
    keys = [f"key{number}" for number in range(15)]
    for key in keys:
        db.set(key, large)
    found = db.get_bulk(keys)
    assert list(found) == keys and all(value == large for value in found.values())


def test_threads_count_exactly(db: KyotoTycoon) -> None:
    def work() -> None:
        for _ in range(50):
            db.incr("n")
            db.append("text", "x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.incr("n", 0) == 200 and db.length("text") == 200


def test_each_value_is_popped_once(db: KyotoTycoon) -> None:
    db.set_bulk({f"k{number}": str(number) for number in range(100)})
    popped: list[str] = []

    def work() -> None:
        for number in range(100):
            value = db.pop(f"k{number}")
            if value is not None:
                popped.append(value)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(popped, key=int) == [str(number) for number in range(100)]
    assert len(db) == 0


def test_records_are_not_evictable(place: Place, db: KyotoTycoon) -> None:
    """A cache that is cleared leaves the clients' records alone."""
    db["k"] = "v"
    db.incr("n")
    db.append("a", "x")
    place.cache().clear()
    assert db.keys() == ["a", "k", "n"]


def test_models_are_out_of_reach(db: KyotoTycoon) -> None:
    for number in (1024, 1025):
        with pytest.raises(ProtocolError):
            db.get("k", number)
