"""How a batch of Keyspace's commands travels: in pieces of a bounded size, each one operation of the store.

A batch is not atomic. A piece that was answered is done, one whose answer was lost may be, and what comes after that is not
sent. No command is sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import groupby
from typing import Any, Final

from django_keyspace.backend.keyspace.commands import key_of
from django_keyspace.exceptions import (
    InvalidArgument,
    KeyspaceError,
    LocalError,
    NoSpace,
    UnknownOutcome,
    ValueTooLarge,
    error_from_code,
)
from django_keyspace.operations import OPERATIONS, Call
from django_keyspace.wire import OK

PIECE_CALLS: Final = 2_000
PIECE_BYTES: Final = 4 * 1024 * 1024
_RETURNS: Final = frozenset({"remove", "cas"})
"""Writes whose answers have the old value in them, which may be large."""
_SENDS: Final = frozenset({"set", "cas"})

Execute = Callable[..., Any]


def submit(
    execute: Execute, calls: Sequence[Call], reads: bool, database: int = 0
) -> tuple[list[Any], KeyspaceError | None]:
    """Carry out a batch.

    Arguments:
        execute: does an operation.
        calls: the commands as operations: all of them ``get``, or all of them writes. For a ``set`` its pair of key and
            value is enough.
        database: that of the pairs.
        reads: which of both.
    Returns:
        The answer of each command, or its error; and the error because of which the rest was not answered, if any.
    """
    answers: list[Any] = []
    try:
        for piece in _pieces(execute, calls, reads):
            _do(execute, piece, reads, database, answers)
    except KeyspaceError as error:
        answers += [error] * (len(calls) - len(answers))
        return answers, error
    return answers, None


def is_pair(call: Call) -> bool:
    """Whether this is a ``set`` that is given as its pair of key and value."""
    return type(call[0]) is bytes


def _pieces(execute: Execute, calls: Sequence[Call], reads: bool) -> Iterator[Sequence[Call]]:
    names = {call[0] if type(call[0]) is str else "" for call in calls}  # pairs have none
    for begin in range(0, len(calls), PIECE_CALLS):
        piece = calls[begin : begin + PIECE_CALLS]
        if reads:
            yield piece
        else:
            yield from _fitting(piece, _sizes(execute, piece, names))


def _sizes(execute: Execute, piece: Sequence[Call], names: Set[str]) -> Sequence[int]:
    """Bytes that each write sends, and those that it brings back, as far as one can know before."""
    if names == {""}:
        sizes = [len(value[2]) for _, value in piece]
    else:
        sizes = [len(call[1][2]) if is_pair(call) else len(call[3][2]) if call[0] in _SENDS else 0 for call in piece]
    if names & _RETURNS:
        returning = [index for index, call in enumerate(piece) if call[0] in _RETURNS]
        lengths = [("length", piece[index][1], key_of(piece[index])) for index in returning]
        for index, (_, length) in zip(returning, execute("batch", lengths) if lengths else (), strict=True):
            sizes[index] += length or 0
    return sizes


def _fitting(piece: Sequence[Call], sizes: Sequence[int]) -> Iterator[Sequence[Call]]:
    """A piece, or parts of it that are small enough."""
    if len(piece) > 1 and sum(sizes) > PIECE_BYTES:
        half = len(piece) // 2
        yield from _fitting(piece[:half], sizes[:half])
        yield from _fitting(piece[half:], sizes[half:])
    else:
        yield piece


def _do(execute: Execute, piece: Sequence[Call], reads: bool, database: int, answers: list[Any]) -> None:
    """Append the answers of a piece. Raises the error because of which it, or a part of it, was not answered."""
    try:
        if reads:
            answers += execute("get_many", piece[0][1], [call[2] for call in piece])
        else:
            answers += _write(execute, piece, database)
        return
    except (LocalError, NoSpace) as error:
        if len(piece) == 1 or not _may_help_to_split(piece, error):
            answers += [error] * len(piece)
            return
    half = len(piece) // 2
    _do(execute, piece[:half], reads, database, answers)
    _do(execute, piece[half:], reads, database, answers)


def _may_help_to_split(piece: Sequence[Call], error: KeyspaceError) -> bool:
    """Whether a piece of which nothing was done may be done in parts. Raises UnknownOutcome if something may be done."""
    if isinstance(error, NoSpace):
        return not all(is_pair(call) or OPERATIONS[call[0]].grows for call in piece)  # some of them need no space
    if isinstance(error, ValueTooLarge) and any(call[0] in _RETURNS for call in piece):
        raise UnknownOutcome(
            f"The answer of {len(piece)} commands was too large to be sent. They may have happened. Send fewer at once."
        ) from error
    # The node does not take the piece as a whole, or cannot answer it in one frame.
    return isinstance(error, InvalidArgument)


def _write(execute: Execute, piece: Sequence[Call], database: int) -> list[Any]:
    """Writes in order: runs of sets as one operation each."""
    if {type(call[0]) for call in piece} == {bytes}:
        return [execute("set_many", database, piece, None)] * len(piece)
    runs: list[tuple[Call, int]] = []
    for is_set, group in groupby(piece, key=_is_set):
        calls = list(group)
        if is_set:
            pairs = [call if is_pair(call) else call[2:4] for call in calls]
            runs.append((("set_many", database, pairs, None), len(calls)))
        else:
            runs += [(call, 1) for call in calls]
    if len(runs) == 1:
        call, length = runs[0]
        return [execute(*call)] * length
    answers: list[Any] = []
    results = execute("batch", [call for call, _ in runs])
    for (_, length), (word, result) in zip(runs, results, strict=True):
        answers += [result if word == OK else error_from_code(word, result)] * length
    return answers


def _is_set(call: Call) -> bool:
    return is_pair(call) or bool(call[0] == "set")
