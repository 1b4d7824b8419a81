"""Objects as lines of JSON, in Django's serialization convention: ``{"model": ..., "pk": ..., "fields": {...}}``.

Values are what Django's own serializers make of them, so that ``dumpdata --format jsonl`` and these lines look alike. There
is one thing more, ``"expires"``: the moment at which an object expires, in ISO 8601, or null if it never does in a model whose
objects usually do. Moments and times keep their microseconds, which Django's encoder cuts: they may be keys.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.encoding import is_protected_type

from django_keyspace.backend.models.errors import DuplicateValue, unknown_field
from django_keyspace.backend.models.registry import get_model
from django_keyspace.backend.models.storage import Storage, storage_of
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.store.clock import wall_ms

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model

LOADED, EXPIRED, KEPT = "loaded", "expired", "there already"
"""What became of a line."""

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND: Final = datetime.timedelta(milliseconds=1)
_PARTS: Final = frozenset({"model", "pk", "fields", "expires"})


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        if isinstance(o, datetime.datetime | datetime.time):
            return o.isoformat()
        return super().default(o)


# --------------------------------------------------------------------------------------------------- to lines


def dumped(storage: Storage) -> Iterator[list[str]]:
    """The objects of a model as lines without their ends, in the order of the key, page by page.

    Raises:
        DamagedStore: a record is no object.
    """
    last: bytes | None = None
    while True:
        records, last = storage._run(storage.page_of_records(last))
        yield [line_of(storage.instance(record)) for record in records]
        if last is None:
            return


def line_of(obj: Model) -> str:
    """The line of an object that is stored."""
    meta = obj._meta
    key = [_plain(field, obj) for field in meta.key_fields]
    line: dict[str, Any] = {"model": meta.label_lower, "pk": key[0] if len(key) == 1 else key}
    line["fields"] = {field.name: _plain(field, obj) for field in meta.fields if field not in meta.key_fields}
    deadline_ms = obj._state.deadline_ms
    if deadline_ms:
        line["expires"] = _EPOCH + deadline_ms * _MILLISECOND
    elif meta.expire is not None:
        line["expires"] = None
    return json.dumps(line, cls=_Encoder, ensure_ascii=False)


def _plain(field: Any, obj: Model) -> Any:
    value = field.value_from_object(obj)
    return value if is_protected_type(value) else field.value_to_string(obj)


# --------------------------------------------------------------------------------------------------- from lines


def load(line: bytes, *, using: str | None = None, keep_existing: bool = False) -> str:
    """Store the object of a line.

    Arguments:
        line: JSON in UTF-8.
        using: an alias; that of the model if None.
        keep_existing: leave an object alone that is there already, instead of storing over it.
    Returns:
        What became of it: ``loaded``, ``expired`` (it was not stored) or ``there already``.
    Raises:
        InvalidArgument: the line is no object; the message says why.
        DuplicateValue: another object has one of its unique values.
    """
    parts = _parts_of(line)
    storage = storage_of(get_model(parts["model"]), using)
    obj = storage.model(**_values_of(storage, parts))
    timeout = storage.meta.timeout
    if "expires" in parts:
        timeout = _left_of(parts["expires"])
        if timeout is not None and timeout <= datetime.timedelta():
            return EXPIRED
    try:
        storage._run(storage.save(obj, force=not keep_existing, insert=keep_existing, raw=True, timeout=timeout))
    except DuplicateValue as error:
        if keep_existing and error.is_key:
            return KEPT
        raise
    return LOADED


def _parts_of(line: bytes) -> dict[str, Any]:
    try:
        parts = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"it is no JSON: {error}.") from error
    if not isinstance(parts, dict):
        raise InvalidArgument(f"a line is an object with model, pk and fields, not {parts!r:.80}.")
    if strange := sorted(set(parts) - _PARTS):
        raise InvalidArgument(f"a line has no {strange[0]!r}; it has {', '.join(sorted(_PARTS))}.")
    if not isinstance(parts.get("model"), str) or not isinstance(parts.get("fields"), dict):
        raise InvalidArgument('it needs "model" with a label such as "shop.visitor", and "fields" with a map.')
    return parts


def _values_of(storage: Storage, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields, as their ``to_python`` makes them."""
    meta = storage.meta
    given = dict(parts["fields"])
    for name in given:
        if name not in meta.plans:
            raise unknown_field(meta.label, name, meta.plans)
    key = parts.get("pk")
    if key is not None:
        keys = [key] if len(meta.key_fields) == 1 else key
        if not isinstance(keys, list) or len(keys) != len(meta.key_fields):
            raise InvalidArgument(f"the pk of {meta.label} is a list of {', '.join(meta.key_names)}, not {key!r:.80}.")
        given.update(zip(meta.key_names, keys, strict=True))
    missing = [name for name in meta.key_names if given.get(name) is None]
    if missing and meta.auto_field is None:
        raise InvalidArgument(f"it has no pk: {meta.label} needs {', '.join(missing)}.")
    return {name: _python(storage, name, value) for name, value in given.items()}


def _python(storage: Storage, name: str, value: Any) -> Any:
    plan = storage.meta.plans[name]
    try:
        return None if value is None else plan.field.to_python(value)
    except ValidationError as error:
        raise plan.refusal(value, " ".join(error.messages)) from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise plan.refusal(value, str(error)) from error


def _left_of(expires: Any) -> datetime.timedelta | None:
    """How long an object has left; nothing or less if it has expired, None if it never does."""
    if expires is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(expires)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f'"expires" is a moment in ISO 8601, or null; not {expires!r:.80}.') from error
    if moment.tzinfo is None:
        raise InvalidArgument(f'"expires" needs an offset, such as "+00:00": {expires!r:.80}.')
    return moment - (_EPOCH + wall_ms() * _MILLISECOND)
