"""Settings: locations, options, and the errors that name what was meant."""

from __future__ import annotations

import datetime
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from django_keyspace.backend.expire import make_deadline, make_expire
from django_keyspace.conf import OPTIONS, make_config
from django_keyspace.exceptions import ConfigurationError, InvalidArgument


def upper(key: str) -> str:
    return key.upper()


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("/var/cache/site", ("/var/cache/site", False, 0)),
        (Path("/var/cache/site"), ("/var/cache/site", False, 0)),
        ("embedded:/var/cache/site", ("/var/cache/site", False, 0)),
        ("embedded:///var/cache/site", ("/var/cache/site", False, 0)),
        ("/var/cache/../cache/site", ("/var/cache/site", False, 0)),
        ("keyspace://127.0.0.1:7080/3", ("keyspace://127.0.0.1:7080/3", True, 3)),
        ("keyspace+unix:///run/n1/node.sock?database=2", ("keyspace+unix:///run/n1/node.sock?database=2", True, 2)),
        ("keyspace://127.0.0.1:7080", ("keyspace://127.0.0.1:7080", True, 0)),
        ("keyspaces://cache.example.org/4", ("keyspaces://cache.example.org/4", True, 4)),
        (["a:1", "b:2"], ("keyspace://a:1,b:2/", True, 0)),
        (["keyspaces://a:1/3", "keyspaces://b:2/3"], ("keyspaces://a:1,b:2/3", True, 3)),
        (("keyspaces://a/3", "b"), ("keyspaces://a,b/3", True, 3)),
    ],
)
def test_locations(location: Any, wanted: tuple[str, bool, int]) -> None:
    config = make_config(location, {})
    assert (config.location, config.is_remote, config.database) == wanted


def test_a_relative_location_is_made_absolute() -> None:
    assert make_config("store", {}).location == str(Path.cwd() / "store")


@pytest.mark.parametrize(
    "location",
    [
        "",
        None,
        5,
        b"/bytes",
        "redis://localhost",
        "embedded:",
        "keyspace://",
        "keyspace:///0",
        "keyspace://h:1/x",
        [],
        [5],
        ["keyspace://a/1", "b/2"],
        ["keyspace://a", "keyspaces://b"],
        ["a", "a"],
    ],
)
def test_bad_locations(location: Any) -> None:
    with pytest.raises(ConfigurationError, match="LOCATION"):
        make_config(location, {})


