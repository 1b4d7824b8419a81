"""The set-up commands where a machine lacks something: they end at once, with a sentence that says what to install.

The Pythons are small stubs on an otherwise empty PATH, or the real one with a module taken away; nothing is installed.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(os.name == "nt" or BASH is None, reason="the set-up commands are bash scripts")


class Machine:
    """A made-up machine: one folder of executables, a home, and a place for the virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.venv = folder / "venv"
        self.home = folder / "home"
        self.bin.mkdir()
        self.home.mkdir()

    def add(self, name: str, script: str) -> Path:
        """Put an executable on this machine's PATH."""
        path = self.bin / name
        path.write_text(f"#!{BASH}\n{script}\n")
        path.chmod(0o755)
        return path

    def add_stub(self, name: str, version: str, *, has_venv: bool = True) -> Path:
        """Add a Python that only tells its version and whether it can make virtual environments."""
        return self.add(name, f'case "$*" in *ensurepip*) exit {0 if has_venv else 1} ;; *) echo {version} ;; esac')

    def run(
        self, script: str = "scripts/test", *arguments: str, cwd: Path | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the project's scripts with this machine's PATH and home."""
        environment = {"PATH": str(self.bin), "HOME": str(self.home), "KEYSPACE_VENV": str(self.venv), **more}
        return subprocess.run(
            [str(BASH), str(ROOT / script), *arguments],
            env=environment,
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("script", ["scripts/test", "scripts/demo", ".ci/run"])
def test_no_python_at_all(machine: Machine, script: str) -> None:
    if script == ".ci/run":
        machine.add("mktemp", f"echo {shlex.quote(str(machine.home / 'work'))}")
        machine.add("rm", "exit 0")
    done = machine.run(script)
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, and no Python was found on PATH" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr
    assert not machine.venv.exists()


def test_python_is_too_old(machine: Machine) -> None:
    machine.add_stub("python3", "3.9")
    done = machine.run()
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, and python3 is Python 3.9" in done.stderr


def test_python_of_the_variable_is_too_old(machine: Machine) -> None:
    """PYTHON is taken at its word: a newer one on PATH does not replace it silently."""
    machine.add_stub("python3.12", "3.12")
    old = machine.add_stub("old-python", "3.10")
    done = machine.run(PYTHON=str(old))
    assert done.returncode == 1
    assert f"{old} is Python 3.10" in done.stderr


def test_python_of_the_variable_does_not_run(machine: Machine) -> None:
    done = machine.run(PYTHON="/nowhere/python3")
    assert done.returncode == 1
    assert "PYTHON=/nowhere/python3 does not run" in done.stderr


def test_venv_module_is_missing(machine: Machine) -> None:
    """Debian's python3 without python3-venv has a venv module, but no ensurepip: the real one, without it."""
    blocked = machine.home / "blocked"
    blocked.mkdir()
    (blocked / "ensurepip.py").write_text("raise ImportError('not on this machine')\n")
    machine.add("python3", f'PYTHONPATH={shlex.quote(str(blocked))} exec {shlex.quote(sys.executable)} "$@"')
    done = machine.run()
    assert done.returncode == 1
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"Python {version} is here, but it can't make virtual environments" in done.stderr
    assert f"apt install python3-venv (or python{version}-venv)" in done.stderr


def test_candidates_that_do_not_do_are_passed_over(machine: Machine) -> None:
    """One that does not start, one without venv and one too old are there; the one that does is asked to make it."""
    machine.add("python3.14", "exit 127")
    machine.add_stub("python3.13", "3.13", has_venv=False)
    machine.add("python3.12", 'case "$*" in *"-m venv"*) exit 7 ;; *ensurepip*) ;; *) echo 3.12 ;; esac')
    machine.add_stub("python3", "3.9")
    done = machine.run()
    assert "Making a virtual environment" in done.stdout
    assert "(python3.12, " in done.stdout
    assert done.returncode == 1
    assert "could not be made" in done.stderr


def test_a_folder_of_somebody_else_is_not_overwritten(machine: Machine) -> None:
    machine.add_stub("python3", "3.12")
    machine.venv.mkdir()
    (machine.venv / "precious").write_text("keep me")
    done = machine.run()
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert (machine.venv / "precious").read_text() == "keep me"


@pytest.fixture
def installed(machine: Machine) -> Machine:
    """A machine with an environment, whose Python runs code as the real one and writes down all other calls."""
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / "pyvenv.cfg").write_text("")
    log = shlex.quote(str(machine.home / "log"))
    machine.bin.rmdir()
    machine.bin = machine.venv / "bin"
    machine.add(
        "python",
        f'case "$1" in -) exec {shlex.quote(sys.executable)} "$@" ;; -c) echo 3.11 ;; *) echo "$*" >>{log} ;; esac',
    )
    return machine


