"""The house rules that no linter knows, checked on the source of whatever modules exist.

Each rule is a function from a made-up or real module to a list of sentences. Every rule has two tests: one that shows
on made-up source that it can find what it looks for, and one that applies it to the project.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_keyspace"
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500


@dataclass(frozen=True)
class Module:
    """One Python file: its path from the project's root, with slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def inside(self) -> str:
        """The path from the package's folder, such as `store/record.py`."""
        return self.path.removeprefix(f"{PACKAGE}/")

    @property
    def package_parts(self) -> list[str]:
        """The package that a relative import in this file starts from."""
        return self.path.split("/")[:-1]


Rule = Callable[[Module], list[str]]


# --- Rules about one file ---------------------------------------------------------------------------------------------


def rule_docstring(module: Module) -> list[str]:
    """Every module says what it is."""
    return [] if (ast.get_docstring(module.tree) or "").strip() else [f"{module.path}: no module docstring"]


def rule_function_length(module: Module) -> list[str]:
    """A function fits a screen."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(
                    f"{module.path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES_MAX} is the most"
                )
    return found


def rule_file_length(module: Module) -> list[str]:
    """A file holds one idea."""
    lines = len(module.text.splitlines())
    return [f"{module.path}: {lines} lines, {FILE_LINES_MAX} is the most"] if lines > FILE_LINES_MAX else []


def rule_no_assert(module: Module) -> list[str]:
    """An assert is gone under `python -O`; raise something instead."""
    return [f"{module.path}:{node.lineno}: assert" for node in ast.walk(module.tree) if isinstance(node, ast.Assert)]


def _names_everything(kind: ast.expr | None) -> bool:
    """Whether an `except` of this kind, or a `suppress` of it, catches all errors."""
    if isinstance(kind, ast.Tuple):
        return any(_names_everything(element) for element in kind.elts)
    return kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})


def _does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def rule_no_swallowed_errors(module: Module) -> list[str]:
    """Nobody hides every error: neither by `except Exception: pass` nor by `suppress(Exception)`."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _names_everything(node.type) and _does_nothing(node.body):
            found.append(f"{module.path}:{node.lineno}: every error is caught and forgotten")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
            if any(_names_everything(argument) for argument in node.args):
                found.append(f"{module.path}:{node.lineno}: every error is suppressed")
    return found


# --- Doors: who may import whom ---------------------------------------------------------------------------------------


def imports_of(module: Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything that a module imports anywhere, with relative imports made absolute.

    `from a import b` yields `a.b`, because b may be a module: rules compare by dotted prefixes.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = module.package_parts[: len(module.package_parts) - node.level + 1]
                base = ".".join([*start, base] if base else start)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def is_within(name: str, packages: Iterable[str]) -> bool:
    """Whether the dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(*names: str) -> tuple[str, ...]:
    """Return dotted names inside the package."""
    return tuple(f"{PACKAGE}.{name}" for name in names)


@dataclass(frozen=True)
class Door:
    """What the modules under `rooms` may import.

    `only`, when given, names all of our own and all of the foreign packages that they may use, beside the standard
    library; `never` names what they may not use.
    """

    rooms: tuple[str, ...]
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


FACES = ours("management", "dashboard", "apps", "checks", "conf", "keyspace", "kyoto")
DOORS = (
    # What is beneath Django's door: the table, the words of the wire, errors and codes.
    Door(
        ("arguments.py", "operations.py", "exceptions.py", "status.py"),
        only=ours("arguments", "operations", "exceptions", "status"),
    ),
    Door(("wire.py",), only=("msgpack", *ours("operations", "exceptions", "status"))),
    Door(("store/",), only=("lmdb", "lupa", "re2", "rapidfuzz", *ours("operations", "exceptions", "store"))),
    Door(("node/",), never=("django", *ours("backend"), *FACES)),
    Door(("node/raft/",), only=ours("node.raft")),
    Door(("backend/",), never=ours("node", "management", "dashboard")),
)


def rule_doors(module: Module) -> list[str]:
    """No module imports what lies behind a door that is closed to it."""
    found = []
    for door in DOORS:
        if not any(
            module.inside == room or (room.endswith("/") and module.inside.startswith(room)) for room in door.rooms
        ):
            continue
        for line, name in imports_of(module):
            standard = name.split(".")[0] in sys.stdlib_module_names
            if is_within(name, door.never) or (
                door.only is not None and not standard and not is_within(name, door.only)
            ):
                found.append(f"{module.path}:{line}: {name} may not be imported here")
    return found


def rule_package_imports_lazily(module: Module) -> list[str]:
    """The package's own __init__ runs before every other module of ours, so it must not bring Django along."""
    if module.inside != "__init__.py":
        return []
    lazy = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    body = [
        node for node in ast.walk(module.tree) if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in lazy
    ]
    eager = Module(module.path, "\n".join(ast.unparse(node) for node in body))
    return [
        f"{module.path}: {name} is imported before anybody asked for it"
        for _, name in imports_of(eager)
        if is_within(name, ("django", "lmdb", *ours("backend", "store", "node"), *FACES))
    ]


def rule_pickle_in_codec_only(module: Module) -> list[str]:
    """Only backend/codec.py, which signs, pickles and unpickles."""
    if module.inside == "backend/codec.py":
        return []
    return [
        f"{module.path}:{line}: {name} may be imported in backend/codec.py only"
        for line, name in imports_of(module)
        if is_within(name, ("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"))
    ]


# --- Rules about words ------------------------------------------------------------------------------------------------

LOCAL_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|home/\w+|Users/\w+|tmp/venv)(?=/)|\b[A-Z]:\\Users\\")


