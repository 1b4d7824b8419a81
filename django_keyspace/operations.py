"""THE table of operations: every operation of the store once, with its arguments and what it does to deadlines.

An operation in flight is a plain tuple ``(name, *arguments)``: cheap to make, the same inside one process, on the wire
(``[id, name, arguments...]``) and in a node's log. This module says which names exist, what their arguments are and which
values are legal. What an operation *does* is in ``store/apply.py`` (writes) and ``store/queries.py`` (reads), keyed by the
same names; a test holds the tables against each other.

Vocabulary of the arguments:

``database``
    number of the sub-store, 0 to N-1. The models of an alias that uses database n live in a sub-store of their own, number
    :data:`MODELS_BASE` + n, which no cache and no client of an ancestor's API can name.
``key``
    1 to 1,024 bytes. A ``prefix`` and a ``start_key`` may also be empty.
``value``
    ``(tag, flags, payload)``: the type tag and the flags of ``store/record.py`` and the encoded bytes.
``expire``
    what becomes of the record's deadline: ``None`` never expires, ``"keep"`` leaves it as it is, an ``int`` >= 0 is a
    timeout in milliseconds from the write's log time (0: expired at once), ``("at", n)`` an absolute deadline in
    milliseconds since the epoch.
    Operations that keep a record's deadline also take ``("set", expire)``: then an existing record gets that deadline, too.
``expiry``
    a deadline that hangs on a key's name: a timeout in milliseconds (0: expires at once) or ``("at", n)``.
``condition``
    ``("absent", key)``, ``("present", key)``, ``("revision", key, n)`` or ``("value", key, tag, payload)`` where the tag
    may be ``None``: only the bytes count. A condition of an atomic block may also be ``("range", low, high, digest)``: the
    live keys from ``low`` to ``high``, both included (an empty ``high``: to the end), and their revisions are those of the
    digest that ``queries.range_digest`` made.

Two columns say what an operation does to deadlines. ``record_deadline`` is about the deadline in the record: ``keep`` leaves
it, ``set`` replaces it by the ``expire`` argument, ``none`` means that the operation has nothing to do with one. A
``keep`` operation that creates a record uses its ``expire`` argument for it, and ``("set", expire)`` makes it a ``set``.
``overlay`` is about the deadlines that hang on names (``store/overlay.py``): ``keep`` leaves them, ``set`` makes one,
``drop`` takes them away. Of a record that has both, the earlier deadline counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from django_keyspace import arguments
from django_keyspace.arguments import (
    AFTER as AFTER,
)
from django_keyspace.arguments import (
    BATCH_OPERATIONS_MAX as BATCH_OPERATIONS_MAX,
)
from django_keyspace.arguments import (
    DATABASES_DEFAULT as DATABASES_DEFAULT,
)
from django_keyspace.arguments import (
    DEADLINE_MS_MAX as DEADLINE_MS_MAX,
)
from django_keyspace.arguments import (
    INT64_MAX as INT64_MAX,
)
from django_keyspace.arguments import (
    INT64_MIN as INT64_MIN,
)
from django_keyspace.arguments import (
    KEEP as KEEP,
)
from django_keyspace.arguments import (
    KEY_BYTES_MAX as KEY_BYTES_MAX,
)
from django_keyspace.arguments import (
    LEVELS as LEVELS,
)
from django_keyspace.arguments import (
    MODELS_BASE as MODELS_BASE,
)
from django_keyspace.arguments import (
    NESTING_MAX as NESTING_MAX,
)
from django_keyspace.arguments import (
    PAGE_ROWS_MAX as PAGE_ROWS_MAX,
)
from django_keyspace.arguments import (
    RANGE_DIGEST_BYTES as RANGE_DIGEST_BYTES,
)
from django_keyspace.arguments import (
    SESSION_ID_BYTES as SESSION_ID_BYTES,
)
from django_keyspace.arguments import (
    SESSION_WINDOW as SESSION_WINDOW,
)
from django_keyspace.arguments import (
    VALUE_BYTES_MAX_DEFAULT as VALUE_BYTES_MAX_DEFAULT,
)
from django_keyspace.arguments import (
    Expire as Expire,
)
from django_keyspace.arguments import (
    Limits as Limits,
)
from django_keyspace.arguments import (
    Value as Value,
)
from django_keyspace.arguments import (
    check_key as check_key,
)
from django_keyspace.arguments import (
    key_too_long as key_too_long,
)
from django_keyspace.arguments import (
    value_too_large as value_too_large,
)
from django_keyspace.exceptions import InvalidArgument, UnknownOperation

Call = tuple[Any, ...]
"""An operation in flight: ``(name, *arguments)``."""

RecordDeadline = Literal["keep", "set", "none"]
Overlay = Literal["keep", "set", "drop"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    Attributes:
        name: the word on the wire and in the log.
        parameters: names of the arguments and the check of each, in order.
        writes: False for an operation that only reads.
        record_deadline: see the module's docstring.
        summary: one sentence: what it does and what it answers.
        grows: True for an operation that may need new space: a full store refuses it.
        overlay: see the module's docstring.
        runs: True for an operation that is neither in ``apply.py`` nor in ``queries.py``: it is carried out beside the store
            (``store/scripting/``), and what it writes is proposed as one ``atomic``.
        since: the version of the log's entries from which they may hold it (``node/entries.py``). A leader refuses it until
            all members read that version.
    """

    name: str
    parameters: tuple[tuple[str, arguments.Check | None], ...]
    writes: bool
    record_deadline: RecordDeadline
    summary: str
    grows: bool = False
    overlay: Overlay = "keep"
    runs: bool = False
    since: int = 1

    @property
    def kind(self) -> str:
        """``read``, ``write`` or ``script``."""
        return "script" if self.runs else "write" if self.writes else "read"


