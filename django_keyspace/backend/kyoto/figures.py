"""status() and report() as kt's clients show them: the ancestors' names where a figure has one, bytes as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django_keyspace import __version__

_TREE_TYPE: Final = 0x31
"""The ancestor's number for a B+ tree in a file."""
_FORMAT: Final = 1


def _bytes(figure: Any) -> bytes:
    return figure if isinstance(figure, bytes) else str(figure).encode()


def status(store: Mapping[str, Any], database: int, count: int) -> dict[str, bytes]:
    """What ``KyotoTycoon.status`` answers.

    Arguments:
        store: the answer of the operation ``status``.
        database: the number of the database.
        count: its live records.
    """
    facts = {
        "count": count,
        "size": store["used_bytes"],
        "path": store["path"],
        "type": _TREE_TYPE,
        "realtype": _TREE_TYPE,
        "opts": 0,
        "libver": __version__,
        "librev": 0,
        "fmtver": _FORMAT,
        "chksum": 0,
        "recovered": 0,
        "reorganized": 0,
        "ktopts": 0,
        "ktcapcnt": -1,
        "ktcapsiz": store["max_bytes"],
        "capcnt": -1,
        "capsiz": store["max_bytes"],
        "records": store["records_by_database"][database] if database < len(store["records_by_database"]) else 0,
    }
    return {name: _bytes(figure) for name, figure in facts.items()}


def report(store: Mapping[str, Any]) -> dict[str, bytes]:
    """What ``KyotoTycoon.report`` answers. ``store``: as for :func:`status`."""
    facts = {
        "conf_version": __version__,
        "conf_durability": store["durability"],
        "db_total_count": store["records"],
        "db_total_size": store["used_bytes"],
        "serv_current_time": f"{store['log_time_ms'] / 1000:.6f}",
        "store_revision": store["revision"],
        "store_file_bytes": store["file_bytes"],
        "store_max_bytes": store["max_bytes"],
        "store_readers": store["readers"],
    }
    for number, records in enumerate(store["records_by_database"]):
        facts[f"db_{number}"] = f"count={records} path={store['path']}"
    return {name: _bytes(figure) for name, figure in facts.items()}


def tyrant_status(store: Mapping[str, Any], database: int, count: int) -> dict[str, Any]:
    """What ``TokyoTyrant.status`` answers: numbers are numbers, text is text. Arguments as those of :func:`status`."""
    return {
        "version": __version__,
        "type": "B+ tree",
        "path": store["path"],
        "rnum": count,
        "size": store["used_bytes"],
        "time": store["log_time_ms"] / 1000,
        "db": database,
        "durability": store["durability"],
        "max_bytes": store["max_bytes"],
    }
