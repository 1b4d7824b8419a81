"""Which modules the site may show, found without importing any of them.

Rules: a module is shown only if Python's own finders find it in the standard library or in a folder of installed
packages, its name is an ordinary public one, and it is not known to act when it is imported. A name from an address
is never handed to ``import`` before ``find_module`` has said yes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pkgutil
import pydoc
import re
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import BuiltinImporter, ModuleSpec, PathFinder
from pathlib import Path

from django.core.cache import cache

from reader.topics import OTHER_TOPIC, TOPIC_OF, TOPICS

CATALOGUE_KEY = "catalogue"
CATALOGUE_TIMEOUT_S = 600
NAME_LENGTH_MAX = 150
# No leading underscore in any part: this also keeps out __main__ modules, which run programs.
NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*){0,7}\Z")
# These open a browser or a window, print, take over the terminal, or run test programs when they are imported.
NOT_SHOWN_TOP = frozenset(
    {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3"}
    | {"test", "tests", "conftest", "setup", "manage"}
)
NOT_SHOWN_PART = frozenset({"tests", "idle_test", "conftest"})
THIS_PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor}"
THIS_PROJECT = "django_keyspace"


@dataclass(frozen=True, slots=True)
class Module:
    """One line of the module list."""

    name: str
    synopsis: str
    group: str
    origin: str


def name_is_allowed(name: str) -> bool:
    """Say whether ``name`` has the form of a module that may be shown. It may still not exist."""
    if len(name) > NAME_LENGTH_MAX or NAME_PATTERN.match(name) is None:
        return False
    parts = name.split(".")
    return parts[0] not in NOT_SHOWN_TOP and not NOT_SHOWN_PART.intersection(parts)


def find_module(name: str) -> ModuleSpec | None:
    """Return the spec of a module that may be shown, or None. Imports nothing, not even the parent packages."""
    if not name_is_allowed(name):
        return None
    top, *rest = name.split(".")
    spec = _find_top(top)
    for position in range(1, len(rest) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        partial_name = ".".join([top, *rest[:position]])
        spec = PathFinder.find_spec(partial_name, list(spec.submodule_search_locations))
    return spec


def submodules(name: str, spec: ModuleSpec) -> list[str]:
    """Return the full names of the modules directly inside a package, in order; nothing for a plain module."""
    found = pkgutil.iter_modules(list(spec.submodule_search_locations or []))
    names = (f"{name}.{info.name}" for info in found)
    return sorted(child for child in names if name_is_allowed(child))


def all_modules() -> list[Module]:
    """Return every top-level module that the site shows, from the cache when it is there."""
    return cache.get_or_set(CATALOGUE_KEY, _scan, CATALOGUE_TIMEOUT_S) or []


def search(modules: list[Module], text: str) -> list[Module]:
    """Return the modules whose name or synopsis holds ``text``, names that start with it first."""
    wanted = text.casefold()

    def rank(module: Module) -> tuple[bool, bool, str]:
        name = module.name.casefold()
        return not name.startswith(wanted), wanted not in name, name

    hits = [module for module in modules if wanted in f"{module.name}\n{module.synopsis}".casefold()]
    return sorted(hits, key=rank)


def grouped(modules: list[Module]) -> list[tuple[str, list[Module]]]:
    """Return (group, its modules) pairs: topics of the standard library first, then installed packages."""
    groups: dict[str, list[Module]] = {topic: [] for topic in (*TOPICS, OTHER_TOPIC)}
    for module in modules:
        groups.setdefault(module.group, []).append(module)
    return [(group, members) for group, members in groups.items() if members]


def _scan() -> list[Module]:
    """Look through the standard library and the installed packages; a fraction of a second, hence cached."""
    owners = importlib.metadata.packages_distributions()
    names = {info.name for info in pkgutil.iter_modules(_package_folders())} | {THIS_PROJECT}
    modules = []
    for name in sorted(names | sys.stdlib_module_names, key=str.casefold):
        spec = find_module(name)
        if spec is None:
            continue
        is_standard = name in sys.stdlib_module_names
        modules.append(
            Module(
                name=name,
                synopsis=_synopsis(spec),
                group=TOPIC_OF.get(name, OTHER_TOPIC) if is_standard else "Installed packages",
                origin=THIS_PYTHON if is_standard else _release(owners, name),
            )
        )
    return modules


def _find_top(name: str) -> ModuleSpec | None:
    if name in sys.stdlib_module_names:
        return BuiltinImporter.find_spec(name) or PathFinder.find_spec(name, _standard_folders())
    if name == THIS_PROJECT:
        return PathFinder.find_spec(name) or importlib.util.find_spec(name)
    return PathFinder.find_spec(name, _package_folders())


def _standard_folders() -> list[str]:
    library = sysconfig.get_path("stdlib")
    return [library, sysconfig.get_path("platstdlib"), str(Path(library) / "lib-dynload")]


def _package_folders() -> list[str]:
    """Folders of installed packages that are on the import path; the site's own code is in none of them."""
    of_this_python = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    known = {*site.getsitepackages(), site.getusersitepackages(), *of_this_python}
    return [folder for folder in sys.path if folder in known]


def _synopsis(spec: ModuleSpec) -> str:
    """Return the first line of the module's documentation, read from its source."""
    if not spec.has_location or not (spec.origin or "").endswith(".py"):
        return ""
    try:
        with open(str(spec.origin), encoding="utf-8", errors="replace") as source:
            return (pydoc.source_synopsis(source) or "").strip()[:200]
    except OSError:
        return ""


def _release(owners: Mapping[str, list[str]], name: str) -> str:
    """Return "distribution version" of a top-level module, or an empty text if no distribution owns up to it."""
    distributions = sorted(set(owners.get(name, [])))
    try:
        return ", ".join(f"{dist} {importlib.metadata.version(dist)}" for dist in distributions)
    except importlib.metadata.PackageNotFoundError:
        return ", ".join(distributions)