_DATABASE = ("database", arguments.check_database)
_KEY = ("key", arguments.check_key)
_KEYS = ("keys", arguments.check_keys)
_PREFIX = ("prefix", arguments.check_prefix)
_VALUE = ("value", arguments.check_value)
_EXPIRE = ("expire", arguments.check_expire)
_KEPT_EXPIRE = ("expire", arguments.check_kept_expire)
_ROWS = ("rows", arguments.check_rows)
_RANGE = (
    _PREFIX,
    ("start_key", arguments.check_prefix),
    ("skip", arguments.check_skip),
    ("forward", arguments.check_bool),
)


def _read(name: str, parameters: Iterable[Any], summary: str) -> Operation:
    return Operation(name, tuple(parameters), writes=False, record_deadline="none", summary=summary)


def _write(
    name: str, parameters: Iterable[Any], record_deadline: RecordDeadline, summary: str, overlay: Overlay = "keep"
) -> Operation:
    grows = name in _GROWS
    return Operation(name, tuple(parameters), True, record_deadline, summary, grows, overlay)


_GROWS = frozenset({"set", "set_many", "incr", "incr_float", "append", "cas", "set_expiry", "batch", "atomic"})

_OPERATIONS: Sequence[Operation] = (
    _read("get", [_DATABASE, _KEY], "The record's bytes, or None."),
    _read("get_many", [_DATABASE, _KEYS], "A list of records' bytes or None, in the order of the keys."),
    _read("exists", [_DATABASE, _KEY], "True if the key has a live record."),
    _read("length", [_DATABASE, _KEY], "Bytes of the record's payload, or None."),
    _read("ttl", [_DATABASE, _KEY], "Milliseconds left, -1 for a record without deadline, None for a missing key."),
    _read(
        "list",
        [_DATABASE, *_RANGE, _ROWS, ("with_values", arguments.check_bool)],
        "One page of an ordered listing: (rows, more). A row is a key, or (key, record). start_key is absolute, "
        "inclusive and clamped to the prefix; skip drops the first row, or for 'after' start_key alone.",
    ),
    _read(
        "count",
        [_DATABASE, *_RANGE, ("limit", arguments.check_count)],
        "One slice of a count: (number, last key seen or None at the end). A limit of 0 is no limit.",
    ),
    _read(
        "match_regex",
        [_DATABASE, _PREFIX, ("pattern", arguments.check_word), ("start_key", arguments.check_prefix), _ROWS],
        "One slice of the keys in which an RE2 expression is found after the prefix: (keys, last key looked at or None at "
        "the end). The next slice begins behind start_key.",
    ),
    _read(
        "match_similar",
        [
            _DATABASE,
            _PREFIX,
            ("origin", arguments.check_word),
            ("distance", arguments.check_distance),
            ("start_key", arguments.check_prefix),
        ],
        "One slice of the keys that are, after the prefix, at most so many edits of characters from a word: a list of "
        "(key, distance), and the last key looked at or None at the end.",
    ),
    _read("status", [], "Figures of the store, as a dict of words and numbers."),
    _read(
        "at",
        [
            ("level", arguments.check_level),
            ("min_index", arguments.check_count),
            ("max_staleness_ms", arguments.check_staleness),
            ("call", None),
        ],
        "Do a read, or a batch of reads, with the promise that its level gives. (result, index, age_ms, node): what the "
        "answer is as of, and who gave it.",
    ),
    _read("members", [], "The nodes of the cluster, as a dict: cluster, leader, nodes."),
    _write(
        "set",
        [_DATABASE, _KEY, _VALUE, _EXPIRE, ("presence", arguments.check_presence)],
        "set",
        "Store a value always, only if the key is absent, or only if it is present. True if it was stored.",
    ),
    _write(
        "set_many", [_DATABASE, ("pairs", arguments.check_pairs), _EXPIRE], "set", "Store values. The number of them."
    ),
    _write("touch", [_DATABASE, _KEY, _EXPIRE], "set", "Give a record another deadline. True if the key was there."),
    _write("delete", [_DATABASE, _KEY], "none", "Delete. True if the key was there."),
    _write("delete_many", [_DATABASE, _KEYS], "none", "Delete. The number of keys that were there."),
    _write(
        "incr",
        [
            _DATABASE,
            _KEY,
            ("delta", arguments.check_int64),
            ("default", arguments.check_optional_int64),
            _KEPT_EXPIRE,
            ("flags", arguments.check_flags),
        ],
        "keep",
        "Add to an integer and answer the new one. A missing key counts from the default; without one: MissingKey.",
    ),
    _write(
        "incr_float",
        [
            _DATABASE,
            _KEY,
            ("delta", arguments.check_float),
            ("default", arguments.check_optional_float),
            _KEPT_EXPIRE,
            ("flags", arguments.check_flags),
        ],
        "keep",
        "Add to a float or an integer and answer the new float. A missing key counts from the default.",
    ),
    _write(
        "append",
        [_DATABASE, _KEY, _VALUE, _KEPT_EXPIRE],
        "keep",
        "Append to text or bytes of the same tag, or create the record. The new length in bytes.",
    ),
    _write(
        "cas",
        [_DATABASE, ("condition", arguments.check_condition), ("value", arguments.check_optional_value), _EXPIRE],
        "set",
        "If the condition holds, store the value under the condition's key, or delete it for None. "
        "(swapped, record): the record as it was before.",
    ),
    _write("remove", [_DATABASE, _KEY], "none", "Delete and answer the record's bytes, or None."),
    _write(
        "rename",
        [_DATABASE, _KEY, ("new_key", arguments.check_key)],
        "keep",
        "Move a record with its deadline to another key, over whatever is there. False if there is nothing to move.",
    ),
    _write("prune", [_DATABASE, _PREFIX], "none", "Delete every key with the prefix. The number of live ones."),
    _write(
        "clear",
        [_DATABASE, ("everything", arguments.check_bool)],
        "none",
        "Delete the database's evictable records, or everything, with the expiries of what is not there any more. "
        "The number of records deleted.",
        overlay="drop",
    ),
    _write(
        "set_expiry",
        [_DATABASE, _KEY, ("expiry", arguments.check_expiry)],
        "none",
        "Hang a deadline on a key's name, whether or not there is a record; it replaces the one before. True.",
        overlay="set",
    ),
    _write(
        "remove_expiry",
        [_DATABASE, _KEY],
        "none",
        "Take the deadline off a key's name; the record's own one counts again. 1 if there was one, else 0.",
        overlay="drop",
    ),
    _write(
        "clear_expiries",
        [_DATABASE],
        "none",
        "Take the deadlines off all names of the database. Their number.",
        overlay="drop",
    ),
    _write(
        "cull",
        [_DATABASE, _KEYS, ("records_max", arguments.check_count), ("frequency", arguments.check_count)],
        "none",
        "Before the keys are added: if the database would hold more than records_max records, delete one of each "
        "frequency evictable records (all for 0): expired ones first, then those written longest ago. Their number.",
    ),
    _write(
        "batch",
        [("calls", None)],
        "none",
        "Do operations in order, each on its own: a list of (status word, result or message). Not atomic for readers "
        "of other engines.",
    ),
    _write(
        "atomic",
        [("conditions", arguments.check_conditions), ("calls", None)],
        "none",
        "All or nothing: if every (database, condition) holds, do the operations. (True, results), or "
        "(False, index of the first condition that failed).",
    ),
    _write(
        "once",
        [
            ("session", arguments.check_session),
            ("sequence", arguments.check_place),
            ("lowest", arguments.check_place),
            ("again", arguments.check_bool),
            ("call", None),
            ("answer", arguments.check_answer),
        ],
        "none",
        "Do a write that its client may send again, and keep its result, or give the kept one. The write's own result. "
        "again: it was sent before. answer: only the node itself gives it: the call is what a script wrote.",
    ),
    _write(
        "expire_sessions",
        [("sessions", arguments.check_sessions)],
        "none",
        "Delete those of the sessions that have ended, with what is kept of their writes. Their number.",
    ),
    _write(
        "sweep",
        [("records", arguments.check_count)],
        "none",
        "Delete up to so many expired records. (deleted, True if more are due).",
    ),
    _write(
        "evict",
        [("addresses", arguments.check_addresses)],
        "none",
        "Delete evictable records by (database, key). Their number.",
    ),
    Operation(
        "script",
        (
            _DATABASE,
            _PREFIX,
            ("sources", arguments.check_sources),
            ("library", arguments.check_library),
            ("function", arguments.check_function),
            ("arguments", arguments.check_script_arguments),
            ("tag", arguments.check_tag),
            ("flags", arguments.check_flags),
            ("time_ms", arguments.check_script_time),
        ),
        writes=False,
        record_deadline="none",
        summary="Run a Lua function on a snapshot, and store what it wrote, all or nothing. Its encoded result.",
        runs=True,
    ),
)