def calls(machine: Machine) -> list[str]:
    """Return what the environment's Python was asked for since the last time."""
    log = machine.home / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_second_run_installs_nothing(installed: Machine) -> None:
    first = installed.run("scripts/test", "tests/store", "-k", "one or two")
    assert first.returncode == 0, first.stderr
    done = calls(installed)
    assert [line for line in done if "pip install" in line and line.endswith(f"--editable {ROOT}[test]")]
    assert done[-1] == "-m pytest -n 2 --dist loadgroup tests/store -k one or two"

    second = installed.run("scripts/test")
    assert second.returncode == 0, second.stderr
    assert "up to date" in second.stdout
    assert calls(installed) == ["-m pytest -n 2 --dist loadgroup"]


def test_demo_is_served_from_what_the_tests_installed(installed: Machine) -> None:
    """The demo needs less than the tests, so it finds everything there, and hands its arguments on."""
    installed.run("scripts/test")
    calls(installed)
    done = installed.run("scripts/demo", "--node", "--check")
    assert done.returncode == 0, done.stderr
    assert calls(installed) == [f"{ROOT}/example_project/manage.py demo --node --check"]


def test_changed_requirements_are_installed_again(installed: Machine) -> None:
    installed.run("scripts/test")
    calls(installed)
    stamp = installed.venv / ".keyspace-test"
    version, digest, root = stamp.read_text().split(maxsplit=2)
    stamp.write_text(f"{version} {digest[::-1]} {root}")
    installed.run("scripts/test")
    assert any("pip install" in line for line in calls(installed))


@pytest.mark.parametrize("script", ["scripts/test", "scripts/demo"])
def test_help_sets_nothing_up(machine: Machine, script: str) -> None:
    machine.add("cat", 'while IFS= read -r line; do printf "%s\\n" "$line"; done')
    done = machine.run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {script} ")
    assert not machine.venv.exists()


def test_names_are_found_from_any_folder(machine: Machine) -> None:
    """A relative call from inside scripts/ finds the same root as one from elsewhere."""
    done = subprocess.run(
        [str(BASH), "test"],
        env={"PATH": str(machine.bin), "CDPATH": "/", "KEYSPACE_VENV": str(machine.venv)},
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "no Python was found on PATH" in done.stderr


def ci_script(name: str) -> dict[str, Any]:
    """Return the names that one of the helpers beside .ci/run defines."""
    return runpy.run_path(str(ROOT / ".ci" / name))


SOUND_WHEEL = [
    "django_keyspace/__init__.py",
    "django_keyspace/py.typed",
    "django_keyspace-0.1.0.dist-info/METADATA",
    "django_keyspace-0.1.0.dist-info/licenses/LICENSE",
]


def test_wheel_check_accepts_the_package_alone() -> None:
    assert ci_script("wheel_content.py")["problems"](SOUND_WHEEL) == []


@pytest.mark.parametrize("extra", ["tests/settings.py", "example_project/manage.py", "django_keyspace/data.mdb"])
def test_wheel_check_finds_what_does_not_belong(extra: str) -> None:
    (problem,) = ci_script("wheel_content.py")["problems"]([*SOUND_WHEEL, extra])
    assert extra in problem


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_wheel_check_finds_what_is_missing(lost: int) -> None:
    names = [name for position, name in enumerate(SOUND_WHEEL) if position != lost]
    assert len(ci_script("wheel_content.py")["problems"](names)) == 1


@pytest.mark.parametrize(
    ("covered_lines", "covered_branches", "code"),
    [(95, 46, 0), (100, 44, 1), (80, 46, 1)],
    ids=["enough of both", "too few branches behind many lines", "too few lines"],
)
def test_coverage_gate(
    covered_lines: int, covered_branches: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main = ci_script("coverage_gate.py")["main"]
    totals = {
        "covered_lines": covered_lines,
        "num_statements": 100,
        "covered_branches": covered_branches,
        "num_branches": 50,
    }
    monkeypatch.setitem(main.__globals__, "measure", lambda part: totals)
    assert main(["90", "store"]) == code
