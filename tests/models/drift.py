"""Whether the records, index entries and schema of a model in the store are exactly what they should be."""

from __future__ import annotations

from typing import Any

from django_keyspace.store.record import payload_of, unpack_header


def listed(engine: Any, database: int, prefix: bytes) -> dict[bytes, bytes]:
    """All records of the store whose keys begin so, by key."""
    keys: list[bytes] = []
    after, more = b"", True
    while more:
        page, more = engine.execute("list", database, prefix, after, False, True, 500, False)
        keys += page
        after = page[-1] if page else b""
    found = engine.execute("get_many", database, keys) if keys else []
    return {key: record for key, record in zip(keys, found, strict=True) if record is not None}


def drift(engine: Any, model: Any, using: str | None = None) -> list[str]:
    """What is wrong with the index entries of a model: missing, orphaned, wrong, or of another deadline."""
    storage, meta = model._storage(using), model._meta
    wanted: dict[bytes, tuple[bytes, int]] = {}
    for key, record in listed(engine, storage.database, meta.record_prefix).items():
        key_bytes = key[len(meta.record_prefix) :]
        for entry in storage.entries(storage.values(record), key_bytes):
            wanted[entry] = (key_bytes, unpack_header(record)[4])
    found: dict[bytes, tuple[bytes, int]] = {}
    for index in meta.indexes.values():
        for key, record in listed(engine, storage.database, index.prefix).items():
            found[key] = (payload_of(record), unpack_header(record)[4])
    wrong = [f"missing: {key!r}" for key in wanted.keys() - found.keys()]
    wrong += [f"orphaned: {key!r}" for key in found.keys() - wanted.keys()]
    wrong += [f"other than the record: {key!r}" for key in wanted.keys() & found.keys() if wanted[key] != found[key]]
    return sorted(wrong)