def rule_no_local_paths(module: Module) -> list[str]:
    """The project speaks of no machine that it was written on."""
    return [
        f"{module.path}:{number}: local path {match.group()}"
        for number, line in enumerate(module.text.splitlines(), 1)
        for match in LOCAL_PATH.finditer(line)
    ]


# --- The rules at work ------------------------------------------------------------------------------------------------

CODE_RULES: tuple[Rule, ...] = (
    rule_docstring,
    rule_function_length,
    rule_file_length,
    rule_no_assert,
    rule_no_swallowed_errors,
    rule_doors,
    rule_package_imports_lazily,
    rule_pickle_in_codec_only,
)


def read(path: Path) -> Module:
    return Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


def package_modules() -> list[Module]:
    return [read(path) for path in sorted((ROOT / PACKAGE).rglob("*.py"))]


def documents() -> list[Module]:
    """Everything that people read: all Markdown and reStructuredText, and the sources of package and example."""
    found = [path for pattern in ("*.md", "*.rst") for path in [*ROOT.glob(pattern), *(ROOT / "docs").rglob(pattern)]]
    for folder in (PACKAGE, "example_project"):
        for pattern in ("*.py", "*.md", "*.html"):
            found.extend((ROOT / folder).rglob(pattern))
    return [read(path) for path in sorted(found)]


@pytest.mark.parametrize("rule", CODE_RULES, ids=lambda rule: rule.__name__.removeprefix("rule_"))
def test_package_keeps(rule: Rule) -> None:
    modules = package_modules()
    assert len(modules) > 1
    findings = [finding for module in modules for finding in rule(module)]
    assert not findings, "\n".join(["", *findings])


def test_documents_name_no_local_paths() -> None:
    findings = [finding for document in documents() for finding in rule_no_local_paths(document)]
    assert not findings, "\n".join(["", *findings])


@pytest.mark.parametrize("name", ["store", "operations", "wire", "exceptions", "node"])
def test_imports_work_without_django(name: str) -> None:
    """What the doors promise, seen from outside: these import in a fresh process and bring no Django with them."""
    code = f"import sys, {PACKAGE}.{name}; sys.exit('django' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or f"{PACKAGE}.{name} imports Django"


# --- The rules themselves, on made-up source --------------------------------------------------------------------------


def long_function(lines: int) -> str:
    return "\n".join(["async def long():", *["    work()"] * (lines - 1)])


STORE = f"{PACKAGE}/store/made_up.py"
NODE = f"{PACKAGE}/node/made_up.py"
RAFT = f"{PACKAGE}/node/raft/made_up.py"
BACKEND = f"{PACKAGE}/backend/made_up.py"