OPERATIONS: Final[dict[str, Operation]] = {operation.name: operation for operation in _OPERATIONS}
"""The table."""

WRITES: Final = frozenset(name for name, operation in OPERATIONS.items() if operation.writes)
"""Names of the operations that write."""

RUNS: Final = frozenset(name for name, operation in OPERATIONS.items() if operation.runs)
"""Names of the operations that are carried out beside the store."""

CHANGES: Final = WRITES | RUNS
"""Names of the operations that may change something: whoever does not know their outcome must not repeat them."""

CONTROLS: Final[dict[str, Operation]] = {
    control.name: control
    for control in (
        _read("node_status", [], "What a node knows of itself and its cluster, as a dict."),
        _read("node_store", [], "Where the store of a node is, for processes of its host, as a dict."),
        _read("node_digest", [], "The last entry that a node has applied, and a digest of all that it holds there."),
        _read(
            "change_member",
            [("change", arguments.check_change), ("member", arguments.check_member)],
            "Promote a learner, or remove a member. None, once the change is committed.",
        ),
        _read(
            "transfer_leadership",
            [("member", arguments.check_optional_member)],
            "Have another voter lead: this one, or whoever has most of the log. None, once this node leads no more.",
        ),
    )
}
"""What operators ask of a node. It is no operation: no store knows it, no log has it, and it is never part of a batch."""

