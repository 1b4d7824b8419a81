"""Other releases of this package, made of this one's source: with other versions, and with an operation that this one lacks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import django_keyspace

OURS = Path(django_keyspace.__file__).resolve().parents[1]
"""The folder of this release."""


class Change(NamedTuple):
    """A change of a release: a line that is there once, and what stands in its place."""

    file: str
    before: str
    after: str


_DOUBLE = """
def double(context: WriteContext, database: int, key: bytes) -> int:
    return incr(context, database, key, incr(context, database, key, 0, 0, None, 0), None, None, 0)


WRITES: Final[dict[str, Callable[..., Any]]] = {
    "double": double,
"""

NEXT = (
    Change("__init__.py", f'__version__ = "{django_keyspace.__version__}"\n', '__version__ = "99.1"\n'),
    Change("wire.py", "PROTOCOL_VERSION: Final = 1\n", "PROTOCOL_VERSION: Final = 2\n"),
    Change("node/greeting.py", "PEER_VERSION: Final = 1\n", "PEER_VERSION: Final = 2\n"),
    Change("node/entries.py", "ENTRY_VERSION: Final = 1\n", "ENTRY_VERSION: Final = 2\n"),
    Change(
        "operations.py",
        "_OPERATIONS: Sequence[Operation] = (\n",
        "_OPERATIONS: Sequence[Operation] = (\n"
        '    Operation("double", (_DATABASE, _KEY), True, "keep", "Double an integer.", since=2),\n',
    ),
    Change("store/apply.py", "\nWRITES: Final[dict[str, Callable[..., Any]]] = {\n", _DOUBLE),
)
"""The next release: it speaks what this one speaks and more, and its operation ``double`` needs entries of version 2."""
LATER = (
    *NEXT,
    Change("wire.py", "PROTOCOL_VERSION_OLDEST: Final = 1\n", "PROTOCOL_VERSION_OLDEST: Final = 2\n"),
    Change("node/greeting.py", "PEER_VERSION_OLDEST: Final = 1\n", "PEER_VERSION_OLDEST: Final = 2\n"),
)
"""The one after it, which does not speak what this one speaks any more."""


def make_release(folder: Path, changes: tuple[Change, ...]) -> Path:
    """Make a release in a folder. Returns: the folder, for ``PYTHONPATH``."""
    package = folder / "django_keyspace"
    shutil.copytree(OURS / "django_keyspace", package)  # with what is compiled: that takes seconds on a busy machine
    for change in changes:
        file = package / change.file
        source = file.read_text(encoding="utf-8")
        assert source.count(change.before) == 1, change
        file.write_text(source.replace(change.before, change.after), encoding="utf-8")
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
            compiled.unlink()
    return folder
