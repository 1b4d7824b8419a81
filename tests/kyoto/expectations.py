"""THE table of what kt's clients answer: each row of the ancestors' documented surface, with what was observed of them.

A row is a call and its answer, after some preparation, on an empty database. ``db`` is a KyotoTycoon, ``tt`` a TokyoTyrant.
An answer that is a class of errors means that the call raises it and changes nothing. The number is the section of our notes
on the originals; "better" marks rows where they differ from the original on purpose, and docs/kyoto-api.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django_keyspace.exceptions import CannotSerialize, InvalidArgument, InvalidKey, MissingKey, NotANumber, WrongType
from django_keyspace.exceptions import NumberOverflow as Overflow
from django_keyspace.kyoto import KT_JSON, KT_MSGPACK, KT_NONE, KT_PICKLE, ProtocolError

NEVER = 2**40 - 1
FAR = 4_000_000_000
"""A moment far ahead, in seconds since the epoch."""


@dataclass(frozen=True)
class Row:
    """One expectation.

    Attributes:
        section: of the notes; "better" if we differ on purpose.
        call: what is called.
        answer: what it answers, or the class of error that it raises.
        before: statements that come first.
        after: expressions that must be true afterwards.
        options: arguments of the client.
    """

    section: str
    call: str
    answer: Any
    before: str = ""
    after: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        serializer = f" {self.options['serializer']}" if "serializer" in self.options else ""
        return (
            f"{self.section}{serializer} {self.before}; {self.call}" if self.before else f"{self.section} {self.call}"
        )


def rows(section: str, *cells: Any, **options: Any) -> list[Row]:
    """Rows of a section: tuples of call, answer and, if need be, what comes before and after."""
    made = []
    for cell in cells:
        call, answer, before, *after = (*cell, "") if len(cell) == 2 else cell
        made.append(Row(section, call, answer, before, tuple(after), options))
    return made


RETURNS = rows(
    "2.2",
    ("db.get('k')", None),
    ("db.get('k')", "v", "db.set('k', 'v')"),
    ("db.get_bytes('k')", b"v", "db.set('k', 'v')"),
    ("db.get_bytes('k')", None),
    ("db.set('k', 'v')", 1),
    ("db.set('k', 'w')", 1, "db.set('k', 'v')", "db['k'] == 'w'"),
    ("db.set('k', 'v', no_reply=True)", None, "", "db['k'] == 'v'"),
    ("db.set_bytes('k', b'v')", 1, "", "db['k'] == 'v'"),
    ("db.set_bulk({'a': '1', 'b': '2'})", 2, "", "db['a'] == '1'", "db['b'] == '2'"),
    ("db.set_bulk({})", 0),
    ("db.set_bulk()", 0),
    ("db.set_bulk({'a': '1'}, b='2')", 2, "", "db.keys() == ['a', 'b']"),
    ("db.set_bulk(data='x')", 1, "", "db['data'] == 'x'"),
    ("db.set_bulk({'a': '1'}, no_reply=True)", None, "", "db['a'] == '1'"),
    ("db.set_bulk({'a': '1'}, db=2)", 1, "", "db.get('a') is None", "db['a', 2] == '1'"),
    ("db.get_bulk(['b', 'x', 'a'])", {"b": "2", "a": "1"}, "db.set_bulk(a='1', b='2')"),
    ("list(db.get_bulk(['b', 'x', 'a']))", ["b", "a"], "db.set_bulk(a='1', b='2')"),
    ("db.get_bulk('ab')", {"a": "1", "b": "2"}, "db.set_bulk(a='1', b='2')"),
    ("db.get_bulk(('a',))", {"a": "1"}, "db.set_bulk(a='1', b='2')"),
    ("db.get_bulk({'a'})", {"a": "1"}, "db.set_bulk(a='1', b='2')"),
    ("db.get_bulk([b'a', 7])", {"a": "1", "7": "x"}, "db.set('a', '1'); db.set(7, 'x')"),
    ("db.get_bulk([])", {}),
    ("db.get_bulk(['x'])", {}),
    ("db.get_bulk(['a'], db=1)", {"a": "2"}, "db.set('a', '1'); db.set('a', '2', db=1)"),
    ("db.get_bulk_details(['a', 'x', 'a'])", [(0, "a", "1", NEVER)] * 2, "db.set('a', '1')"),
    ("db.get_bulk_details(['a'])", [(0, "a", "1", FAR)], f"db.set('a', '1', expire_time=-{FAR})"),
    ("db.get_bulk_details(['x'])", []),
    ("db.get_bulk_raw([(0, 'a'), (1, 'a')])", {"a": "2"}, "db.set('a', '1'); db.set('a', '2', 1)"),
    (
        "db.get_bulk_raw_details([(1, 'a'), (0, 'a'), (0, 'x')])",
        [(1, "a", "2", NEVER), (0, "a", "1", NEVER)],
        "db.set('a', '1'); db.set('a', '2', 1)",
    ),
    (
        f"db.set_bulk_raw([(0, 'a', '1', None), (1, 'a', '2', -{FAR})])",
        2,
        "",
        f"db.get_bulk_raw_details([(0, 'a'), (1, 'a')]) == [(0, 'a', '1', {NEVER}), (1, 'a', '2', {FAR})]",
    ),
    ("db.set_bulk_raw([])", 0),
    ("db.remove('k')", 1, "db.set('k', 'v')", "'k' not in db"),
    ("db.remove('k')", 0),
    ("db.remove('k', no_reply=True)", None, "db.set('k', 'v')", "'k' not in db"),
    ("db.remove_bulk(['a', 'a', 'x'])", 1, "db.set_bulk(a='1', b='2')", "db.keys() == ['b']"),
    ("db.remove_bulk([])", 0),
    ("db.remove_bulk(['a'], no_reply=True)", None, "db.set('a', '1')", "len(db) == 0"),
    ("db.remove_bulk_raw([(0, 'a'), (1, 'a'), (2, 'a')])", 2, "db.set('a', '1'); db.set('a', '2', 1)"),
    ("db.add('k', 'v')", True, "", "db['k'] == 'v'"),
    ("db.add('k', 'w')", False, "db.set('k', 'v')", "db['k'] == 'v'"),
    ("db.replace('k', 'w')", True, "db.set('k', 'v')", "db['k'] == 'w'"),
    ("db.replace('k', 'w')", False, "", "'k' not in db"),
    ("db.append('k', 'w')", True, "db.set('k', 'v')", "db['k'] == 'vw'"),
    ("db.append('k', 'w')", True, "", "db['k'] == 'w'"),
    ("db.exists('k')", True, "db.set('k', 'v')"),
    ("db.exists('k')", False),
    ("db.length('k')", 3, "db.set('k', 'abc')"),
    ("db.length('k')", None),
    ("db.seize('k')", "v", "db.set('k', 'v')", "'k' not in db"),
    ("db.seize('k')", None),
    ("db.pop('k')", "v", "db.set('k', 'v')", "'k' not in db"),
    ("db.pop('k')", None),
    ("db.clear()", True, "db.set('k', 'v'); db.set('k', 'w', 1)", "len(db) == 0", "db['k', 1] == 'w'"),
    ("db.count()", 2, "db.set_bulk(a='1', b='2')"),
    ("db.count(1)", 0, "db.set_bulk(a='1', b='2')"),
    ("len(db)", 2, "db.set_bulk(a='1', b='2')"),
    ("bool(db)", True),
    ("db.update({'a': '1'}, b='2')", 2, "", "db['b'] == '2'"),
    ("db.update({'a': '1'}, db=1, expire_time=100)", 1, "", "db.get('a') is None", "90 < db.ttl('a', 1) <= 100"),
    ("db['k']", None),
    ("db['k']", "v", "db['k'] = 'v'"),
    ("db['k', 1]", "v", "db['k', 1] = 'v'", "'k' not in db"),
    ("db['k', 1, 2]", InvalidArgument),
    ("db.ttl('k')", -1, "db['k'] = 'v'"),
    ("90 < db.ttl('k') <= 100", True, "db['k'] = ('v', 100)", "db['k'] == 'v'"),
    ("db.__setitem__('k', ('v', 1, 2))", InvalidArgument, "db['k'] = 'old'"),
    ("db.__delitem__('k')", None, "db['k'] = 'v'", "'k' not in db"),
    ("db.__delitem__('k')", None),
    ("db.__delitem__(('k', 1))", None, "db['k', 1] = 'v'; db['k'] = 'w'", "('k', 1) not in db", "'k' in db"),
    ("'k' in db", True, "db['k'] = 'v'"),
    ("('k', 1) in db", False, "db['k'] = 'v'"),
    ("('k', 1) in db", True, "db['k', 1] = 'v'"),
    ("list(db)", ["a", "b"], "db.set_bulk(b='2', a='1')"),
    ("db.checkin()", None),
    ("db.close()", None, "db.close()", "db.set('k', 'v') == 1"),
    ("db.set_database(3) is db", True, "db.set('k', 'v', 3)", "db['k'] == 'v'"),
    ("db.touch('k', 50)", True, "db['k'] = 'v'", "40 < db.ttl('k') <= 50"),
    ("db.touch('k')", True, "db['k'] = ('v', 50)", "db.ttl('k') == -1"),
    ("db.touch('k', 50)", False),
    ("db.ttl('k')", None),
)

KEYS_AND_VALUES = [
    *rows(
        "2.3",
        ("db.set(7, 'v')", 1, "", "db['7'] == 'v'", "db.keys() == ['7']"),
        ("db.set(b'k', 'v')", 1, "", "db['k'] == 'v'"),
        ("db.set('schlüssel', 'wörter')", 1, "", "db.keys() == ['schlüssel']", "db['schlüssel'] == 'wörter'"),
        ("db.set('k' * 1024, 'v')", 1),
        ("db.set('k' * 1025, 'v')", InvalidKey),
        ("db.get(None)", TypeError),
        ("db.set(None, 'v')", TypeError),
        ("db.set('k', b'v')", 1, "", "db['k'] == 'v'"),
        ("db.set('k', 5)", 1, "", "db['k'] == '5'"),
        ("db.set('k', 1.5)", 1, "", "db['k'] == '1.5'"),
        ("db.set('k', True)", 1, "", "db['k'] == 'True'"),
        ("db.set('k', [1, 2])", 1, "", "db['k'] == '[1, 2]'"),
        ("db.set('k', 2**70)", 1, "", "db['k'] == str(2**70)"),
        ("db.set('k', '')", 1, "", "db['k'] == ''", "'k' in db"),
        ("db.set('k', None)", TypeError, "db['k'] = 'old'", "db['k'] == 'old'"),
        ("db.get('k')", WrongType, "db.set('k', b'\\xff')", "db.get_bytes('k') == b'\\xff'"),
        ("db.append('k', None)", TypeError, "db['k'] = 'old'", "db['k'] == 'old'"),
        ("db.append('k', 5)", True, "db['k'] = 'v'", "db['k'] == 'v5'"),
        ("db.append('k', b'w')", True, "db['k'] = 'v'", "db['k'] == 'vw'"),
        ("db.append('k', 'w')", True, "db['k'] = b'v'", "db['k'] == 'vw'"),
    ),
    *rows(
        "2.3",
        ("db.keys()", [b"k"], "db['k'] = 'v'"),
        ("db.get_bulk(['k'])", {b"k": "v"}, "db['k'] = 'v'"),
        decode_keys=False,
    ),
    *rows(
        "2.3",
        ("db.keys()", WrongType, "db.set(b'\\xff', 'v')"),
        ("db.match_prefix('')", WrongType, "db.set(b'\\xff', 'v')"),
    ),
    *rows("2.3", ("db.get_bulk([b'\\xff'])", WrongType, "db.set(b'\\xff', 'v')", "db.get(b'\\xff') == 'v'")),
    *rows("2.3", ("db.keys()", [b"\xff"], "db.set(b'\\xff', 'v')"), decode_keys=False),
    *rows(
        "2.3",
        ("db['k']", b"v", "db['k'] = 'v'"),
        ("db['k']", b"\xff\x00", "db['k'] = b'\\xff\\x00'"),
        ("db['k']", b"5", "db['k'] = 5"),
        ("db.append('k', b'\\xff')", True, "db['k'] = b'\\xfe'", "db['k'] == b'\\xfe\\xff'"),
        ("db.append('k', b'\\xff')", True, "db['k'] = 'v'", "db['k'] == b'v\\xff'"),
        ("db.get_bulk(['k'])", {"k": b"\xff"}, "db['k'] = b'\\xff'"),
        serializer=KT_NONE,
    ),
    *rows(
        "2.3",
        ("db.get_bytes('k')", b'{"a":[1,2.5,null,true]}', "db['k'] = {'a': [1, 2.5, None, True]}"),
        ("db['k']", {"a": [1, 2.5, None, True]}, "db['k'] = {'a': [1, 2.5, None, True]}"),
        ("db.get_bytes('k')", b'"\\u00e9"', "db['k'] = 'é'", "db['k'] == 'é'"),
        ("db.get_bytes('k')", b"null", "db['k'] = None", "db['k'] is None", "'k' in db"),
        ("db['k']", [1, 2], "db.set('k', (1, 2))"),
        ("db['k']", {"1": 2}, "db['k'] = {1: 2}"),
        ("db['k']", 5, "db['k'] = 5", "db.get_bytes('k') == b'5'"),
        ("db['k']", 2**70, "db['k'] = 2**70"),
        ("db['k'] != db['k']", True, "db['k'] = float('nan')"),
        ("db.set('k', b'bytes')", TypeError, "db['k'] = 1", "db['k'] == 1"),
        ("db.set_bulk({'a': 1, 'b': b'x'})", TypeError, "", "len(db) == 0"),
        ("db.get_bulk(['a', 'b'])", {"a": [1], "b": "x"}, "db.set_bulk(a=[1], b='x')"),
        ("db['k']", {"a": 1}, "db.set_bytes('k', b'{\"a\":1}')"),
        ("db['k']", ProtocolError, "db.set_bytes('k', b'{')", "db.get_bytes('k') == b'{'"),
        serializer=KT_JSON,
    ),
    *rows(
        "2.3",
        ("db['k']", {"a": [b"x", "x", None]}, "db['k'] = {'a': [b'x', 'x', None]}"),
        ("db['k']", [1, 2], "db.set('k', [1, 2])"),
        ("db['k']", 5, "db['k'] = 5"),
        ("db['k']", b"\xff", "db['k'] = b'\\xff'"),
        ("db.set('k', {1, 2})", TypeError, "db['k'] = 1", "db['k'] == 1"),
        ("db.set('k', 2**64)", CannotSerialize),
        serializer=KT_MSGPACK,
    ),
    *rows("better", ("db['k']", {1: 2}, "db['k'] = {1: 2}"), serializer=KT_MSGPACK),
    *rows("better", ("db.append('k', [2])", WrongType, "db['k'] = [1]", "db['k'] == [1]"), serializer=KT_JSON),
    *rows(
        "2.3",
        ("db['k']", {(1, 2): {3}, "d": None}, "db['k'] = {(1, 2): {3}, 'd': None}"),
        ("db['k']", "text", "db['k'] = 'text'"),
        ("db['k']", None, "db['k'] = None", "'k' in db"),
        ("db.set('k', lambda: 1)", TypeError, "db['k'] = 1", "db['k'] == 1"),
        serializer=KT_PICKLE,
    ),
]

EXPIRY = rows(
    "2.4",
    ("90 < db.ttl('k') <= 100", True, "db.set('k', 'v', expire_time=100)"),
    ("db.set('k', 'v', expire_time=-1)", 1, "db['k'] = 'old'", "db.get('k') is None", "'k' not in db"),
    (f"db.set('k', 'v', expire_time=-{FAR})", 1, "", f"db.get_bulk_details(['k'])[0][3] == {FAR}"),
    ("db.set('k', 'v', expire_time=0)", 1, "", "db.ttl('k') == -1"),
    ("db.add('k', 'v', expire_time=100)", True, "", "90 < db.ttl('k') <= 100"),
    ("db.add('k', 'v', expire_time=0)", True),
    ("db.add('k', 'v', expire_time=100.9)", True, "", "90 < db.ttl('k') <= 100"),
    ("db.set('k', 'v', expire_time=1.5)", InvalidArgument, "db['k'] = 'old'", "db['k'] == 'old'"),
    ("db.set_bulk({'a': '1'}, expire_time=100)", 1, "", "90 < db.ttl('a') <= 100"),
    ("db.set('k', 'w')", 1, "db['k'] = ('v', 100)", "db.ttl('k') == -1"),
    ("db.set_bulk({'k': 'w'})", 1, "db['k'] = ('v', 100)", "db.ttl('k') == -1"),
    ("db.append('k', 'w')", True, "db['k'] = ('v', 100)", "db.ttl('k') == -1"),
    ("db.append('k', 'w', expire_time=50)", True, "db['k'] = 'v'", "40 < db.ttl('k') <= 50"),
    ("db.append('k', b'w', expire_time=50)", True, "db['k'] = 'v'", "40 < db.ttl('k') <= 50", "db['k'] == 'vw'"),
    ("db.replace('k', 'w')", True, "db['k'] = ('v', 100)", "db.ttl('k') == -1"),
    ("db.cas('k', 'v', 'w')", True, "db['k'] = ('v', 100)", "db.ttl('k') == -1"),
    ("db.incr('k')", 1, "db.incr('k', 0, expire_time=100)", "db.ttl('k') == -1"),
    ("db.incr('k', expire_time=50)", 1, "db.incr('k', 0)", "40 < db.ttl('k') <= 50"),
    ("db.incr_double('k', 1.5)", 1.5, "db.incr_double('k', 0, expire_time=100)", "db.ttl('k') == -1"),
    ("db.incr('k', 5, 'set', expire_time=50)", 5, "", "40 < db.ttl('k') <= 50"),
)

DEAD = rows(
    "2.4 expired",
    ("db.get('k')", None),
    ("db.get_bulk(['k'])", {}),
    ("db.get_bulk_details(['k'])", []),
    ("'k' in db", False),
    ("db.length('k')", None),
    ("db.ttl('k')", None),
    ("db.touch('k', 100)", False),
    ("db.match_prefix('')", []),
    ("db.keys()", []),
    ("list(db.items())", []),
    ("len(db)", 0),
    ("db.cas('k', 'v', 'w')", False),
    ("db.cas('k', None, 'w')", True, "", "db['k'] == 'w'", "db.ttl('k') == -1"),
    ("db.replace('k', 'w')", False),
    ("db.remove('k')", 0),
    ("db.remove_bulk(['k'])", 0),
    ("db.seize('k')", None),
    ("db.add('k', 'w')", True, "", "db['k'] == 'w'"),
    ("db.append('k', 'w')", True, "", "db['k'] == 'w'"),
    ("db.incr('k', 2, 10)", 12),
)
"""What is answered when the only key, ``k``, has expired."""

NUMBERS = rows(
    "2.5",
    ("db.incr('k')", 1),
    ("db.incr('k', 5)", 6, "db.incr('k')"),
    ("db.incr('k', -5)", -4, "db.incr('k')"),
    ("db.incr('k', 0)", 1, "db.incr('k')"),
    ("db.incr('k', 1.5)", 1),
    ("db.incr('k', '12')", 12),
    ("db.incr('k', 1, 10)", 11, "", "db.incr('k', 1, 10) == 12"),
    ("db.incr('k', 1, '10')", 11),
    ("db.incr('k', 1, 'try')", MissingKey, "", "'k' not in db"),
    ("db.incr('k', 1, 'try')", ProtocolError),
    ("db.incr('k', 1, 'try')", 2, "db.incr('k')"),
    ("db.incr('k', 5, 'set')", 5, "db.incr('k', 100)", "db.incr('k') == 6"),
    ("db.incr('k', 5, 'set')", 5, "db['k'] = 'text'"),
    ("db.incr('k')", NotANumber, "db['k'] = 'text'", "db['k'] == 'text'"),
    ("db.incr('k')", ProtocolError, "db['k'] = '10'", "db['k'] == '10'"),
    ("db.incr('k')", 2**63 - 1, f"db.incr('k', {2**63 - 2})"),
    ("db.incr('k')", Overflow, f"db.incr('k', {2**63 - 1})", f"db['k'] == '{2**63 - 1}'"),
    ("db.incr('k', 2**63)", Overflow),
    ("db.incr('k', -1)", ProtocolError, f"db.incr('k', {-(2**63)})"),
    ("db.incr('k')", NotANumber, "db.incr_double('k', 1.5)", "db['k'] == '1.5'"),
    ("db.incr_double('k')", 1.0),
    ("db.incr_double('k', -2.5)", -1.5, "db.incr_double('k', 1)"),
    ("db.incr_double('k', 1, 0.5)", 1.5, "", "db.incr_double('k', 1, 0.5) == 2.5"),
    ("db.incr_double('k', '1.5')", 1.5),
    ("db.incr_double('k', 1, 'try')", MissingKey, "", "'k' not in db"),
    ("db.incr_double('k', 2.5, 'set')", 2.5, "db['k'] = 'text'", "db['k'] == '2.5'"),
    ("db.incr_double('k', float('nan'))", InvalidArgument, "", "'k' not in db"),
    ("db.incr_double('k')", NotANumber, "db['k'] = 'text'", "db['k'] == 'text'"),
    ("db.cas('k', 'v', 'w')", True, "db['k'] = 'v'", "db['k'] == 'w'"),
    ("db.cas('k', 'x', 'w')", False, "db['k'] = 'v'", "db['k'] == 'v'"),
    ("db.cas('k', 'x', 'w')", False, "", "'k' not in db"),
    ("db.cas('k', None, 'w')", True, "", "db['k'] == 'w'"),
    ("db.cas('k', None, 'w')", False, "db['k'] = 'v'", "db['k'] == 'v'"),
    ("db.cas('k', 'v', None)", True, "db['k'] = 'v'", "'k' not in db"),
    ("db.cas('k', 'x', None)", False, "db['k'] = 'v'", "db['k'] == 'v'"),
    ("db.cas('k', None, None)", ValueError, "db['k'] = 'v'", "db['k'] == 'v'"),
    ("db.cas('k', 'v', 'w', db=1)", True, "db['k', 1] = 'v'", "db['k', 1] == 'w'"),
) + [
    *rows("2.5", ("db.cas('k', None, 1)", False, "db['k'] = None"), serializer=KT_JSON),
    *rows("2.5", ("db.cas('k', {'a': 1}, 2)", True, "db['k'] = {'a': 1}", "db['k'] == 2"), serializer=KT_JSON),
    *rows(
        "better",
        ("db.cas('k', ['ab', 'ab'], 1)", True, "db['k'] = ['ab', 'a' + chr(98)]", "db['k'] == 1"),
        ("db.cas('k', [1], 2)", False, "db['k'] = [2]", "db['k'] == [2]"),
        ("db.cas('k', [1], 2)", False, ""),
        serializer=KT_PICKLE,
    ),
    *rows(
        "better",
        ("db.incr('k')", 6, "db['k'] = 5"),
        ("db['k']", "1", "db.incr('k')"),
        ("db.incr_double('k', 0.5)", 5.5, "db.incr('k', 5)"),
        ("db.incr('k', 1, 'abc')", InvalidArgument),
        ("db.incr_double('k', float('inf'))", Overflow),
    ),
    *rows("better", ("db['k']", 1, "db.incr('k')"), serializer=KT_JSON),
    *rows("better", ("db['k']", 1.5, "db.incr_double('k', 1.5)"), serializer=KT_MSGPACK),
]

KEYS = "db.set_bulk({k: k for k in ('a', 'aa', 'ab', 'b', 'ba', 'c')})"
LISTING = rows(
    "2.6",
    ("db.match_prefix('a')", ["a", "aa", "ab"], KEYS),
    ("db.match_prefix('a', 2)", ["a", "aa"], KEYS),
    ("db.match_prefix('a', 0)", [], KEYS),
    ("db.match_prefix('a', -1)", ["a", "aa", "ab"], KEYS),
    ("db.match_prefix('x')", [], KEYS),
    ("db.match_prefix('')", ["a", "aa", "ab", "b", "ba", "c"], KEYS),
    ("db.match_prefix('', db=1)", [], KEYS),
    ("db.match_prefix('a', 1.5)", InvalidArgument, KEYS),
    ("len(db.match_prefix('k'))", 2500, "db.set_bulk({f'k{i}': '' for i in range(2500)})"),
    ("len(db.match_prefix('k', 2100))", 2100, "db.set_bulk({f'k{i}': '' for i in range(2500)})"),
    ("db.match_regex('a$')", ["a", "aa", "ba"], KEYS),
    ("db.match_regex('a$', 2)", ["a", "aa"], KEYS),
    ("db.match_regex('a$', 0)", [], KEYS),
    ("db.match_regex('A')", [], KEYS),
    ("db.match_regex('')", ["a", "aa", "ab", "b", "ba", "c"], KEYS),
    ("db.match_regex('a', db=1)", [], KEYS),
    ("db.match_regex('(')", ProtocolError, KEYS),
    ("db.match_similar('aa')", ["aa", "a", "ab", "ba"], KEYS),
    ("db.match_similar('aa', 0)", ["aa"], KEYS),
    ("db.match_similar('aa', 2)", ["aa", "a", "ab", "ba", "b", "c"], KEYS),
    ("db.match_similar('aa', 2, 2)", ["aa", "a"], KEYS),
    ("db.match_similar('é', 1)", ["é", "e"], "db.set_bulk({'e': '', 'é': ''})"),
    ("db.match_similar('zzzz')", [], KEYS),
    ("db.match_similar('a', db=1)", [], KEYS),
    ("db.keys()", ["a", "aa", "ab", "b", "ba", "c"], KEYS),
    ("db.keys(1)", [], KEYS),
    ("list(db.values())", ["a", "aa", "ab", "b", "ba", "c"], KEYS),
    ("list(db.items())[:2]", [("a", "a"), ("aa", "aa")], KEYS),
)

STATUS = rows(
    "2.7",
    ("db.status()['count']", b"2", "db.set_bulk(a='1', b='2')"),
    ("db.status(1)['count']", b"0", "db.set_bulk(a='1', b='2')"),
    ("set(map(type, db.status().values()))", {bytes}),
    ("{'count', 'size', 'path', 'type', 'realtype', 'opts', 'libver', 'chksum', 'capsiz'} <= set(db.status())", True),
    ("db.report()['db_total_count']", b"2", "db.set('a', '1'); db.set('a', '2', 1)"),
    ("db.report()['db_1'].startswith(b'count=1 ')", True, "db.set('a', '2', 1)"),
    ("set(map(type, db.report().values()))", {bytes}),
    ("type(db.size)", int),
    ("db.path == db.status()['path'].decode()", True),
    ("db.set_database(1)['k']", "v", "db['k', 1] = 'v'"),
    *[
        (call.replace("BAD", bad), ProtocolError, "db['k'] = 'old'", "db['k'] == 'old'")
        for bad in ("16", "-1", "1024", "'0'", "True")
        for call in ("db.set('k', 'v', BAD)", "db.count(BAD)")
    ],
    *[(f"db.{call}", ProtocolError, "db['k'] = 'old'", "db['k'] == 'old'") for call in ("get('k', 99)", "clear(99)")],
    ("db.set_database(-1)", ProtocolError, "db['k'] = 'old'", "db['k'] == 'old'"),
    ("db.set_bulk_raw([(0, 'k', 'v', None), (99, 'k', 'v', None)])", ProtocolError, "", "len(db) == 0"),
)

TYRANT = rows(
    "3.1",
    ("tt.get('k')", None),
    ("tt.get('k')", "v", "tt.set('k', 'v')"),
    ("tt.get_bytes('k')", b"v", "tt.set('k', 'v')"),
    ("tt['k']", "v", "tt['k'] = 'v'"),
    ("tt.__setitem__('k', 'v')", None, "", "tt['k'] == 'v'"),
    ("tt.set('k', 'v')", True),
    ("tt.set('k', 'v', no_reply=True)", None, "", "tt['k'] == 'v'"),
    ("tt.set_bytes('k', b'v')", True, "", "tt['k'] == 'v'"),
    ("tt.set('k', None)", TypeError, "tt['k'] = 'old'", "tt['k'] == 'old'"),
    ("tt.set_bulk({'a': '1'}, b='2')", True, "", "tt.keys() == ['a', 'b']"),
    ("tt.set_bulk({})", True),
    ("tt.update({'a': '1'}, b='2')", True, "", "tt.keys() == ['a', 'b']"),
    ("tt.update({'a': '1'}, db=1)", InvalidArgument, "", "len(tt) == 0"),
    ("tt.update({'a': '1'}, expire_time=1)", InvalidArgument, "", "len(tt) == 0"),
    ("tt.get_bulk(['b', 'x', 'a'])", {"b": "2", "a": "1"}, "tt.set_bulk(a='1', b='2')"),
    ("tt.get_bulk([])", {}),
    ("tt.remove('k')", 1, "tt['k'] = 'v'", "'k' not in tt"),
    ("tt.remove('k')", 0),
    ("type(tt.remove('k'))", int),
    ("tt.__delitem__('k')", None, "tt['k'] = 'v'", "'k' not in tt"),
    ("tt.remove_bulk(['a', 'x'])", True, "tt.set_bulk(a='1', b='2')", "tt.keys() == ['b']"),
    ("tt.remove_bulk([])", True),
    ("tt.add('k', 'v')", True, "", "tt['k'] == 'v'"),
    ("tt.add('k', 'w')", False, "tt['k'] = 'v'", "tt['k'] == 'v'"),
    ("tt.append('k', 'w')", True, "tt['k'] = 'v'", "tt['k'] == 'vw'"),
    ("tt.append('k', 'w')", True, "", "tt['k'] == 'w'"),
    ("tt.exists('k')", True, "tt['k'] = 'v'"),
    ("tt.exists('k')", False),
    ("'k' in tt", True, "tt['k'] = 'v'"),
    ("tt.length('k')", 3, "tt['k'] = 'abc'"),
    ("tt.length('k')", None),
    ("tt.seize('k')", "v", "tt['k'] = 'v'", "'k' not in tt"),
    ("tt.pop('k')", None),
    ("tt.incr('k')", 1),
    ("tt.incr('k', 5)", 6, "tt.incr('k')"),
    ("tt.incr('k')", None, "tt['k'] = 'text'", "tt['k'] == 'text'"),
    ("tt.incr('k', 1.5)", InvalidArgument, "", "'k' not in tt"),
    ("tt.incr_double('k', 1.5)", 1.5),
    ("tt.incr_double('k')", None, "tt['k'] = 'text'", "tt['k'] == 'text'"),
    ("tt.incr_double('k', float('nan'))", InvalidArgument),
    ("tt.count()", 2, "tt.set_bulk(a='1', b='2')"),
    ("len(tt)", 2, "tt.set_bulk(a='1', b='2')"),
    ("type(tt.size)", int),
    ("tt.clear()", True, "tt.set_bulk(a='1', b='2')", "len(tt) == 0"),
    ("tt.get_part('k')", "abcdef", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 2)", "cdef", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 2, 3)", "cde", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 2, 99)", "cdef", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 2, 0)", "", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 2, -1)", "cdef", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', -3, 2)", "ab", "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 6)", False, "tt['k'] = 'abcdef'"),
    ("tt.get_part('k')", False),
    ("tt.get_part('k', 'x')", InvalidArgument, "tt['k'] = 'abcdef'"),
    ("tt.get_part('k', 1, 2)", "üß", "tt['k'] = 'süße'"),
    ("tt.error", None),
    ("tt.error", (22, "no record found"), "tt.get('k')"),
    ("tt.error", (0, "success"), "tt.set('k', 'v')"),
    ("tt.error", (0, "success"), "tt.get('k'); tt.set('k', 'v'); tt.get('k')"),
    ("tt.status()['rnum']", 2, "tt.set_bulk(a='1', b='2')"),
    ("type(tt.status()['size'])", int),
    ("{'version', 'type', 'path', 'rnum', 'size', 'time'} <= set(tt.status())", True),
    ("tt.checkin()", None),
    ("tt.close()", None, "tt.close()", "tt.set('k', 'v') is True"),
    ("bool(tt)", True),
) + [
    *rows("better", ("tt.incr('k', -5)", -5), ("tt.incr('k')", 2**31, f"tt.incr('k', {2**31 - 1})")),
    *rows("better", ("tt.incr('k')", None, f"tt.incr('k', {2**63 - 1})", f"tt['k'] == '{2**63 - 1}'")),
    *rows("better", ("tt.incr_double('k', -0.5)", -0.5)),
    *rows("3.1", ("tt.get_part('k', 1, 2)", b"bc", "tt['k'] = b'abcd'"), serializer=KT_NONE),
    *rows("3.1", ("tt['k']", {"a": 1}, "tt['k'] = {'a': 1}"), serializer=KT_JSON),
]

TT_KEYS = KEYS.replace("db.", "tt.")
RANGES = rows(
    "3.2",
    ("tt.match_prefix('a')", ["a", "aa", "ab"], TT_KEYS),
    ("tt.match_prefix('a', 2)", ["a", "aa"], TT_KEYS),
    ("tt.match_prefix('a', 0)", [], TT_KEYS),
    ("len(tt.match_prefix('k'))", 1024, "tt.set_bulk({f'k{i}': '' for i in range(1100)})"),
    ("len(tt.match_prefix('k', None))", 1100, "tt.set_bulk({f'k{i}': '' for i in range(1100)})"),
    ("tt.match_regex('a$')", ["a", "aa", "ba"], TT_KEYS),
    ("tt.match_regex('a$', 1)", ["a"], TT_KEYS),
    ("len(tt.match_regex('k'))", 1024, "tt.set_bulk({f'k{i}': '' for i in range(1100)})"),
    ("tt.match_similar('aa')", ["aa", "a", "ab", "ba"], TT_KEYS),
    ("tt.get_range('a', 'b')", {"a": "a", "aa": "aa", "ab": "ab"}, TT_KEYS),
    ("list(tt.get_range('a'))", ["a", "aa", "ab", "b", "ba", "c"], TT_KEYS),
    ("list(tt.get_range('', 'b'))", ["a", "aa", "ab"], TT_KEYS),
    ("tt.get_range('a', '')", {}, TT_KEYS),
    ("list(tt.get_range('a', max_keys=2))", ["a", "aa"], TT_KEYS),
    ("list(tt.get_range('ax'))", ["b", "ba", "c"], TT_KEYS),
    ("tt.get_range('a', max_keys=-1)", InvalidArgument, TT_KEYS),
    ("tt.get_rangelist('b')", [("b", "b"), ("ba", "ba"), ("c", "c")], TT_KEYS),
    ("list(tt['a':'b'])", ["a", "aa", "ab"], TT_KEYS),
    ("list(tt['b':])", ["b", "ba", "c"], TT_KEYS),
    ("list(tt.iter_from('b'))", ["b", "ba", "c"], TT_KEYS),
    ("tt.iter_from('bb')", {"c": "c"}, TT_KEYS),
    ("tt.iter_from('x')", {}, TT_KEYS),
    ("tt.keys()", ["a", "aa", "ab", "b", "ba", "c"], TT_KEYS),
    ("list(tt)", ["a", "aa", "ab", "b", "ba", "c"], TT_KEYS),
    ("list(tt.values())[:2]", ["a", "aa"], TT_KEYS),
    ("list(tt.items())[:1]", [("a", "a")], TT_KEYS),
) + [
    *rows("better", ("list(tt[:'b'])", ["a", "aa", "ab"], TT_KEYS), ("tt.match_regex('(')", ProtocolError, TT_KEYS)),
    *rows("better", ("tt['a':'b':2]", InvalidArgument, TT_KEYS)),
]

MISC = rows(
    "3.3",
    ("tt.misc('get', ['k'])", [b"v"], "tt['k'] = 'v'"),
    ("tt.misc('get', ['k'])", None),
    ("tt.misc('get', ['k'], decode_values=True)", ["v"], "tt['k'] = 'v'"),
    ("tt.misc('put', ['k', 'v'])", [], "", "tt['k'] == 'v'"),
    ("tt.misc('put', data={'k': 'v'})", [], "", "tt['k'] == 'v'"),
    ("tt.misc('putkeep', ['k', 'w'])", None, "tt['k'] = 'v'", "tt['k'] == 'v'"),
    ("tt.misc('putkeep', ['k', 'w'])", [], "", "tt['k'] == 'w'"),
    ("tt.misc('putcat', ['k', 'w'])", [], "tt['k'] = 'v'", "tt['k'] == 'vw'"),
    ("tt.misc('putlist', data={'a': '1', 'b': '2'})", [], "", "tt['b'] == '2'"),
    ("tt.misc('out', ['k'])", [], "tt['k'] = 'v'", "'k' not in tt"),
    ("tt.misc('out', ['k'])", None),
    ("tt.misc('outlist', ['a', 'x'])", [], "tt.set_bulk(a='1', b='2')", "tt.keys() == ['b']"),
    ("tt.misc('getlist', ['a', 'x', 'b'])", [b"a", b"1", b"b", b"2"], "tt.set_bulk(a='1', b='2')"),
    ("tt.misc('getlist', ['a'], decode_values=True)", [b"a", "1"], "tt.set_bulk(a='1', b='2')"),
    ("tt.misc('getpart', ['k', '1', '2'])", [b"bc"], "tt['k'] = 'abcd'"),
    ("tt.misc('getpart', ['k', '9'])", None, "tt['k'] = 'abcd'"),
    ("tt.misc('range', ['aa', '2'])", [b"aa", b"aa", b"ab", b"ab"], TT_KEYS),
    ("tt.misc('range', ['a', '-1', 'ab'])", [b"a", b"a", b"aa", b"aa"], TT_KEYS),
    ("tt.misc('regex', ['^b', '1'])", [b"b", b"b"], TT_KEYS),
    ("tt.misc('vanish')", [], TT_KEYS, "len(tt) == 0"),
    ("tt.misc('optimize')", []),
    ("tt.misc('sync')", []),
    ("tt.misc('addint', ['k'])", None),
    ("tt.misc('get', [])", InvalidArgument),
    ("tt.misc('putlist', ['k'])", InvalidArgument),
    ("tt.misc('getpart', ['k', 'x'])", InvalidArgument, "tt['k'] = 'v'"),
    ("tt.misc('put', ['k', b'\\xff'])", [], "", "tt.get_bytes('k') == b'\\xff'"),
    ("tt.misc('range')", [b"a", b"1", b"b", b"2"], "tt.set_bulk(a='1', b='2')"),
) + [
    *rows(
        "3.3",
        ("tt.misc('put', data={'k': [1]})", [], "", "tt['k'] == [1]"),
        ("tt.misc('putcat', data={'k': [2]})", None, "tt['k'] = [1]", "tt['k'] == [1]"),
        ("tt.misc('getlist', ['k'], decode_values=True)", [b"k", [1]], "tt['k'] = [1]"),
        serializer=KT_JSON,
    ),
]

EXPECTATIONS = [
    *RETURNS,
    *KEYS_AND_VALUES,
    *EXPIRY,
    *NUMBERS,
    *LISTING,
    *STATUS,
    *TYRANT,
    *RANGES,
    *MISC,
]
