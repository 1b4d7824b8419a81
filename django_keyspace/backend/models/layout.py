"""Where the objects of a model lie in the store: the keys of records, of index entries and of what belongs to the model.

With P for the model's prefix (``Meta.prefix``, by default ``app_label.model_name``), all in the sub-store for models:

==========  ================================================  ========================================================
what        key                                               value
==========  ================================================  ========================================================
record      ``r`` P 0 key values                              msgpack map of the fields (``fields.py``)
index       ``i`` P 0 name 0 values, key values               the key values
unique      ``u`` P 0 name 0 values                           the key values
sequence    ``s`` P 0                                         the last automatic id
schema      ``m`` P 0                                         msgpack: which indexes hold every record (``schema.py``)
==========  ================================================  ========================================================

Values are in the order-preserving form of ``ordering.py``, so listings come in the order of Python's values. The name of an
index is that of its fields, joined by commas. An entry with None in a unique index is not made, as in SQL. Names are in the
keys in full: the store can be read, and emptied, without looking anything up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django_keyspace.backend.models.fields import Plan
from django_keyspace.backend.models.ordering import ordered
from django_keyspace.exceptions import InvalidArgument, KeyTooLong
from django_keyspace.operations import KEY_BYTES_MAX

PREFIX_BYTES_MAX: Final = 200
"""So that the better part of a key is left for its values."""


class Index:
    """One ordered or unique index of a model.

    Arguments:
        prefix: the model's prefix.
        plans: of its fields, in order.
        unique: whether no two objects may have the same values.

    Attributes:
        name: its fields' names, joined by commas.
        fields: its fields.
        prefix: how the keys of all its entries begin.
    """

    __slots__ = ("fields", "field_names", "name", "plans", "prefix", "unique")

    def __init__(self, prefix: str, plans: Sequence[Plan], unique: bool) -> None:
        self.plans = tuple(plans)
        self.fields = tuple(plan.field for plan in plans)
        self.field_names = tuple(plan.name for plan in plans)
        self.name = ",".join(self.field_names)
        self.unique = unique
        self.prefix = (b"u" if unique else b"i") + f"{prefix}\0{self.name}\0".encode()

    def __repr__(self) -> str:
        return f"<{'Unique index' if self.unique else 'Index'} {self.name}>"

    def entry(self, values: Mapping[str, Any], key_bytes: bytes) -> bytes | None:
        """The key of an object's entry; None if it has none.

        Arguments:
            values: the object's Python values by field name.
            key_bytes: its key values in their ordered form.
        Raises:
            KeyTooLong: the entry's key would be too long; the message names the longest field.
            InvalidValue: a value has no place in an order.
        """
        parts = [self.prefix]
        for plan in self.plans:
            value = values[plan.name]
            if value is None and self.unique:
                return None
            parts.append(ordered_of(plan, value))
        if not self.unique:
            parts.append(key_bytes)
        entry = b"".join(parts)
        if len(entry) > KEY_BYTES_MAX:
            raise too_long(self.plans, values, len(entry), f"index {self.name}")
        return entry


def ordered_of(plan: Plan, value: Any) -> bytes:
    """A field's value in its ordered form.

    Raises:
        InvalidValue: it has no place in an order.
    """
    try:
        return ordered(plan.order_value(value))
    except InvalidArgument as error:
        raise plan.refusal(value, f"as part of a key or an index it must have an order: {error}") from error


def too_long(plans: Sequence[Plan], values: Mapping[str, Any], key_bytes: int, what: str) -> KeyTooLong:
    """The error for a key that is longer than a store's keys may be: it names the field that takes the most."""
    sizes: list[tuple[int, str]] = [(len(ordered_of(plan, values[plan.name])), plan.name) for plan in plans]
    size, name = max(sizes, default=(0, "?"))
    label = plans[0].field.model._meta.label
    return KeyTooLong(
        f"{label}.{name} takes {size:,} bytes, and with it the {what} takes {key_bytes:,}; the limit is {KEY_BYTES_MAX:,}. "
        "Nothing was changed. Shorten the value, or index a shorter field that is made of it, such as a hash."
    )


def key_encoder(plans: Sequence[Plan], prefix_bytes: int) -> Callable[[Mapping[str, Any]], bytes]:
    """A function from Python values by name to the ordered form of the key.

    Arguments:
        plans: of the key fields, in order.
        prefix_bytes: length of what comes before it in a record's key.
    """

    def encode(values: Mapping[str, Any]) -> bytes:
        key_bytes = b"".join([ordered_of(plan, values[plan.name]) for plan in plans])
        if prefix_bytes + len(key_bytes) > KEY_BYTES_MAX:
            raise too_long(plans, values, prefix_bytes + len(key_bytes), "key")
        return key_bytes

    return encode
