"""docs/kyoto-api.md: its examples run on every engine, and its tables name what there is."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from django_keyspace import kyoto
from django_keyspace.backend.kyoto import cursors, misc, queue
from django_keyspace.backend.kyoto.embedded import EmbeddedServer
from tests.contract.engines import Place
from tests.kyoto.test_signatures import CONSTRUCTORS, DOCUMENTED, KYOTO, TOKYO
from tests.test_docs import blocks, codes, read, run_block, table_rows

PAGE = "docs/kyoto-api.md"
KYOTO_SECTION, TOKYO_SECTION = "## KyotoTycoon", "## TokyoTyrant"


def section(heading: str) -> str:
    """The text from a heading of the second level to the next one."""
    text = read(PAGE)
    begin = text.index(f"\n{heading}\n") + 1
    return text[begin : text.index("\n## ", begin)]


@pytest.mark.contract
def test_examples_run(place: Place) -> None:
    namespace: dict[str, Any] = {"__name__": "page", "host": place.location()}
    with asyncio.Runner() as runner:
        compared = [
            run_block(block.text, namespace, runner.get_loop())
            for block in blocks(read(PAGE))
            if block.language == "python" and not block.left_out
        ]
    assert len(compared) >= 12 and sum(compared) >= 60


def written(name: str, documented: dict[str, Any] | None, text: str) -> bool:
    """Whether a table has a method with its arguments, as kt's documentation writes them."""
    if documented is None:
        return f"`{name}`" in text
    if name.startswith("__"):
        return {
            "__getitem__": "`db[key]`",
            "__setitem__": "`db[key] = value`",
            "__delitem__": "`del db[key]`",
            "__contains__": "`key in db`",
            "__len__": "`len(db)`",
        }[name] in text
    named = {
        ("__data" if argument == "data" and name != "misc" else argument): default
        for argument, default in documented.items()
    }
    parts = [
        "**kwargs" if argument == "kwargs" else argument if default is ... else f"{argument}={default!r}"
        for argument, default in named.items()
    ]
    return f"`{name}({', '.join(parts)})`" in text


@pytest.mark.parametrize("client", ["db", "tt"])
def test_every_documented_method_is_in_the_tables(client: str) -> None:
    text = section(KYOTO_SECTION if client == "db" else TOKYO_SECTION)
    missing = [name for name, documented in DOCUMENTED[client].items() if not written(name, documented, text)]
    assert missing == []


def test_what_the_tables_name_is_there() -> None:
    for heading, cls in ((KYOTO_SECTION, kyoto.KyotoTycoon), (TOKYO_SECTION, kyoto.TokyoTyrant)):
        for row in table_rows(section(heading), "Method"):
            for code in codes(row[0]):
                name = re.match(r"\w+", code)
                if name and not code.startswith(("db[", "del ", "key ", "len")):
                    assert hasattr(cls, name[0]), code


def test_everything_else_is_named() -> None:
    """What the classes have beyond the documented methods stands in the text."""
    text = read(PAGE)
    for cls, documented in (
        (kyoto.KyotoTycoon, KYOTO),
        (kyoto.TokyoTyrant, TOKYO),
        (cursors.Cursor, {}),
        (queue.Queue, {}),
    ):
        for name in dir(cls):
            if not name.startswith("_") and name not in documented:
                assert re.search(rf"\b{name}\b", text), name
    assert all(re.search(rf"\b{name}\b", text) for name in kyoto.__all__)


def test_constructors_are_written_out() -> None:
    text = read(PAGE)
    for cls, arguments in CONSTRUCTORS.items():
        if cls in (kyoto.KyotoTycoon, EmbeddedServer):
            parts = [
                f'{name}="{value}"' if isinstance(value, str) else f"{name}={value}"
                for name, value in arguments.items()
            ]
            wanted = f"`{cls.__name__}({', '.join(parts)})`".replace('serializer="binary"', "serializer=KT_BINARY")
            assert wanted in text


def test_serializers_errors_and_commands_are_those_of_the_code() -> None:
    text = read(PAGE)
    constants = {codes(row[0])[0] for row in table_rows(text, "Constant")}
    assert constants == {name for name in kyoto.__all__ if name.startswith("KT_")}
    errors = {codes(row[0])[0] for row in table_rows(text, "Class")}
    assert errors == {
        name
        for name in kyoto.__all__
        if isinstance(getattr(kyoto, name), type) and issubclass(getattr(kyoto, name), Exception)
    }
    commands = {code for row in table_rows(text, "Command") for code in codes(row[0])}
    assert commands == misc.COMMANDS
