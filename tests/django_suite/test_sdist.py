"""Getting Django's tests: refused archives, edited tests, and several processes at once. None of it needs a network."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import tarfile
from pathlib import Path

import django
import pytest

from . import sdist

CACHE_TESTS = b"# what stands for Django's cache tests\n"


def make_sdist(path: Path, *, package_changes: dict[str, bytes] | None = None) -> Path:
    """Write an archive laid out like Django's: two files of the installed package, changed on demand, and a test."""
    package = Path(django.__file__).parent
    files = {f"django/{name}": (package / name).read_bytes() for name in ("__init__.py", "shortcuts.py")}
    files |= package_changes or {}
    files |= {"tests/cache/tests.py": CACHE_TESTS, "tests/cache/__init__.py": b"", "tests/../escaped.py": b"bad"}
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"django-0/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = make_sdist(tmp_path / "django.tar.gz")
    monkeypatch.setenv(sdist.SDIST_VARIABLE, str(path))
    return path


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_unpacks_tests_only_and_needs_the_archive_once(archive: Path, cache_dir: Path) -> None:
    folder = sdist.django_tests_folder(cache_dir)
    assert (folder / "cache" / "tests.py").read_bytes() == CACHE_TESTS
    assert not (folder.parent / "django").exists()
    assert not list(cache_dir.rglob("escaped.py"))
    archive.unlink()
    assert sdist.django_tests_folder(cache_dir) == folder


def test_what_is_fetched_stays_out_of_version_control(archive: Path, cache_dir: Path) -> None:
    sdist.django_tests_folder(cache_dir)
    assert (cache_dir / ".gitignore").read_text() == "*\n"


def test_an_edited_test_is_replaced(archive: Path, cache_dir: Path) -> None:
    edited = sdist.django_tests_folder(cache_dir) / "cache" / "tests.py"
    edited.write_text("# nothing can fail here\n")
    sdist.django_tests_folder(cache_dir)
    assert edited.read_bytes() == CACHE_TESTS


def test_a_missing_test_is_replaced(archive: Path, cache_dir: Path) -> None:
    missing = sdist.django_tests_folder(cache_dir) / "cache" / "tests.py"
    missing.unlink()
    sdist.django_tests_folder(cache_dir)
    assert hashlib.sha256(missing.read_bytes()).digest() == hashlib.sha256(CACHE_TESTS).digest()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"django/shortcuts.py": b"# another release\n"}, r"not the one of its source distribution: shortcuts\.py"),
        ({"django/grown.py": b""}, r"not the one of its source distribution: grown\.py"),
    ],
)
def test_another_release_is_refused(archive: Path, cache_dir: Path, changes: dict[str, bytes], words: str) -> None:
    make_sdist(archive, package_changes=changes)
    with pytest.raises(sdist.SdistUnavailable, match=words):
        sdist.django_tests_folder(cache_dir)
    assert [path.name for path in cache_dir.iterdir() if path.is_dir()] == []


def test_an_archive_without_tests_is_refused(archive: Path, cache_dir: Path) -> None:
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(sdist.SdistUnavailable, match="holds no Django with its tests"):
        sdist.django_tests_folder(cache_dir)


def test_a_damaged_archive_is_refused(archive: Path, cache_dir: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(sdist.SdistUnavailable, match="can't be read as a source distribution"):
        sdist.django_tests_folder(cache_dir)


def test_a_wrong_path_in_the_environment_is_named(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sdist.SDIST_VARIABLE, "no/such/file.tar.gz")
    with pytest.raises(sdist.SdistUnavailable, match=r"no/such/file\.tar\.gz"):
        sdist.django_tests_folder(cache_dir)


def test_a_failed_download_says_what_to_do(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sdist.SDIST_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache_dir))
    with pytest.raises(sdist.SdistUnavailable, match="could not be downloaded") as caught:
        sdist.django_tests_folder(cache_dir)
    assert sdist.SDIST_VARIABLE in str(caught.value)
    assert "pip's last words" in str(caught.value)


def test_several_processes_fetch_once(archive: Path, cache_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        folders = pool.map(_inode_of_tests, [str(cache_dir)] * 8)
        # Leaving the block ends the processes by a signal: let them end by themselves, with their coverage saved.
        pool.close()
        pool.join()
    # A second unpacking would have replaced the folder by a new one.
    assert len(set(folders)) == 1
    manifest = json.loads((cache_dir / django.get_version() / sdist.MANIFEST_NAME).read_text())
    assert set(manifest) == {"tests/cache/tests.py", "tests/cache/__init__.py"}


def _inode_of_tests(cache_dir: str) -> int:
    return sdist.django_tests_folder(Path(cache_dir)).stat().st_ino