_INTERNAL: Final = frozenset({"sweep", "evict", "expire_sessions"})
"""Operations that only the orderer of writes proposes; a client's request for one is refused."""


_ALONE: Final = frozenset({"once", "at", "members"})
"""Operations that are never part of another one."""
_NOT_INSIDE: Final = _ALONE | {"status"}
"""What no batch may hold. Status is what one store says of itself: kept as the result of a logged batch, stores would differ."""


def check_call(call: Any, limits: Limits, *, nesting: int = 0, internal: bool = False) -> None:
    """Check an operation that comes from outside, before anything is done with it.

    Arguments:
        call: ``(name, *arguments)``.
        limits: sizes to check against.
        nesting: how many batches or atomic blocks this call is inside of.
        internal: whether operations of the orderer itself (sweep, evict) are legal here.
    Raises:
        UnknownOperation: there is no such operation.
        InvalidArgument: an argument is missing, superfluous or not legal. (Or one of its subclasses.)
    """
    if not isinstance(call, list | tuple) or not call or not isinstance(call[0], str):
        raise UnknownOperation(f"An operation is a list that begins with its name, not {call!r:.80}.")
    operation = OPERATIONS.get(call[0]) or (None if nesting else CONTROLS.get(call[0]))
    if operation is None or (operation.name in _INTERNAL and not internal):
        raise UnknownOperation(f"There is no operation {call[0]!r:.80}. Is the other side a newer release?")
    if nesting and (operation.runs or operation.name in _NOT_INSIDE):
        raise InvalidArgument(f"The operation {operation.name} stands for itself, and cannot be part of a batch.")
    if len(call) - 1 != len(operation.parameters):
        wanted = ", ".join(name for name, _ in operation.parameters) or "no arguments"
        raise InvalidArgument(f"Operation {operation.name} takes {wanted}; {len(call) - 1} arguments came.")
    for (name, check), argument in zip(operation.parameters, call[1:], strict=True):
        if check is not None:
            check(name, argument, limits)
        elif name == "calls":
            _check_calls(argument, limits, nesting)
        else:
            check_call(argument, limits)
            _CHECKS_OF_CALL[operation.name](argument)
    if operation.name == "once" and not internal and call[6] is not None:
        raise InvalidArgument("Argument 'answer' is for the node itself. Nothing was changed.")


def _check_once(call: Call) -> None:
    if call[0] not in CHANGES or call[0] == "once":
        raise InvalidArgument(f"Operation {call[0]} is not done under a session: it can be done again freely.")


def _check_at(call: Call) -> None:
    for name in [inner[0] for inner in call[1]] if call[0] == "batch" else [call[0]]:
        if name in CHANGES or name in _ALONE or name in CONTROLS:
            raise InvalidArgument(f"Operation {name} is no read of data, so that it has no level. Nothing was changed.")


_CHECKS_OF_CALL: Final = {"once": _check_once, "at": _check_at}
"""By the operation whose argument it is: what its call has to be."""


def _check_calls(calls: Any, limits: Limits, nesting: int) -> None:
    arguments.check_sequence("calls", calls)
    if nesting >= NESTING_MAX:
        raise InvalidArgument(f"Batches and atomic blocks may be nested {NESTING_MAX} deep, not deeper.")
    for call in calls:
        check_call(call, limits, nesting=nesting + 1)