@pytest.mark.parametrize(
    ("name", "meant"),
    [("durabilty", "durability"), ("max_byte", "max_bytes"), ("Serializer", "serializer"), ("max_entries", "MAX_ENTRIES"),
     ("timeout", "timeout_ms"), ("ON_ERROR", "on_error")],
)  # fmt: skip
def test_an_unknown_option_names_the_nearest_known_one(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'"):
        make_config("/x", {name: 1})


def test_an_option_like_nothing_known_lists_all() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_config("/x", {"zzzz": 1})
    assert "Did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in OPTIONS)


BAD = [
    ("serializer", "yaml"), ("serializer", 1), ("serializer", None), ("compressor", "lzo"), ("compressor", True),
    ("on_error", "ignore"), ("on_error", True), ("signed", "yes"), ("signed", None), ("evictable", "no"),
    ("timeout_ms", 0), ("timeout_ms", 1.5), ("timeout_ms", "5000"), ("timeout_ms", True), ("compress_min_bytes", -1),
    ("compress_level", 0), ("compress_level", 10), ("database", -1), ("database", 1.0), ("database", 16),
    ("MAX_ENTRIES", 0), ("MAX_ENTRIES", "300"), ("CULL_FREQUENCY", -1), ("durability", "always"), ("durability", None),
    ("max_bytes", 0), ("max_bytes", "1G"), ("map_bytes", 5), ("databases", 0), ("value_bytes_max", 0),
    ("reverse_key_function", 5), ("secret", "long enough for a secret"), ("tls", {}), ("scan_warning_keys", -1),
    ("consistency", "eventual"), ("consistency", None), ("max_staleness_ms", -1), ("max_staleness_ms", "1 s"),
    ("leader_timeout_ms", 0), ("leader_timeout_ms", 1.5), ("replica", "auto"), ("replica", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD)
def test_options_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        make_config("/x", {name: value})


def test_every_option_is_tried_and_has_a_help_text() -> None:
    assert {name for name, _ in BAD} == set(OPTIONS)
    assert all(len(text) > 20 and text.endswith(".") for text in OPTIONS.values())


def test_a_reverse_key_function_that_cannot_be_imported() -> None:
    assert make_config("/x", {"reverse_key_function": f"{__name__}.upper"}).reverse_key_function("a") == "A"
    with pytest.raises(ImportError):
        make_config("/x", {"reverse_key_function": "no.such.function"})


@pytest.mark.parametrize("place", ["data/n1", "", "AUTO", 7, 0, 1, b"/data"])
def test_a_replica_that_is_no_place(place: Any) -> None:
    with pytest.raises(ConfigurationError, match="replica must be the absolute path"):
        make_config("keyspace://h:1/0", {"replica": place})


def test_a_replica_is_a_folder_a_path_or_auto() -> None:
    found = [
        make_config("keyspace://h:1/0", {"replica": place}).replica
        for place in ("/n1", Path("/n1"), "auto", True, None, False)
    ]
    assert found == ["/n1", "/n1", "auto", "auto", None, None]


def test_a_unix_socket_has_a_replica_unless_somebody_says_no() -> None:
    socket = "keyspace+unix:///run/n1/node.sock"
    found = [make_config(socket, {"replica": place}) for place in (None, True, False, "/n1")]
    assert [(config.replica, config.replica_by_default) for config in found] == [
        ("auto", True),
        ("auto", False),
        (None, False),
        ("/n1", False),
    ]
    assert make_config(socket, {}) == found[0]
    assert make_config("keyspace://h:1/0", {}).replica_by_default is False


@pytest.mark.parametrize("name", ["durability", "max_bytes", "map_bytes", "databases"])
def test_options_of_the_store_are_refused_for_a_node(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}"):
        make_config("keyspace://h:1/0", {name: "commit" if name == "durability" else 2**30})


def test_the_database_is_named_once() -> None:
    assert make_config("keyspace://h:1/5", {"database": 5}).database == 5
    assert make_config("keyspace://h:1", {"database": 5}).database == 5
    with pytest.raises(ConfigurationError, match="database 5"):
        make_config("keyspace://h:1/5", {"database": 4})
    with pytest.raises(ConfigurationError, match="no database 16"):
        make_config("/x", {"database": 16})
    assert make_config("/x", {"database": 16, "databases": 17}).database == 16


# ------------------------------------------------------------------------------------------------------ timeouts


@pytest.mark.parametrize(
    ("timeout", "wanted"),
    [(None, None), (0, 0), (-5, 0), (1, 1_000), (0.001, 1), (0.0011, 2), (1e-9, 1), (-0.5, 0), (True and 1, 1_000),
     (timedelta(microseconds=1), 1), (timedelta(milliseconds=1), 1), (timedelta(days=365), 31_536_000_000),
     (timedelta(seconds=-1), 0), (2**50 // 1000, 2**50 // 1000 * 1000)],
)  # fmt: skip
def test_timeouts_are_rounded_up_to_milliseconds(timeout: Any, wanted: int | None) -> None:
    assert make_expire(timeout) == wanted


class Seconds(int):
    pass


def test_subclasses_of_int_are_timeouts_but_not_bool() -> None:
    assert make_expire(Seconds(5)) == 5_000
    with pytest.raises(InvalidArgument):
        make_expire(True)


@pytest.mark.parametrize("timeout", ["5", b"5", float("nan"), float("inf"), -float("inf"), [], 2**53, 1e300, 1j])
def test_bad_timeouts(timeout: Any) -> None:
    with pytest.raises(InvalidArgument):
        make_expire(timeout)


def test_deadlines() -> None:
    utc = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    at_ms = int(utc.timestamp() * 1000)
    assert make_deadline(utc) == make_deadline(utc.timestamp()) == ("at", at_ms)
    assert make_deadline(utc.timestamp() + 0.0005) == ("at", at_ms + 1)
    with timezone.override("Asia/Tokyo"):
        assert make_deadline(datetime.datetime(2030, 1, 1, 9)) == ("at", at_ms), "naive: Django's current time zone"
    assert make_deadline(-5) == make_deadline(0) == ("at", 0)
    for bad in ("2030", None, True, float("nan"), float("inf"), 1e300, 10**400, datetime.date(2030, 1, 1)):
        with pytest.raises(InvalidArgument):
            make_deadline(bad)


REMOTE = "keyspaces://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"secret": 5}, "str or bytes"),
        ({"secret": "short"}, "must have 16 to 1,024"),
        ({"tls": "ca.pem"}, "must be a mapping"),
        ({"tls": {"cafile": "ca.pem"}}, "unknown cafile"),
        ({"tls": {"ca": 5}}, "are paths of files"),
        ({"tls": {"verify_hostname": "no"}}, "True or False"),
        ({"tls": {"cert": "c.pem"}}, "belong together"),
        ({"tls": {"ca": "/no/such/file.pem"}}, "cannot be used"),
    ],
)
def test_bad_security(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_config(REMOTE, options)


def test_tls_without_a_tls_location() -> None:
    with pytest.raises(ConfigurationError, match="write keyspaces://"):
        make_config("keyspace://127.0.0.1:1/0", {"tls": {}})


def test_the_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYSPACE_SECRET", "a secret of the environment")
    assert make_config(REMOTE, {}).security.secret == b"a secret of the environment"
    assert make_config(REMOTE, {"secret": "a secret of the options"}).security.secret == b"a secret of the options"
    assert make_config("/folder", {}).security.secret is None
    assert "of the options" not in repr(make_config(REMOTE, {"secret": "a secret of the options"}))
