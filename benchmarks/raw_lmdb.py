"""py-lmdb with nothing around it, shaped like a cache so that the same loops can drive it: the limit of an LMDB store.

It has no timeouts, no versions, no serializer and no key checks, so it is not a cache. It shows how much of a
backend's time the store itself takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import lmdb

_environments: dict[str, lmdb.Environment] = {}
_opening = threading.Lock()


def _environment(folder: str) -> lmdb.Environment:
    # One environment per process and file: LMDB refuses the second.
    with _opening:
        if folder not in _environments:
            _environments[folder] = lmdb.open(folder, map_size=8 << 30, sync=False, max_readers=256, max_spare_txns=4)
        return _environments[folder]


class RawLmdb:
    """The few methods that the measures call, for str keys and str values.

    Arguments: the folder of the environment; params are taken as Django passes them and ignored.
    """

    def __init__(self, folder: str, params: Mapping[str, Any]) -> None:
        self._store = _environment(folder)

    def get(self, key: str, default: Any = None) -> Any:
        with self._store.begin(buffers=False) as txn:
            found = txn.get(key.encode())
        return default if found is None else found.decode()

    def set(self, key: str, value: str, timeout: Any = None) -> None:
        with self._store.begin(write=True) as txn:
            txn.put(key.encode(), value.encode())

    def add(self, key: str, value: str, timeout: Any = None) -> bool:
        with self._store.begin(write=True) as txn:
            return txn.put(key.encode(), value.encode(), overwrite=False)

    def incr(self, key: str, delta: int = 1) -> int:
        encoded = key.encode()
        with self._store.begin(write=True) as txn:
            value = int(txn.get(encoded, b"0")) + delta
            txn.put(encoded, b"%d" % value)
        return value

    def delete(self, key: str) -> bool:
        with self._store.begin(write=True) as txn:
            return txn.delete(key.encode())

    def get_many(self, keys: Iterable[str]) -> dict[str, str]:
        with self._store.begin() as txn:
            found = {key: txn.get(key.encode()) for key in keys}
        return {key: value.decode() for key, value in found.items() if value is not None}

    def set_many(self, data: Mapping[str, str], timeout: Any = None) -> list[str]:
        with self._store.begin(write=True) as txn:
            for key, value in data.items():
                txn.put(key.encode(), value.encode())
        return []

    def keys(self, prefix: str) -> list[str]:
        """The keys that begin so, in order."""
        encoded, found = prefix.encode(), []
        with self._store.begin() as txn:
            cursor = txn.cursor()
            if cursor.set_range(encoded):
                for key in cursor.iternext(keys=True, values=False):
                    if not key.startswith(encoded):
                        break
                    found.append(key.decode())
        return found

    def clear(self) -> None:
        with self._store.begin(write=True) as txn:
            txn.drop(self._store.open_db(txn=txn), delete=False)

    def close(self, **kwargs: Any) -> None:
        """Nothing to do: the environment stays open for the process."""
