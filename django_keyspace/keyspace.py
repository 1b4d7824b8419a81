"""Scalien Keyspace's Python API: change ``import keyspace`` to ``from django_keyspace import keyspace``.

Everything that the ancestor's documentation lists, with its names, arguments and return values, on a node or on a folder.
What was broken there is mended; ``docs/keyspace-api.md`` lists the cases. Works without Django's settings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from django_keyspace.backend.keyspace.commands import FLAGS, Text, to_bytes, to_key, to_value
from django_keyspace.backend.keyspace.conversation import (
    DIRTY,
    SAFE,
    WRITE,
    Conversation,
    command,
    integer,
    text,
    zero,
)
from django_keyspace.backend.keyspace.results import Result as Result
from django_keyspace.exceptions import InvalidArgument, KeyspaceError
from django_keyspace.operations import DEADLINE_MS_MAX, KEY_BYTES_MAX, Call
from django_keyspace.status import Status, statuses_of_error
from django_keyspace.status import str_status as str_status
from django_keyspace.store.record import Tag

KEYSPACE_SUCCESS: Final = int(Status.SUCCESS)
KEYSPACE_API_ERROR: Final = int(Status.API_ERROR)
KEYSPACE_PARTIAL: Final = int(Status.PARTIAL)
KEYSPACE_FAILURE: Final = int(Status.FAILURE)
KEYSPACE_NOMASTER: Final = int(Status.NOMASTER)
KEYSPACE_NOCONNECTION: Final = int(Status.NOCONNECTION)
KEYSPACE_MASTER_TIMEOUT: Final = int(Status.MASTER_TIMEOUT)
KEYSPACE_GLOBAL_TIMEOUT: Final = int(Status.GLOBAL_TIMEOUT)
KEYSPACE_NOSERVICE: Final = int(Status.NOSERVICE)
KEYSPACE_FAILED: Final = int(Status.FAILED)

_TEXT: Final = int(Tag.TEXT)


class Client(Conversation):
    """A client of a store, with the ancestor's methods.

    Arguments:
        nodes: addresses of nodes, ``["host:port", ...]`` (the first that answers serves, if they are single nodes), or the
            path of one folder: then the store is in this process.
        database: number of the database.
        decode: keys and values come back as ``str``; False: as ``bytes``. Both may be given, always.
        raise_errors: raise an error of ``django_keyspace.exceptions`` where the ancestor's methods return None.
        **options: how the folder's store is opened: ``durability``, ``max_bytes``, ``map_bytes``, ``databases``,
            ``value_bytes_max``. Without any, it is as something else in this process has opened it, and otherwise with
            ``durability="commit"``. The last two also for nodes: what to check arguments against before they are sent.
            For nodes also ``secret`` and ``tls``, as in an alias's OPTIONS.
    Raises:
        ConfigurationError: an argument is not right.

    Attributes:
        result: the :class:`Result` of the last call; None before the first.

    Nothing is opened before the first call. Methods return None on failure, and :attr:`result` says why. A client belongs to
    one thread at a time; clients are cheap, and those of a process share its connections.
    """

    def __init__(
        self,
        nodes: Sequence[str] | str | os.PathLike[str],
        *,
        database: int = 0,
        decode: bool = True,
        raise_errors: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(nodes, database, decode, raise_errors, options)

    # ------------------------------------------------------------------------------------------- timeouts and nodes

    def set_global_timeout(self, timeout: int) -> int | None:
        """Set the time that one call may take in all, in milliseconds. The default is 120,000. Returns 0."""
        return self._set_timeouts(global_ms=timeout)

    def get_global_timeout(self) -> int:
        """The time that one call may take in all, in milliseconds."""
        return self._master.global_timeout_ms

    def set_master_timeout(self, timeout: int) -> int | None:
        """Set how long a call looks for a node that serves, in milliseconds. The default is 21,000. Returns 0."""
        return self._set_timeouts(master_ms=timeout)

    def get_master_timeout(self) -> int:
        """How long a call looks for a node that serves, in milliseconds."""
        return self._master.master_timeout_ms

    def _set_timeouts(self, **timeouts_ms: Any) -> int | None:
        try:
            if None in timeouts_ms.values():
                raise InvalidArgument("A timeout is a number of milliseconds, not None. Nothing was changed.")
            self._master.set_timeouts(**timeouts_ms)
        except KeyspaceError as error:
            self._fail(error)
            return None
        return KEYSPACE_SUCCESS

    def get_master(self) -> int:
        """The node that serves, or leads the cluster: its place in the list of nodes, from 0. Connects if it must.

        Returns:
            A negative status if there is none: ``KEYSPACE_NOCONNECTION``, ``KEYSPACE_NOMASTER``. :attr:`result` stays.
        """
        try:
            return self._master.find()
        except KeyspaceError as error:
            return int(statuses_of_error(error).connectivity or Status.NOCONNECTION)

    def get_state(self, node: int = 0) -> int:
        """Whether a node answers, now.

        Arguments:
            node: its place in the list of nodes, from 0.
        Returns:
            ``KEYSPACE_SUCCESS``, ``KEYSPACE_NOCONNECTION``, or ``KEYSPACE_API_ERROR`` if there is no such node.
        """
        if type(node) is not int or not 0 <= node < len(self._master):
            return KEYSPACE_API_ERROR
        return KEYSPACE_SUCCESS if self._master.is_there(node) else KEYSPACE_NOCONNECTION

    def distribute_dirty(self, dd: bool = True) -> int:
        """Let dirty reads go to all nodes in turn, or (False, the default) to the leader if there is one. Returns 0."""
        self._master.distributes_dirty = bool(dd)
        return KEYSPACE_SUCCESS

    # ------------------------------------------------------------------------------------------- writes

    def set(self, key: Text, value: Text) -> int | None:
        """Set a key's value. Returns 0."""
        batch = self._batch
        if batch is not None and (batch.kind == WRITE or not batch.kind):
            # The hot path of batches: plain text of a legal size, which only waits for its submit.
            if type(key) is str and type(value) is str and key.isascii() and value.isascii():
                if 0 < len(key) <= KEY_BYTES_MAX and len(value) <= self._limit_bytes:
                    batch.kind = WRITE
                    batch.calls.append((key.encode(), (_TEXT, FLAGS, value.encode())))
                    self.result = self._queued
                    return None
        return self._set(key, value)

    @command(WRITE, zero)
    def _set(self, key: Text, value: Text) -> Call:
        return "set", self._database, to_key("key", key), to_value("value", value, self._limit_bytes), None, "always"

    @command(WRITE, text)
    def test_and_set(self, key: Text, test: Text, value: Text) -> Call:
        """Set a key's value if it is ``test`` now, atomically.

        Returns:
            The new value. None with ``KEYSPACE_FAILED`` if the key has another value, or none: nothing was changed then.
        """
        condition = ("value", to_key("key", key), None, to_bytes("test", test))
        return "cas", self._database, condition, to_value("value", value, self._limit_bytes), None

    @command(WRITE, zero)
    def rename(self, from_: Text, to: Text) -> Call:
        """Move a value to another key, over what is there, atomically. Returns 0; None if there is nothing to move."""
        return "rename", self._database, to_key("from", from_), to_key("to", to)

    @command(WRITE, integer)
    def add(self, key: Text, num: int) -> Call:
        """Add to the number under a key, atomically.

        Arguments:
            key: its value is decimal text, or empty, which counts as 0.
            num: an integer within 64 bits, negative ones included.
        Returns:
            The new number. None if the key is missing, is no number, or the sum leaves 64 bits: nothing was changed then.
        """
        return self._checked("incr", self._database, to_key("key", key), num, None, None, FLAGS)

    @command(WRITE, zero)
    def delete(self, key: Text) -> Call:
        """Delete a key. Returns 0; None if it is missing."""
        return "delete", self._database, to_key("key", key)

    @command(WRITE, text)
    def remove(self, key: Text) -> Call:
        """Delete a key and return its value; None if it is missing."""
        return "remove", self._database, to_key("key", key)

    @command(WRITE, zero)
    def prune(self, prefix: Text) -> Call:
        """Delete all keys that begin so. Returns 0."""
        return self._checked("prune", self._database, to_bytes("prefix", prefix))

    @command(WRITE, zero)
    def set_expiry(self, key: Text, exptime: int) -> Call:
        """Let whatever is under a key then be deleted in so many seconds. The key need not exist. Returns 0.

        Writing, deleting or renaming the key does not stop it; :meth:`remove_expiry` does, and another call replaces it.

        Arguments:
            exptime: seconds; 0 and less: at once.
        """
        if type(exptime) not in (int, float) or not abs(exptime) <= DEADLINE_MS_MAX // 1000:
            raise InvalidArgument(f"An expiry is a number of seconds, not {exptime!r:.80}. Nothing was changed.")
        return "set_expiry", self._database, to_key("key", key), max(int(exptime * 1000), 0)

    @command(WRITE, zero)
    def remove_expiry(self, key: Text) -> Call:
        """Stop what :meth:`set_expiry` began. Returns 0, also if there is none."""
        return "remove_expiry", self._database, to_key("key", key)

    @command(WRITE, zero)
    def clear_expiries(self) -> Call:
        """Stop all expiries of this database. Returns 0."""
        return "clear_expiries", self._database

    # ------------------------------------------------------------------------------------------- reads

    @command(SAFE, text)
    def get(self, key: Text) -> Call:
        """The value under a key; None if it is missing."""
        if type(key) is str and key.isascii() and 0 < len(key) <= KEY_BYTES_MAX:  # the hot path
            return "get", self._database, key.encode()
        return "get", self._database, to_key("key", key)

    @command(DIRTY, text)
    def dirty_get(self, key: Text) -> Call:
        """The value under a key, as any node knows it, which may not be the newest; None if it is missing."""
        return "get", self._database, to_key("key", key)

    def list_keys(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> list[Text] | None:
        """The keys that begin so, in the order of their bytes.

        Arguments:
            prefix: how keys begin; all, if it is empty.
            start_key: begin at this key, or behind it if it is not there. A whole key; beyond the prefix's range it
                means that range's end.
            count: how many at most; 0: all.
            skip: leave out the first one.
            forward: False: backwards, from ``start_key`` or the last key down.
        Returns:
            A list, perhaps empty; None on failure.
        """
        rows = self._list(SAFE, prefix, start_key, count, skip, forward, False)
        return None if rows is None else [self._text(key) for key in rows]

    def list_key_values(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> dict[Text, Text] | None:
        """Keys and values as a dict, in order. Arguments as those of :meth:`list_keys`."""
        rows = self._list(SAFE, prefix, start_key, count, skip, forward, True)
        return None if rows is None else {self._text(key): self._text(value) for key, value in rows}

    def count(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> int | None:
        """How many keys :meth:`list_keys` would return. None on failure."""
        return self._count(SAFE, prefix, start_key, count, skip, forward)

    def dirty_list_keys(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> list[Text] | None:
        """As :meth:`list_keys`, as any node knows it, which may not be the newest."""
        rows = self._list(DIRTY, prefix, start_key, count, skip, forward, False)
        return None if rows is None else [self._text(key) for key in rows]

    def dirty_list_key_values(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> dict[Text, Text] | None:
        """As :meth:`list_key_values`, as any node knows it, which may not be the newest."""
        rows = self._list(DIRTY, prefix, start_key, count, skip, forward, True)
        return None if rows is None else {self._text(key): self._text(value) for key, value in rows}

    def dirty_count(
        self, prefix: Text = "", start_key: Text = "", count: int = 0, skip: bool = False, forward: bool = True
    ) -> int | None:
        """As :meth:`count`, as any node knows it, which may not be the newest."""
        return self._count(DIRTY, prefix, start_key, count, skip, forward)

    list_keyvalues = list_key_values
    dirty_list_keyvalues = dirty_list_key_values
