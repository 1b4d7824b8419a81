"""Renders one module through pydoc, in an interpreter of its own: ``python -P pydoc_worker.py NAME``.

Importing somebody's module may print, change the interpreter, hang, exit or crash. Here it can do so without touching
the site: the parent process (rendering.py) gives a scrubbed environment and a time limit, and reads one JSON object
from this program's standard output, to which the imported module has no access. Uses nothing but the standard library.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pydoc
import sys
import time
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

ITEMS_MAX = 300
TEXT_LENGTH_MAX = 30_000


def main() -> None:
    """Write what pydoc says about the module named on the command line."""
    name = sys.argv[1]
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    try:
        module = importlib.import_module(name)
        import_ms = (time.perf_counter() - started) * 1000
        result = describe(module, name)
        result["import_ms"] = import_ms
        result["pydoc_ms"] = (time.perf_counter() - started) * 1000 - import_ms
    except BaseException as error:  # A module may raise anything at all, SystemExit included; the page then says what.
        result = {"error": f"{type(error).__name__}: {error}"[:1000]}
    json.dump(result, answer)
    answer.flush()
    # Threads or exit handlers that the module left behind must not keep the parent waiting.
    os._exit(0)


def describe(module: ModuleType, name: str) -> dict[str, Any]:
    """Return the parts of the module's page as plain text."""
    synopsis, description = pydoc.splitdoc(inspect.getdoc(module) or "")
    exported = getattr(module, "__all__", None)
    kinds: dict[str, list[dict[str, str]]] = {"classes": [], "functions": [], "data": []}
    dropped = 0
    for key, value in public_members(module, exported):
        kind = kind_of(value, module, exported is not None)
        if kind is None:
            continue
        if len(kinds[kind]) >= ITEMS_MAX:
            dropped += 1
            continue
        kinds[kind].append({"name": key, "brief": brief(value, kind), "text": text_of(value, key, name, kind)})
    return {
        "name": name,
        "synopsis": synopsis,
        "description": description[:TEXT_LENGTH_MAX],
        "file": os.path.basename(getattr(module, "__file__", None) or "") or "built in",
        "version": str(getattr(module, "__version__", ""))[:40],
        "dropped": dropped,
        **kinds,
    }


def public_members(module: ModuleType, exported: list[str] | None) -> Iterator[tuple[str, Any]]:
    """Yield the names that pydoc would show, in alphabetical order."""
    for key in sorted(vars(module), key=str.casefold):
        value = vars(module)[key]
        if pydoc.visiblename(key, exported, module) and not key.startswith("__"):
            yield key, value


def kind_of(value: Any, module: ModuleType, is_exported: bool) -> str | None:
    """Say in which list an object belongs; None for modules and for what was only imported from elsewhere."""
    if inspect.ismodule(value):
        return None
    if inspect.isclass(value) or inspect.isroutine(value):
        is_own = is_exported or inspect.isbuiltin(value) or (inspect.getmodule(value) or module) is module
        if not is_own:
            return None
        return "classes" if inspect.isclass(value) else "functions"
    return "data"


def brief(value: Any, kind: str) -> str:
    """Return the first line of an object's documentation."""
    if kind == "data":
        return ""
    return (inspect.getdoc(value) or "").strip().partition("\n")[0][:160]


def text_of(value: Any, key: str, module_name: str, kind: str) -> str:
    """Return pydoc's text about one object, cut if it is very long."""
    try:
        if kind == "data":
            text = pydoc.plaintext.docother(value, key, module_name, maxlen=100)
        else:
            text = pydoc.plaintext.document(value, key, module_name)
    except Exception as error:  # Odd descriptors and reprs fail in many ways; the rest of the page is still good.
        text = f"{key}: pydoc cannot describe this ({type(error).__name__})"
    text = text.strip("\n")
    if len(text) > TEXT_LENGTH_MAX:
        text = text[:TEXT_LENGTH_MAX] + "\n\n[shortened: the full text is longer than this page shows]"
    return text


if __name__ == "__main__":
    main()
