"""``keyspace_import``: what arrives, what is left out, going on after a break, and what it says about bad input."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.core.management import call_command, load_command_class
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.management.importing import PAGE_KEYS, SOURCES

from .servers import FakeMemcached, FakeRedis, serving

REDIS_RECORDS = {b"k:%02d" % number: (b"value %d" % number, -1) for number in range(20)} | {
    b"count": (b"-42", -1),
    b"padded": (b"007", -1),
    b"soon": (b"gone in a minute", 60_000),
    b"binary": (b"\xff\xfe", -1),
    b"a list": (None, -1),
    b"k:\xff": (b"its key is not UTF-8", -1),
}


@pytest.fixture
def cache(store_folder: Path, settings) -> Iterator:
    settings.CACHES = {
        "default": {
            "BACKEND": "django_keyspace.backend.KeyspaceCache",
            "LOCATION": str(store_folder),
            "KEY_PREFIX": "p",
        },
        "elsewhere": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    yield caches["default"]


@pytest.fixture
def redis() -> Iterator:
    with serving(FakeRedis, dict(REDIS_RECORDS)) as server:
        yield server


def imported(source: str, **options) -> str:
    out, err = io.StringIO(), io.StringIO()
    call_command("keyspace_import", source, stdout=out, stderr=err, no_color=True, **options)
    return out.getvalue() + err.getvalue()


def test_strings_of_a_redis_become_values_of_the_alias(cache, redis) -> None:
    said = imported(f"redis://{redis.address}/0")
    assert "Imported 24 records." in said
    assert "Left out 1: not a string." in said
    assert "Left out 1: refused." in said
    assert "not UTF-8" in said
    assert cache.get("k:07") == "value 7"
    assert cache.incr("count") == -41
    assert cache.get("padded") == "007"
    assert cache.get("binary") == b"\xff\xfe"
    assert 0 < cache.ttl("soon") <= 60
    assert cache.ttl("k:07") is None


def test_raw_keys_stay_as_they_are_and_are_never_evicted(cache, redis) -> None:
    assert "Imported 25 records." in imported(f"redis://{redis.address}/0", raw=True)
    assert cache._execute(("exists", 0, b"k:\xff"))
    assert cache.get("k:07") is None
    assert cache.clear() == 0


def test_a_prefix_is_taken_off(cache, redis) -> None:
    said = imported(f"redis://{redis.address}/0", strip="k:", key_version=3)
    assert "Left out 4: without the prefix." in said
    assert cache.get("07", version=3) == "value 7"


def test_values_as_bytes(cache, redis) -> None:
    imported(f"redis://{redis.address}/0", values="bytes")
    assert cache.get("count") == b"-42"


def test_text_only_refuses_what_is_none(cache, redis) -> None:
    assert "--values bytes" in imported(f"redis://{redis.address}/0", values="text", strip="b")
    assert cache.get("inary") is None


def test_what_is_there_already_can_be_kept(cache, redis) -> None:
    cache.set("k:07", "mine")
    assert "Left out 1: there already." in imported(f"redis://{redis.address}/0", keep_existing=True)
    assert cache.get("k:07") == "mine"


def test_a_dry_run_writes_nothing(cache, redis, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    assert "Would import 24 records." in imported(f"redis://{redis.address}/0", dry_run=True, mark=mark)
    assert cache.keys() == []
    assert not mark.exists()


def test_an_import_goes_on_where_it_stopped(cache, redis, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = f"redis://:secret@{redis.address}/0"
    redis.breaks_at = sorted(REDIS_RECORDS)[17]
    with pytest.raises(CommandError, match="goes on where it stopped"):
        imported(source, mark=mark)
    noted = json.loads(mark.read_text())
    assert noted["mark"] == "14"
    assert "secret" not in noted["source"]
    redis.breaks_at, redis.scanned = None, []
    assert "Going on behind the first 14 keys" in imported(source, mark=mark)
    assert redis.scanned[0] == 14
    assert len(cache.keys()) == 24
    assert not mark.exists()


def test_the_mark_of_another_source_is_refused(cache, redis, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.write_text(json.dumps({"source": "redis://elsewhere/0", "mark": "5", "done": 5}))
    with pytest.raises(CommandError, match="the mark of an import from redis://elsewhere/0"):
        imported(f"redis://{redis.address}/0", mark=mark)
    mark.write_text("nonsense")
    with pytest.raises(CommandError, match="is no mark of an import"):
        imported(f"redis://{redis.address}/0", mark=mark)
    assert cache.keys() == []


def test_memcached(cache) -> None:
    soon_s = int(time.monotonic()) + 10**10
    records = {b"key%04d" % number: (b"%d" % number, -1) for number in range(PAGE_KEYS + 5)}
    records |= {"käse".encode(): (b"cheese", soon_s)}
    with serving(FakeMemcached, records) as server:
        assert f"Imported {PAGE_KEYS + 6} records." in imported(f"memcached://{server.address}")
    assert cache.incr("key0009") == 10
    assert cache.get("käse") == "cheese"
    assert cache.ttl("käse") > 0


def test_memcached_goes_on_behind_a_key(cache, tmp_path: Path) -> None:
    records = {b"key%04d" % number: (b"v", -1) for number in range(PAGE_KEYS + 5)}
    mark = tmp_path / "mark"
    with serving(FakeMemcached, records) as server:
        source = f"memcached://{server.address}"
        mark.write_text(json.dumps({"source": source, "mark": b"key0499".hex(), "done": 500}))
        assert "Imported 5 records." in imported(source, mark=mark)
    assert cache.keys() == [f"key{number:04d}" for number in range(500, 505)]


@pytest.mark.parametrize(
    ("end", "words"), [(b"BUSY currently processing\r\n", "does not list its keys: BUSY"), (b"", "could not be read")]
)
def test_a_memcached_that_does_not_list_its_keys(cache, end: bytes, words: str) -> None:
    with serving(FakeMemcached, {b"k": (b"v", -1)}) as server, pytest.raises(CommandError, match=words):
        server.end = end or b"key=\r\nEND\r\n"
        imported(f"memcached://{server.address}")
    assert cache.keys() == []


class FakeKyoto:
    """What kt's two clients offer to an import."""

    def __init__(self, host: str, port: int, serializer: object, decode_keys: bool) -> None:
        assert (host, port, decode_keys) == ("127.0.0.1", 1999, False)

    def count(self, db: int = 0) -> int:
        if db > 1:
            raise RuntimeError("protocol error [400]")
        return 2

    def match_prefix(self, prefix: str, db: int) -> list[bytes]:
        return [b"b", b"a"]

    def get_bulk_details(self, keys: list[bytes], db: int) -> list[tuple[int, bytes, bytes, int]]:
        return [(db, b"a", b"1", 2**40 - 1), (db, b"b", b"x", 4_000_000_000)]

    def keys_fast(self) -> list[bytes]:
        return [b"b", b"a"]

    def get_bulk(self, keys: list[bytes]) -> dict[bytes, bytes]:
        return dict.fromkeys(keys, b"v")

    def close(self) -> None:
        pass


