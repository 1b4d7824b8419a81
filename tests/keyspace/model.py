"""A small model of Keyspace's commands, to compare clients with: dicts, and a clock that stands still.

An expiry is either far away or has fired at once, so that no time has to go by.
"""

from __future__ import annotations

import re
from typing import Any

FAR_S = 10_000


class Model:
    """What every command answers, and what is left.

    Attributes:
        values: keys and values.
        expiries: names that something will happen to in the far future.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.expiries: set[str] = set()

    def set(self, key: str, value: str) -> int:
        self.values[key] = value
        return 0

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    dirty_get = get

    def test_and_set(self, key: str, test: str, value: str) -> str | None:
        if self.values.get(key) != test:
            return None
        self.values[key] = value
        return value

    def rename(self, key: str, new: str) -> int | None:
        if key not in self.values:
            return None
        self.values[new] = self.values.pop(key)
        return 0

    def add(self, key: str, number: int) -> int | None:
        old = self.values.get(key)
        if old is None or not re.fullmatch("-?[0-9]*", old) or old == "-":
            return None
        total = int(old or "0") + number
        if not -(2**63) <= total < 2**63:
            return None
        self.values[key] = str(total)
        return total

    def delete(self, key: str) -> int | None:
        return None if self.values.pop(key, None) is None else 0

    def remove(self, key: str) -> str | None:
        return self.values.pop(key, None)

    def prune(self, prefix: str) -> int:
        self.values = {key: value for key, value in self.values.items() if not key.startswith(prefix)}
        return 0

    def set_expiry(self, key: str, seconds: int) -> int:
        if seconds > 0:
            self.expiries.add(key)
        else:
            self.expiries.discard(key)
            self.values.pop(key, None)
        return 0

    def remove_expiry(self, key: str) -> int:
        self.expiries.discard(key)
        return 0

    def clear_expiries(self) -> int:
        self.expiries.clear()
        return 0

    def list_keys(self, prefix: str, start_key: str, count: int, skip: bool, forward: bool) -> list[str]:
        found = sorted((key for key in self.values if key.startswith(prefix)), key=str.encode, reverse=not forward)
        if start_key:
            start = start_key.encode()
            found = [key for key in found if (key.encode() >= start if forward else key.encode() <= start)]
        found = found[1:] if skip else found
        return found[:count] if count else found

    def list_key_values(self, *arguments: Any) -> dict[str, str]:
        return {key: self.values[key] for key in self.list_keys(*arguments)}

    def count(self, *arguments: Any) -> int:
        return len(self.list_keys(*arguments))
