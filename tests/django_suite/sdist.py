"""Django's tests, from the source distribution of exactly the Django that is installed.

Wheels carry no tests, so the source distribution is fetched once with pip, compared byte for byte with the installed
package (a different release would test something else), and its ``tests`` folder is kept below ``.cache/`` with a
manifest of checksums. Every later call is offline and checks the manifest, so an edited test is noticed and replaced.
Several processes may call at once: the first one fetches while the others wait for its lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import django

PROJECT_DIR = Path(__file__).resolve().parents[2]
CACHE_DIR = PROJECT_DIR / ".cache" / "django-suite"
SDIST_VARIABLE = "DJANGO_SDIST"
MANIFEST_NAME = "manifest.json"
DOWNLOAD_TIMEOUT_S = 420


class SdistUnavailable(Exception):
    """Django's source distribution can't be had, or is not the one of the installed Django."""


def django_tests_folder(cache_dir: Path = CACHE_DIR) -> Path:
    """Return the folder with Django's own tests, fetching it on the first call.

    Args:
        cache_dir: where unpacked tests are kept, one folder per Django version.

    Raises:
        SdistUnavailable: the source distribution can't be downloaded or doesn't match the installed Django.
    """
    version = django.get_version()
    home = cache_dir / version
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SdistUnavailable(f"Django's tests can't be kept in {cache_dir}: {error}") from error
    with _locked(cache_dir / ".lock"):
        (cache_dir / ".gitignore").write_text("*\n")
        if not _is_intact(home):
            shutil.rmtree(home, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f"{version}-", dir=cache_dir) as scratch:
                sdist = _given_sdist() or _download(version, Path(scratch))
                unpacked = Path(scratch) / "unpacked"
                _unpack(sdist, version, unpacked)
                # The rename is what makes it count: a process killed before leaves nothing that looks complete.
                unpacked.rename(home)
    return home / "tests"


def _given_sdist() -> Path | None:
    """The archive that the environment names, for machines without a package index."""
    given = os.environ.get(SDIST_VARIABLE)
    if not given:
        return None
    path = Path(given)
    if not path.is_file():
        raise SdistUnavailable(f"{SDIST_VARIABLE} names {given!r}, which is not a file.")
    return path


def _download(version: str, folder: Path) -> Path:
    """Let pip fetch the archive; pip checks it against the checksum that the package index publishes."""
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps"]
    # Only Django itself is wanted as source: what builds its metadata may come as wheels.
    command += ["--no-binary", "django", "--dest", str(folder), f"django=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, cwd=folder)
    except subprocess.TimeoutExpired:
        raise SdistUnavailable(_cannot(version, f"pip took longer than {DOWNLOAD_TIMEOUT_S} seconds")) from None
    archives = sorted(folder.glob("[Dd]jango-*.tar.gz"))
    if done.returncode != 0 or not archives:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise SdistUnavailable(
            _cannot(version, f"pip ended with code {done.returncode}") + f"\npip's last words:\n{tail}"
        )
    return archives[0]


def _cannot(version: str, why: str) -> str:
    return (
        f"The source distribution of Django {version} could not be downloaded ({why}), so Django's own cache tests "
        f"can't run. Connect to a package index, or point {SDIST_VARIABLE} at a downloaded django-{version}.tar.gz."
    )


def _unpack(sdist: Path, version: str, target: Path) -> None:
    """Write the archive's tests and their manifest to ``target``, after checking that it is the installed Django's."""
    package = Path(django.__file__).parent
    checksums: dict[str, str] = {}
    compared = 0
    try:
        with tarfile.open(sdist, "r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                # The first part is the release's folder. Links and devices have no business in tests.
                inner = PurePosixPath(*path.parts[1:])
                if not member.isreg() or path.is_absolute() or ".." in path.parts or len(inner.parts) < 2:
                    continue
                if inner.parts[0] == "django" and inner.suffix == ".py":
                    _compare(package / PurePosixPath(*inner.parts[1:]), _read(archive, member), version)
                    compared += 1
                elif inner.parts[0] == "tests":
                    data = _read(archive, member)
                    file = target / inner
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
                    checksums[str(inner)] = hashlib.sha256(data).hexdigest()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise SdistUnavailable(f"{sdist.name} can't be read as a source distribution: {error}") from error
    if not compared or "tests/cache/tests.py" not in checksums:
        raise SdistUnavailable(f"{sdist.name} holds no Django with its tests.")
    (target / MANIFEST_NAME).write_text(json.dumps(checksums, indent=0, sort_keys=True))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    if stream is None:
        raise SdistUnavailable(f"{member.name} in the source distribution can't be read.")
    with stream:
        return stream.read()


def _compare(installed: Path, released: bytes, version: str) -> None:
    """Refuse an archive whose package differs from the installed one: its tests would be about other code."""
    try:
        same = installed.read_bytes() == released
    except FileNotFoundError:
        same = False
    if not same:
        raise SdistUnavailable(
            f"The installed Django {version} is not the one of its source distribution: {installed.name} "
            f"({installed}) differs. Reinstall Django, then try again."
        )


def _is_intact(home: Path) -> bool:
    """Whether every file of the manifest is there, unchanged."""
    try:
        checksums: dict[str, str] = json.loads((home / MANIFEST_NAME).read_text())
        return all(
            hashlib.sha256((home / name).read_bytes()).hexdigest() == wanted for name, wanted in checksums.items()
        )
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the system frees it when the holder ends, however it ends."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