@pytest.fixture
def kt(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(KyotoTycoon=FakeKyoto, TokyoTyrant=FakeKyoto, KT_NONE=None)
    monkeypatch.setitem(sys.modules, "kt", module)


def test_kyoto_tycoon(cache, kt: None) -> None:
    assert "Imported 2 records." in imported("kyoto://127.0.0.1:1999/1")
    assert cache.get("a") == 1
    assert cache.ttl("a") is None
    assert cache.ttl("b") > 0


def test_tokyo_tyrant(cache, kt: None) -> None:
    assert "Imported 2 records." in imported("tokyo://127.0.0.1:1999")
    assert cache.get("b") == "v"


def test_a_server_that_refuses_is_quoted(cache, kt: None) -> None:
    with pytest.raises(
        CommandError, match=r"kyoto://127.0.0.1:1999 could not be read: RuntimeError: protocol error \[400\]"
    ):
        imported("kyoto://127.0.0.1:1999/7")


def test_a_missing_library_is_named(cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kt", None)
    with pytest.raises(CommandError, match="pip install kt"):
        imported("tokyo://127.0.0.1:1999")


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("http://127.0.0.1:1/0", {}, "no source to import from. Known are redis://"),
        ("kyoto://127.0.0.1:1999/x", {}, "names the database 'x'"),
        ("tokyo://127.0.0.1:port", {}, "no usable port"),
        ("redis://127.0.0.1:1/0", {}, "could not be read: ConnectionError"),
        ("redis://127.0.0.1:1/0", {"alias": "nowhere"}, "Name an alias of CACHES with --alias"),
        ("redis://127.0.0.1:1/0", {"alias": "elsewhere"}, "not a cache of django_keyspace"),
    ],
)
def test_bad_input(cache, kt: None, source: str, options: dict, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        imported(source, **options)
    assert cache.keys() == []


def test_every_flag_and_source_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "migrate.md").read_text()
    parser = load_command_class("django_keyspace", "keyspace_import").create_parser("manage.py", "keyspace_import")
    django_flags = BaseCommand().create_parser("manage.py", "x")._option_string_actions
    own = [flag for flag in parser._option_string_actions if flag not in django_flags]
    assert len(own) >= 8
    assert [flag for flag in own if f"`{flag}" not in page] == []
    assert [scheme for scheme in SOURCES if f"`{scheme}://`" not in page] == []
