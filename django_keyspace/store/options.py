"""How a store is opened, and what a process counts about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.operations import DATABASES_DEFAULT, MODELS_BASE, VALUE_BYTES_MAX_DEFAULT, Limits

DURABILITIES: Final = ("commit", "interval", "none")
MAP_BYTES_DEFAULT: Final = 64 * 2**30
MAP_BYTES_LEAST: Final = 2**20
MAX_BYTES_DEFAULT: Final = 2**30
DATABASES_MAX: Final = MODELS_BASE


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is opened. All aliases of one folder in one process must agree.

    Attributes:
        durability: ``commit`` syncs each commit to the disk before it returns; ``interval`` syncs once a second; ``none``
            leaves it to the system. In all three a killed process loses nothing.
        databases: how many numbered databases there are.
        max_bytes: soft limit of the data's pages, in bytes.
        map_bytes: size of the memory map to begin with, in bytes: address space, not memory. It grows if need be.
        value_bytes_max: largest payload of one value, in bytes.
        lock_wait_ms: how long a write waits for the writer lock at most, unless its caller says otherwise. The one option
            in which aliases may differ.
        replicated: whether the log of a cluster orders the writes: see ``store/replica.py``.
    """

    durability: str = "interval"
    databases: int = DATABASES_DEFAULT
    max_bytes: int = MAX_BYTES_DEFAULT
    map_bytes: int = MAP_BYTES_DEFAULT
    value_bytes_max: int = VALUE_BYTES_MAX_DEFAULT
    lock_wait_ms: int = field(default=5000, compare=False)
    replicated: bool = False

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise ConfigurationError(f"durability must be one of {', '.join(DURABILITIES)}, not {self.durability!r}.")
        for name, least, most in (
            ("databases", 1, DATABASES_MAX),
            ("max_bytes", MAP_BYTES_LEAST // 2, 2**62),
            ("map_bytes", MAP_BYTES_LEAST, 2**62),
            ("value_bytes_max", 1, 2**31),
            ("lock_wait_ms", 0, 2**31),
        ):
            number = getattr(self, name)
            if type(number) is not int or not least <= number <= most:
                raise ConfigurationError(f"{name} must be an integer from {least:,} to {most:,}, not {number!r}.")

    @property
    def limits(self) -> Limits:
        """What the arguments of operations are checked against."""
        return Limits(databases=self.databases, value_bytes_max=self.value_bytes_max)


class Counters:
    """What this process has done with a store since it first used it. No lock is taken: approximate under threads."""

    __slots__ = ("commits", "damaged", "evicted", "expired", "hits", "misses", "no_space", "writes")

    def __init__(self) -> None:
        self.hits = self.misses = self.writes = self.commits = 0
        self.evicted = self.expired = self.no_space = self.damaged = 0

    def as_dict(self) -> dict[str, int]:
        """The figures by name."""
        return {name: getattr(self, name) for name in self.__slots__}
