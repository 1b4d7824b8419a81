"""Files of Lua functions: read, and given short names for messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Final

from django_keyspace.exceptions import ConfigurationError

Source = tuple[str, str]
"""A name for messages, and the text."""

FILE_BYTES_MAX: Final = 1_000_000


def read_sources(paths: Iterable[Any]) -> list[Source]:
    """The text of script files.

    Arguments:
        paths: files, or folders whose ``*.lua`` files are meant, in the order of their names.
    Raises:
        ConfigurationError: one cannot be read, or is no text.
    """
    sources: list[Source] = []
    for path in paths:
        path = os.fspath(path)
        if os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if name.endswith(".lua"))
            sources += read_sources([os.path.join(path, name) for name in names])
        else:
            sources.append((os.path.basename(path)[:100], _read(path)))
    return sources


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"The script {path} cannot be read: {error.strerror or error}.") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(f"The script {path} has more than {FILE_BYTES_MAX:,} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The script {path} is not text in UTF-8: scripts are source, not bytecode."
        ) from error
