"""``manage.py keyspace_import``: take over the records of a Redis, memcached, Kyoto Tycoon or Tokyo Tyrant that is running."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.management.base import BaseCommand, CommandError

from django_keyspace.backend.cache import KeyspaceCache
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.management.importing import Page, Row, Source, open_source
from django_keyspace.management.progress import Progress
from django_keyspace.operations import INT64_MAX, INT64_MIN, Call, Value, check_key
from django_keyspace.store.record import Flag

_BATCH_BYTES_MAX: Final = 1024 * 1024
_NAMED_MAX: Final = 10
_INTEGER_DIGITS_MAX: Final = 20


def as_auto(payload: bytes) -> Any:
    """An integer if the bytes are one in its usual form, text if they are UTF-8, or else bytes."""
    digits = payload[1:] if payload[:1] == b"-" else payload
    if digits.isdigit() and len(payload) <= _INTEGER_DIGITS_MAX:
        number = int(payload)
        if INT64_MIN <= number <= INT64_MAX and b"%d" % number == payload:
            return number
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


VALUES: Final[dict[str, Callable[[bytes], Any]]] = {"auto": as_auto, "text": bytes.decode, "bytes": bytes}
"""The choices of ``--values``: what a server's bytes become."""


class Command(BaseCommand):
    """Reads page by page; each page is written in one go, and then the mark is noted."""

    help = (
        "Copy the records of a running server into a cache alias: redis://host:6379/0, rediss://..., "
        "memcached://host:11211, kyoto://host:1978/0 or tokyo://host:1978. The server is only read."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Its flags."""
        flag = parser.add_argument
        flag("source", help="URL of the server to read.")
        flag("--alias", default="default", help="Alias of CACHES to write to (default: default).")
        flag(
            "--raw",
            action="store_true",
            help="Keep the keys as they are, without the alias's prefix and version, in records that are never evicted: "
            "what the Keyspace and Kyoto clients read. Without it, records are the alias's own.",
        )
        flag("--key-version", type=int, metavar="N", help="Version of the alias's keys (default: the alias's).")
        flag("--strip", default="", metavar="PREFIX", help="Import only keys with this prefix, and take it off.")
        flag("--values", choices=sorted(VALUES), default="auto", help="What values become; auto: int, text or bytes.")
        flag("--keep-existing", action="store_true", help="Leave keys alone that are there already.")
        flag("--mark", metavar="FILE", help="Note in this file how far it came, and go on from there.")
        flag("--dry-run", action="store_true", help="Read and count everything, write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Import, and say what was imported and what was not."""
        cache = _cache(options["alias"])
        tally: Counter[str] = Counter()
        refused: list[str] = []
        try:
            source = open_source(options["source"])
        except KeyspaceError as error:
            raise CommandError(str(error)) from error
        try:
            self._import(source, cache, options, tally, refused)
        except KeyspaceError as error:
            raise CommandError(f"{error}\nImported before that: {tally['imported']:,} records.") from error
        finally:
            source.close()
        self._report(tally, refused, options)

    def _import(
        self, source: Source, cache: KeyspaceCache, options: dict[str, Any], tally: Counter[str], refused: list[str]
    ) -> None:
        mark_file = Path(options["mark"]) if options["mark"] else None
        mark, done = _read_mark(mark_file, options)
        if done:
            self.stderr.write(f"Going on behind the first {done:,} keys, as {mark_file} says.")
        total = source.total()
        quiet = options["verbosity"] < 1
        with Progress(self.stderr, "Read", "keys", total=total, done=done, quiet=quiet) as progress:
            for page in source.pages(mark):
                tally.update(page.skipped)
                for calls, rows in _batches(page, cache, options, tally, refused):
                    if not options["dry_run"]:
                        _write(cache, calls, rows, tally, refused)
                    else:
                        tally["imported"] += len(calls)
                progress.advance(page.looked_at)
                if mark_file is not None and not options["dry_run"]:
                    _note_mark(mark_file, page.mark, progress.done, options)

    def _report(self, tally: Counter[str], refused: list[str], options: dict[str, Any]) -> None:
        number_refused = tally["refused"]
        verb = "Would import" if options["dry_run"] else "Imported"
        self.stdout.write(self.style.SUCCESS(f"{verb} {tally.pop('imported', 0):,} records."))
        for reason, number in sorted((+tally).items()):
            self.stdout.write(f"Left out {number:,}: {reason}.")
        for line in refused:
            self.stdout.write(f"  {line}")
        if number_refused > len(refused):
            self.stdout.write(f"  and {number_refused - len(refused):,} more")


def _cache(alias: str) -> KeyspaceCache:
    try:
        cache = caches[alias]
    except InvalidCacheBackendError as error:
        raise CommandError(f"{error} Name an alias of CACHES with --alias.") from error
    if not isinstance(cache, KeyspaceCache):
        raise CommandError(
            f"The alias {alias!r} is a {type(cache).__name__}, not a cache of django_keyspace. Nothing was imported. "
            "Name another one with --alias."
        )
    return cache


def _batches(
    page: Page, cache: KeyspaceCache, options: dict[str, Any], tally: Counter[str], refused: list[str]
) -> Iterator[tuple[list[Call], list[Row]]]:
    """The page's writes, in portions that no node finds too large, each with the rows that it comes from."""
    calls: list[Call] = []
    rows: list[Row] = []
    size = 0
    presence = "absent" if options["keep_existing"] else "always"
    for row in page.rows:
        try:
            key, value = _key(row.key, cache, options), _value(row.value, cache, options)
        except KeyspaceError as error:
            _refuse(row, str(error), tally, refused)
            continue
        except UnicodeDecodeError as error:
            what = "The value is" if error.object is row.value else "The key is"
            _refuse(row, f"{what} not UTF-8: use --values bytes, or --raw for keys.", tally, refused)
            continue
        if key is None:
            tally["without the prefix"] += 1
            continue
        expire = None if row.deadline_ms is None else ("at", row.deadline_ms)
        if calls and size + len(row.value) > _BATCH_BYTES_MAX:
            yield calls, rows
            calls, rows, size = [], [], 0
        calls.append(("set", cache._database, key, value, expire, presence))
        rows.append(row)
        size += len(row.value)
    if calls:
        yield calls, rows


def _key(key: bytes, cache: KeyspaceCache, options: dict[str, Any]) -> bytes | None:
    prefix = options["strip"].encode()
    if not key.startswith(prefix):
        return None
    key = key[len(prefix) :]
    if not options["raw"]:
        return cache._key(key.decode(), options["key_version"])
    check_key("key", key)
    return key


def _value(payload: bytes, cache: KeyspaceCache, options: dict[str, Any]) -> Value:
    tag, flags, encoded = cache._encode(VALUES[options["values"]](payload))
    return (tag, flags & ~Flag.EVICTABLE if options["raw"] else flags, encoded)


def _write(
    cache: KeyspaceCache, calls: list[Call], rows: Iterable[Row], tally: Counter[str], refused: list[str]
) -> None:
    for row, (word, answer) in zip(rows, cache._execute(("batch", calls)), strict=True):
        if word == "no-space":
            raise CommandError(f"{answer}\nImported before that: {tally['imported']:,} records.")
        if word != "ok":
            _refuse(row, answer, tally, refused)
        else:
            tally["imported" if answer else "there already"] += 1


def _refuse(row: Row, why: str, tally: Counter[str], refused: list[str]) -> None:
    tally["refused"] += 1
    if len(refused) < _NAMED_MAX:
        refused.append(f"{row.key!r:.60}: {why}")


def _read_mark(file: Path | None, options: dict[str, Any]) -> tuple[str | None, int]:
    """``(mark, keys done)`` of an import that was stopped."""
    if file is None or not file.exists():
        return None, 0
    try:
        noted = json.loads(file.read_text())
        source, mark, done = noted["source"], str(noted["mark"]), int(noted["done"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{file} is no mark of an import ({error!r}). Nothing was imported. Name another file."
        ) from error
    if source != _without_password(options["source"]):
        raise CommandError(
            f"{file} is the mark of an import from {source}. Nothing was imported. Name another file, or delete it to begin anew."
        )
    return mark, done


def _note_mark(file: Path, mark: str | None, done: int, options: dict[str, Any]) -> None:
    """After a page; behind the last one the file goes."""
    try:
        if mark is None:
            file.unlink(missing_ok=True)
            return
        noted = {"source": _without_password(options["source"]), "mark": mark, "done": done}
        written = file.with_name(f"{file.name}.new")
        written.write_text(json.dumps(noted) + "\n")
        written.replace(file)
    except OSError as error:
        raise CommandError(f"The mark {file} can't be written: {error}. What was imported so far stays.") from error


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
