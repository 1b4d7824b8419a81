"""How a batch of Keyspace's commands travels: in pieces of a bounded size, each one operation of the store.

A batch is not atomic. A piece that was answered is done, one whose answer was lost may be, and what comes after that is not
sent. No command is sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from django_keyspace.backend.commands import key_of
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

_NAME: Final = itemgetter(0)
Execute = Callable[..., Any]


def submit(execute: Execute, calls: Sequence[Call], reads: bool) -> tuple[list[Any], KeyspaceError | None]:
    """Carry out a batch.

    Arguments:
        execute: does an operation.
        calls: the commands as operations: all of them ``get``, or all of them writes.
        reads: which of both.
    Returns:
        The answer of each command, or its error; and the error because of which the rest was not answered, if any.
    """
    answers: list[Any] = []
    try:
        for piece in _pieces(execute, calls, reads):
            _do(execute, piece, reads, answers)
    except KeyspaceError as error:
        answers += [error] * (len(calls) - len(answers))
        return answers, error
    return answers, None


def _pieces(execute: Execute, calls: Sequence[Call], reads: bool) -> Iterator[Sequence[Call]]:
    names = {call[0] for call in calls}
    for begin in range(0, len(calls), PIECE_CALLS):
        piece = calls[begin : begin + PIECE_CALLS]
        if reads:
            yield piece
        else:
            yield from _fitting(piece, _sizes(execute, piece, names))


def _sizes(execute: Execute, piece: Sequence[Call], names: Set[str]) -> Sequence[int]:
    """Bytes that each write sends, and those that it brings back, as far as one can know before."""
    if not names & _SENDS:
        sizes = [0] * len(piece)
    elif len(names) == 1:
        sizes = [len(call[3][2]) for call in piece]
    else:
        sizes = [len(call[3][2]) if call[0] in _SENDS else 0 for call in piece]
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


def _do(execute: Execute, piece: Sequence[Call], reads: bool, answers: list[Any]) -> None:
    """Append the answers of a piece. Raises the error because of which it, or a part of it, was not answered."""
    try:
        if reads:
            answers += execute("get_many", piece[0][1], [call[2] for call in piece])
        else:
            answers += _write(execute, piece)
        return
    except (LocalError, NoSpace) as error:
        if len(piece) == 1 or not _may_help_to_split(piece, error):
            answers += [error] * len(piece)
            return
    half = len(piece) // 2
    _do(execute, piece[:half], reads, answers)
    _do(execute, piece[half:], reads, answers)


def _may_help_to_split(piece: Sequence[Call], error: KeyspaceError) -> bool:
    """Whether a piece of which nothing was done may be done in parts. Raises UnknownOutcome if something may be done."""
    if isinstance(error, NoSpace):
        return not all(OPERATIONS[call[0]].grows for call in piece)  # some of them need no space
    if isinstance(error, ValueTooLarge) and any(call[0] in _RETURNS for call in piece):
        raise UnknownOutcome(
            f"The answer of {len(piece)} commands was too large to be sent. They may have happened. Send fewer at once."
        ) from error
    # The node does not take the piece as a whole, or cannot answer it in one frame.
    return isinstance(error, InvalidArgument)


def _write(execute: Execute, piece: Sequence[Call]) -> list[Any]:
    """Writes in order: runs of sets as one operation each."""
    runs: list[tuple[Call, int]] = []
    for name, group in groupby(piece, key=_NAME):
        calls = list(group)
        if name == "set" and len(calls) > 1:
            runs.append((("set_many", calls[0][1], [call[2:4] for call in calls], None), len(calls)))
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
