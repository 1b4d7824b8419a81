"""Applies a mutation, and asks a test or a random schedule whether it notices."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tests.raft.schedules import Schedule

from .table import Mutation

PACKAGE = "django_keyspace.node.raft"


class HasTarget(Protocol):
    """A mutation of either table."""

    @property
    def target(self) -> str:
        """Dotted name of what is replaced."""

    @property
    def make(self) -> Callable[[Any], Any]:
        """Makes the replacement from the original."""


def _find_module(name: str) -> tuple[Any, str]:
    """The module at the beginning of a dotted name, and the rest of the name."""
    module, parts = importlib.import_module(name.partition(".")[0]), name.split(".")[1:]
    while parts and importlib.util.find_spec(f"{module.__name__}.{parts[0]}") is not None:
        module = importlib.import_module(f"{module.__name__}.{parts.pop(0)}")
        if not hasattr(module, "__path__"):
            break
    return module, ".".join(parts)


@contextmanager
def applied(mutation: HasTarget, package: str = PACKAGE) -> Iterator[None]:
    """The rule is off inside."""
    owner, path = _find_module(f"{package}.{mutation.target}")
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
