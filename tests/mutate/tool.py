"""Applies a mutation, and asks a test or a random schedule whether it notices."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.raft.schedules import Schedule

from .table import Mutation

PACKAGE = "django_keyspace.node.raft"


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The rule is off inside."""
    module_name, _, path = mutation.target.partition(".")
    owner: Any = importlib.import_module(f"{PACKAGE}.{module_name}")
    if found := re.fullmatch(r"(\w+)\[(\w+)\]", path):
        table = getattr(owner, found[1])
        key = next(cls for cls in table if cls.__name__ == found[2])
        original = table[key]
        table[key] = mutation.make(original)
        try:
            yield
        finally:
            table[key] = original
        return
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original = vars(owner)[name]
    if isinstance(original, property):
        replacement: Any = property(mutation.make(original.fget))
    else:
        replacement = mutation.make(original)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


def find_test(mutation: Mutation) -> Callable[[], None]:
    """The test that has to notice a mutation, as something to call."""
    module = importlib.import_module(mutation.module)
    check = getattr(module, mutation.caught_by.replace("test_", "check_", 1), None)
    test: Callable[[], None] = check or getattr(module, mutation.caught_by)
    return test


def complaint(check: Callable[[], object]) -> str:
    """What a check complains of, in one line; empty if it is content."""
    try:
        check()
    except BaseException as error:  # pytest's own failures are not Exceptions
        if isinstance(error, KeyboardInterrupt):
            raise
        text = str(error).strip().splitlines()
        return f"{type(error).__name__}: {text[0] if text else ''}"[:100]
    return ""


def complaint_of_test(mutation: Mutation) -> str:
    """What the named test says of a mutation."""
    test = find_test(mutation)
    with applied(mutation):
        return complaint(test)


def first_seed(mutation: Mutation, seeds: int) -> tuple[int, str] | None:
    """The first random schedule that notices a mutation, and what it says."""
    with applied(mutation):
        for seed in range(seeds):
            said = complaint(Schedule(seed).run)
            if said:
                return seed, said
    return None
