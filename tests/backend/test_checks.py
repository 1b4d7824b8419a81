"""System checks: what they say about settings and folders, and that they open nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import default_key_func
from django.core.checks import Tags
from django.core.checks.registry import registry

from django_keyspace import checks

BACKEND = "django_keyspace.backend.KeyspaceCache"


@pytest.fixture
def check(settings: Any, tmp_path: Path) -> Any:
    """Checks one alias with some settings; the ids of the messages."""

    def run(location: Any = None, *, entry: dict[str, Any] | None = None, **options: Any) -> list[str]:
        alias = {"BACKEND": BACKEND, "LOCATION": location or str(tmp_path / "store"), "OPTIONS": options}
        settings.CACHES = {"default": {**alias, **(entry or {})}}
        return [message.id for message in checks.check_aliases()]

    return run


def test_good_settings_are_silent_and_nothing_is_opened(check: Any, tmp_path: Path) -> None:
    assert check() == []
    assert check("keyspace://127.0.0.1:1/0") == []
    assert list(tmp_path.iterdir()) == []


def test_checks_run_with_djangos_own(settings: Any, tmp_path: Path) -> None:
    settings.CACHES = {"default": {"BACKEND": BACKEND, "LOCATION": str(tmp_path), "OPTIONS": {"durabilty": "commit"}}}
    assert checks.check_aliases in registry.registered_checks and Tags.caches in checks.check_aliases.tags
    (message,) = checks.check_aliases()
    assert message.id == "keyspace.E001" and "Did you mean 'durability'" in message.msg


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"zzz": 1}, "keyspace.E001"),
        ({"reverse_key_function": "no.such"}, "keyspace.E001"),
        ({"signed": False}, "keyspace.W001"),
        ({"evictable": False}, "keyspace.W003"),
    ],
)
def test_options(check: Any, options: dict[str, Any], wanted: str) -> None:
    assert check(**options) == [wanted]


def test_a_node_on_another_machine_without_tls(check: Any) -> None:
    assert check("keyspace://127.0.0.1:1,cache.example.org:1/0") == ["keyspace.W006"]
    assert check("keyspaces://cache.example.org:1/0") == []
    assert check("keyspace://[::1]:1/0") == []


def test_harmless_variants_are_silent(check: Any) -> None:
    assert check(signed=False, serializer="json") == []
    assert check(evictable=False, durability="commit") == []
    assert check("keyspace://127.0.0.1:1/0", evictable=False) == []


def test_key_function(check: Any) -> None:
    entry = {"KEY_FUNCTION": "tests.backend.test_conf.upper"}
    assert check(entry=entry) == ["keyspace.W002"]
    assert check(entry=entry, reverse_key_function="tests.backend.test_conf.upper") == []
    assert default_key_func("k", "", 1) == ":1:k"


def test_sessions_with_on_error_miss(check: Any, settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    assert check(on_error="miss") == ["keyspace.W004"]
    assert check(on_error="raise") == []
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
    assert check(on_error="miss") == []


def test_the_folder(check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    (tmp_path / "file").write_text("x")
    assert check(str(tmp_path / "file")) == ["keyspace.E002"]
    for name in ("MEDIA_ROOT", "STATIC_ROOT"):
        setattr(settings, name, str(tmp_path / "web"))
        assert check(str(tmp_path / "web" / "store")) == ["keyspace.W005"]
        setattr(settings, name, "")
    with monkeypatch.context() as patch:
        patch.setattr(checks.os, "access", lambda *args: False)
        assert check(str(tmp_path / "store")) == ["keyspace.E003"]
    monkeypatch.setattr(checks, "filesystem_of", lambda path: "nfs4")
    assert check() == ["keyspace.E004"]


def test_one_folder_with_different_options(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    one = {"BACKEND": BACKEND, "LOCATION": str(tmp_path / "store"), "OPTIONS": {}}
    two = {"BACKEND": BACKEND, "LOCATION": str(tmp_path / "link"), "OPTIONS": {"max_bytes": 2**24}}
    settings.CACHES = {"default": one, "two": two}
    assert [message.id for message in checks.check_aliases()] == ["keyspace.E005"]
    settings.CACHES = {"default": one, "two": {**two, "OPTIONS": {"database": 1}}}
    assert checks.check_aliases() == []


@pytest.mark.parametrize(
    ("consistency", "place", "ids"),
    [("session", "here", []), ("dirty", "auto", []), ("session", "missing", ["keyspace.W007"]),
     ("safe", "here", ["keyspace.I001"]), ("lease", "missing", ["keyspace.I001", "keyspace.W007"])],
)  # fmt: skip
def test_replicas(settings: Any, tmp_path: Path, consistency: str, place: str, ids: list[str]) -> None:
    (tmp_path / "here").mkdir()
    replica = place if place == "auto" else str(tmp_path / place)
    options = {"consistency": consistency, "replica": replica}
    location = "keyspace://127.0.0.1:7080,127.0.0.1:7081/0"
    settings.CACHES = {"default": {"BACKEND": BACKEND, "LOCATION": location, "OPTIONS": options}}
    assert [message.id for message in checks.check_aliases()] == ids
    # With one address, it may be a node that runs alone: then all reads are answered there.
    settings.CACHES["default"]["LOCATION"] = "keyspace://127.0.0.1:7080/0"
    assert [message.id for message in checks.check_aliases()] == [name for name in ids if name != "keyspace.I001"]


def test_a_replica_that_nobody_has_asked_for(settings: Any, tmp_path: Path) -> None:
    location = f"keyspace+unix://{tmp_path}/missing/node.sock"
    settings.CACHES = {"default": {"BACKEND": BACKEND, "LOCATION": location}}
    assert checks.check_aliases() == []


def test_other_backends_are_left_alone(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "broken": {"BACKEND": "no.such.Backend"},
        "empty": {},
    }
    assert checks.check_aliases() == []


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /mnt/share nfs4 rw 0 0
/dev/sdb1 /mnt/share/local\\040disk xfs rw 0 0
short line
tmpfs /mnt/sharelike tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("/", "ext4"), ("/etc", "ext4"), ("/mnt/share", "nfs4"), ("/mnt/share/x/y", "nfs4"),
     ("/mnt/share/local disk/z", "xfs"), ("/mnt/sharelike/x", "tmpfs")],
)  # fmt: skip
def test_filesystems_are_told_by_the_longest_mount_point(path: str, wanted: str) -> None:
    assert checks.filesystem_of(Path(path), MOUNTS) == wanted


def test_the_systems_own_mount_table(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/self/mounts").exists():
        assert checks.filesystem_of(Path("/proc")) == "proc"

    def missing(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert checks.filesystem_of(Path("/")) == ""
