"""What sites use in their own tests: places of their own for each process, with Django's runner and with pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.cache import caches

from django_keyspace.testing import isolated_caches, running_node

ROOT = Path(__file__).resolve().parent.parent
BACKEND = "django_keyspace.backend.KeyspaceCache"


def test_places_are_others_and_shared_ones_stay_shared(settings, tmp_path: Path) -> None:
    with running_node() as site:
        settings.CACHES = {
            "default": {"BACKEND": BACKEND, "LOCATION": str(tmp_path / "site"), "OPTIONS": {"durability": "commit"}},
            "same": {"BACKEND": BACKEND, "LOCATION": f"embedded:{tmp_path}/site", "OPTIONS": {"durability": "commit"}},
            "node": {"BACKEND": BACKEND, "LOCATION": site.location.replace("/0", "/3")},
            "other": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        }
        caches["node"].set("whose", "the site's")
        with isolated_caches() as aliases:
            assert aliases["default"]["LOCATION"] == aliases["same"]["LOCATION"] != str(tmp_path / "site")
            assert aliases["default"]["OPTIONS"] == {"durability": "commit"}
            assert aliases["other"] == settings.CACHES["other"]
            for alias in ("default", "node"):
                assert caches[alias].get("whose") is None
                caches[alias].set("whose", "the test's")
            assert caches["same"].get("whose") == "the test's"
            assert caches["node"]._database == 3
            own_folder = Path(aliases["default"]["LOCATION"])
            assert (own_folder / "data.mdb").exists()
        assert not own_folder.exists()
        assert not (tmp_path / "site").exists()
        assert caches["node"].get("whose") == "the site's"


SITE = """
import os, sys
from pathlib import Path
SECRET_KEY = "tests"
INSTALLED_APPS = ["django_keyspace"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEST_RUNNER = "django_keyspace.testing.runner.KeyspaceTestRunner"
CACHES = {"default": {"BACKEND": "django_keyspace.backend.KeyspaceCache", "LOCATION": str(Path(__file__).parent / "site")}}
"""

CASES = """
import os
from pathlib import Path
from django.conf import settings
from django.core.cache import cache
from django.test import SimpleTestCase

def note(name):
    place = settings.CACHES["default"]["LOCATION"]
    assert Path(place) != Path(__file__).parent / "site"
    # Nobody else counts here: a test class runs in one process, and each of them counts under its own name and a shared one.
    assert cache.incr(name, default=0) == 1
    (Path(__file__).parent / "seen" / f"{os.getpid()}-{name}").write_text(f"{place} {cache.incr('all', default=0)}")
"""

DJANGO_CASES = "".join(
    f"""
class Case{number}(SimpleTestCase):
    def test_it(self):
        note("case{number}")
"""
    for number in range(4)
)

PYTEST_CASES = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_it(keyspace_caches, number):
    assert cache.get("all") is None
    note(f"case{number}")

def test_node(keyspace_node):
    assert keyspace_node.is_running()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_settings.py").write_text(SITE)
    (tmp_path / "seen").mkdir()
    return tmp_path


def run(site: Path, *command: str) -> str:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "site_settings",
        "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
        "PYTEST_ADDOPTS": "",
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, *command], cwd=site, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def places_seen(site: Path) -> dict[str, set[str]]:
    """The folders that each process has worked in."""
    seen: dict[str, set[str]] = {}
    for file in (site / "seen").iterdir():
        seen.setdefault(file.name.partition("-")[0], set()).add(file.read_text().rpartition(" ")[0])
    return seen


def assert_apart(site: Path, files: int) -> None:
    seen = places_seen(site)
    places = [place for its in seen.values() for place in its]
    assert len(list((site / "seen").iterdir())) == files
    assert all(len(its) == 1 for its in seen.values())
    assert len(set(places)) == len(places) == len(seen)
    assert not (site / "site").exists()


def test_djangos_runner_with_workers(site: Path) -> None:
    (site / "tests.py").write_text(CASES + DJANGO_CASES)
    said = run(site, "-m", "django", "test", "tests", "--parallel", "2")
    assert "Ran 4 tests" in said
    assert_apart(site, 4)
    for places in places_seen(site).values():
        assert not any(Path(place).exists() for place in places)


def test_pytest_with_workers(site: Path) -> None:
    (site / "test_site.py").write_text(CASES + PYTEST_CASES)
    said = run(
        site, "-m", "pytest", "-q", "-n", "2", "-p", "django_keyspace.pytest_plugin", "-p", "no:cacheprovider", "."
    )
    assert "5 passed" in said
    assert_apart(site, 4)
