"""The files of a journal: made in advance, numbered without gaps, removed from the front."""

from __future__ import annotations

import os
import re
from typing import Final

from django_keyspace.exceptions import DiskFailed, NoSpace
from django_keyspace.node.disk import NEW_SUFFIX, Disk, DiskFile

_NAME: Final = re.compile(r"(\d{10})\.segment")


class Segments:
    """The segment files of one folder.

    Arguments:
        disk: the node's disk.
        folder: the journal's folder on it.
    """

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._files: dict[int, DiskFile] = {}

    def name(self, number: int) -> str:
        """The name of a segment's file on the disk."""
        return f"{self._folder}/{number:010d}.segment"

    def free_bytes(self) -> int:
        """Bytes that may still be written to the disk."""
        return self._disk.free_bytes()

    def found(self) -> list[int]:
        """The numbers of the files that lie there, in order."""
        return sorted(int(match[1]) for name in self._disk.list(self._folder) if (match := _NAME.fullmatch(name)))

    def prepare(self) -> None:
        """Make the folder, and remove what was being made when the last process ended."""
        self._disk.make_folder(self._folder)
        self._disk.sync_folder(os.path.dirname(self._folder))
        for name in self._disk.list(self._folder):
            if name.endswith(NEW_SUFFIX):
                self._disk.remove(f"{self._folder}/{name}")
        self.sync()

    def open(self, number: int) -> DiskFile:
        """Open a file that is there."""
        file = self._files[number] = self._disk.open(self.name(number))
        return file

    def file(self, number: int) -> DiskFile:
        """An open file."""
        return self._files[number]

    def make(self, number: int, size_bytes: int, content: bytes) -> DiskFile:
        """Make a file of zeros that begins with ``content``; it is durable at return.

        Raises:
            NoSpace: there is no room for it; nothing was made.
            DiskFailed: the disk failed.
        """
        name = self.name(number)
        temporary = name + NEW_SUFFIX
        self._disk.remove(temporary)
        try:
            file = self._disk.create(temporary, size_bytes)
            try:
                file.write_at(0, content)
                file.sync()
            except (NoSpace, DiskFailed):
                file.close()
                raise
        except NoSpace:
            self._disk.remove(temporary)
            raise
        self._disk.rename(temporary, name)
        self.sync()
        self._files[number] = file
        return file

    def remove(self, numbers: list[int]) -> None:
        """Remove files."""
        for number in numbers:
            file = self._files.pop(number, None)
            if file is not None:
                file.close()
            self._disk.remove(self.name(number))
        if numbers:
            self.sync()

    def sync(self) -> None:
        """Make the folder's list of files durable."""
        self._disk.sync_folder(self._folder)

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.popitem()[1].close()