BROKEN: list[tuple[Rule, str, str]] = [
    (rule_docstring, STORE, "x = 1"),
    (rule_docstring, STORE, '"""  """'),
    (rule_function_length, STORE, long_function(FUNCTION_LINES_MAX + 1)),
    (rule_file_length, STORE, "\n" * (FILE_LINES_MAX + 1)),
    (rule_no_assert, STORE, "def f(x):\n    assert x"),
    (rule_no_swallowed_errors, STORE, "try:\n    f()\nexcept Exception:\n    pass"),
    (rule_no_swallowed_errors, STORE, "try:\n    f()\nexcept:\n    ..."),
    (
        rule_no_swallowed_errors,
        STORE,
        "for x in y:\n    try:\n        f()\n    except (OSError, BaseException):\n        continue",
    ),
    (rule_no_swallowed_errors, STORE, "with contextlib.suppress(Exception):\n    f()"),
    (rule_doors, STORE, "import django"),
    (rule_doors, STORE, "def f():\n    from django.conf import settings"),
    (rule_doors, STORE, "import importlib\nimportlib.import_module('django.conf')"),
    (rule_doors, STORE, "import msgpack"),
    (rule_doors, STORE, "from ..backend import codec"),
    (rule_doors, STORE, "from .. import wire"),
    (rule_doors, f"{PACKAGE}/operations.py", "from django.utils import timezone"),
    (rule_doors, f"{PACKAGE}/operations.py", "from . import store"),
    (rule_doors, f"{PACKAGE}/wire.py", "import lmdb"),
    (rule_doors, NODE, "import django.core.cache"),
    (rule_doors, NODE, "from django_keyspace.backend.routing import Client"),
    (rule_doors, NODE, "from ..conf import Config"),
    (rule_doors, RAFT, "from ..journal import Journal"),
    (rule_doors, RAFT, "import msgpack"),
    (rule_doors, BACKEND, "from django_keyspace import node"),
    (rule_package_imports_lazily, f"{PACKAGE}/__init__.py", "from .backend import KeyspaceCache"),
    (rule_package_imports_lazily, f"{PACKAGE}/__init__.py", "import django"),
    (rule_pickle_in_codec_only, BACKEND, "import pickle"),
    (rule_pickle_in_codec_only, BACKEND, "def f():\n    from pickle import loads"),
    (rule_no_local_paths, "README.md", "Look at /home/somebody/project/file"),
    (rule_no_local_paths, "docs/design.md", "see `/root/notes.md`"),
]

SOUND: list[tuple[Rule, str, str]] = [
    (rule_docstring, STORE, '"""What this is."""'),
    (rule_function_length, STORE, long_function(FUNCTION_LINES_MAX)),
    (rule_file_length, STORE, "\n" * FILE_LINES_MAX),
    (rule_no_assert, STORE, "if not x:\n    raise ValueError"),
    (rule_no_swallowed_errors, STORE, "try:\n    f()\nexcept OSError:\n    pass"),
    (rule_no_swallowed_errors, STORE, "try:\n    f()\nexcept Exception:\n    log.exception('f')"),
    (
        rule_doors,
        STORE,
        "import os, lmdb\nfrom ..operations import TABLE\nfrom . import record\nfrom ..exceptions import NoSpace",
    ),
    (rule_doors, NODE, "import asyncio, msgpack\nfrom ..store.apply import apply\nfrom .. import wire"),
    (rule_doors, RAFT, "import random\nfrom .log import Log\nfrom django_keyspace.node.raft import core"),
    (rule_doors, BACKEND, "from django.conf import settings\nfrom ..store import record\nfrom .. import wire"),
    (
        rule_package_imports_lazily,
        f"{PACKAGE}/__init__.py",
        "def __getattr__(name):\n    from .backend import KeyspaceCache",
    ),
    (
        rule_package_imports_lazily,
        f"{PACKAGE}/__init__.py",
        "if TYPE_CHECKING:\n    from .backend import KeyspaceCache",
    ),
    (rule_package_imports_lazily, BACKEND, "import django"),
    (rule_pickle_in_codec_only, f"{PACKAGE}/backend/codec.py", "import pickle"),
    (rule_no_local_paths, "README.md", "LOCATION = /var/lib/site/cache, https://example.org/work/now, path/to/root/x"),
]


def name_of(value: object) -> str:
    """Name a case by its rule; pytest tells cases of one name apart by a number."""
    return value.__name__.removeprefix("rule_") if callable(value) else ""


@pytest.mark.parametrize(("rule", "path", "source"), BROKEN, ids=name_of)
def test_rule_finds(rule: Rule, path: str, source: str) -> None:
    assert rule(Module(path, source))


@pytest.mark.parametrize(("rule", "path", "source"), SOUND, ids=name_of)
def test_rule_accepts(rule: Rule, path: str, source: str) -> None:
    assert rule(Module(path, source)) == []


def test_every_rule_is_tried_on_made_up_source() -> None:
    rules = {*CODE_RULES, rule_no_local_paths}
    assert {rule for rule, _, _ in BROKEN} == rules
    assert {rule for rule, _, _ in SOUND} == rules
