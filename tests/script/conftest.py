"""A store and a runner of scripts for it, and a short way to call a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.store import Store, open_store
from django_keyspace.store.scripting import ScriptRunner, script_call, script_result

LONG_MS = 60_000
"""For scripts that are not about time: this machine may be slow."""


@pytest.fixture
def store(store_folder: Path) -> Store:
    """An empty store."""
    return open_store(store_folder)


@pytest.fixture
def runner(store: Store) -> ScriptRunner:
    """Runs scripts on it."""
    return ScriptRunner(store)


@pytest.fixture
def run(runner: ScriptRunner) -> Callable[..., Any]:
    """``run("function f(a) return a end", {"x": 1})``: the result of function ``f``."""

    def call(source: str, arguments: Any = None, function: str = "f", **options: Any) -> Any:
        text = options.pop("text", True)
        options.setdefault("time_ms", LONG_MS)
        made = script_call(0, function, arguments, sources=[("test.lua", source)] if source else [], **options)
        return script_result(runner.run(made), text=text)

    return call


@pytest.fixture
def library(run: Callable[..., Any]) -> Callable[..., Any]:
    """``library("hset", table_key="h", ...)``: the result of a function that comes with the package."""
    return lambda function, /, **arguments: run("", arguments, function)
