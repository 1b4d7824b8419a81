"""How a batch of Keyspace's commands travels: in pieces of a bounded size, each one operation of the store.

A batch is not atomic. A piece that was answered is done, one whose answer was lost may be, and what comes after that is not
sent. No command is sent twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

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
PIECE_RETURNS: Final = 64
"""Commands in one piece whose answers have a value in them, which may be large."""
_RETURNS: Final = frozenset({"remove", "cas"})
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
    for piece in _pieces(calls, reads):
        try:
            answers += _do(execute, piece, reads)
        except KeyspaceError as error:
            answers += [error] * (len(calls) - len(answers))
            return answers, error
    return answers, None


def _pieces(calls: Sequence[Call], reads: bool) -> Iterator[Sequence[Call]]:
    names = {call[0] for call in calls}
    for begin in range(0, len(calls), PIECE_CALLS):
        piece = calls[begin : begin + PIECE_CALLS]
        if reads:
            yield piece
        else:
            yield from _fitting(piece, names)


def _fitting(piece: Sequence[Call], names: Set[str]) -> Iterator[Sequence[Call]]:
    """A piece, or parts of it that are small enough. ``names`` are those of all operations that may be in it."""
    size_bytes = sum([len(call[3][2]) for call in piece if call[0] in _SENDS]) if names & _SENDS else 0
    returns = sum([call[0] in _RETURNS for call in piece]) if names & _RETURNS else 0
    if len(piece) > 1 and (size_bytes > PIECE_BYTES or returns > PIECE_RETURNS):
        half = len(piece) // 2
        yield from _fitting(piece[:half], names)
        yield from _fitting(piece[half:], names)
    else:
        yield piece


def _do(execute: Execute, piece: Sequence[Call], reads: bool) -> list[Any]:
    """The answers of a piece. Raises the error of one that was not answered."""
    try:
        if reads:
            records: list[Any] = execute("get_many", piece[0][1], [call[2] for call in piece])
            return records
        return _write(execute, piece)
    except InvalidArgument as error:
        # The node does not take the piece as a whole, or cannot answer it in one frame.
        if len(piece) == 1:
            return [error]
        if isinstance(error, ValueTooLarge) and any(call[0] in _RETURNS for call in piece):
            raise UnknownOutcome(
                f"The answer of {len(piece)} commands was too large to be sent. They may have happened. Send fewer at once."
            ) from error
    except NoSpace as error:
        if len(piece) == 1 or all(OPERATIONS[call[0]].grows for call in piece):
            return [error] * len(piece)  # otherwise some of them need no space
    except LocalError as error:
        return [error] * len(piece)
    half = len(piece) // 2
    answers = _do(execute, piece[:half], reads)
    try:
        return answers + _do(execute, piece[half:], reads)
    except KeyspaceError as error:  # the first half was answered
        return answers + [error] * (len(piece) - half)


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
