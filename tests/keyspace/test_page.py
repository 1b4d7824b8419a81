"""docs/keyspace-api.md: its examples run on every engine, and its tables name what there is."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any

import pytest

from django_keyspace import keyspace
from django_keyspace.keyspace import Client
from tests.contract.engines import EmbeddedPlace, Place
from tests.test_docs import blocks, codes, read, run_block, table_rows

PAGE = "docs/keyspace-api.md"
SEED_EXAMPLES = """
    client.set("key", "value") client.add("key", 3) client.delete("key") client.remove("key") client.prune("j")
    client.set_expiry("key", 60) client.remove_expiry("key") client.clear_expiries() client.get("key")
    client.dirty_get("key") client.list_keys("/user:") client.list_key_values("/user:") client.begin() client.submit()
    client.get("/user:mtrencseni") client.get("/user:agazso") client.result.key_values() client.rename("from", "to")
    client.set("key", str(10)) client.set("john", "john_data") client.set("a1", "a1_value") client.set("a2", "a2_value")
    client.set_global_timeout(120*1000) client.set_master_timeout(21*1000) client.result.transport_status()
    client.result.connectivity_status() client.result.timeout_status() client.result.command_status()
"""


@pytest.mark.contract
def test_examples_run(place: Place) -> None:
    client = place.keyspace_client()
    nodes: Any = [str(endpoint) for endpoint in getattr(place.engine, "endpoints", ())]
    if isinstance(place, EmbeddedPlace):
        nodes = str(place.folder)
    namespace = {"__name__": "page", "nodes": nodes}
    with asyncio.Runner() as runner:
        compared = [
            run_block(block.text, namespace, runner.get_loop())
            for block in blocks(read(PAGE))
            if block.language == "python" and not block.left_out
        ]
    assert sum(compared) > 40
    assert client.get("counter") == "42"  # the page has run on this place


def test_the_examples_of_the_ancestors_documentation_are_there() -> None:
    text = "".join("".join(block.text for block in blocks(read(PAGE))).split())
    examples = re.findall(r"client\.\S+?\((?:[^()]|\([^()]*\))*\)", SEED_EXAMPLES)
    assert len(examples) > 25
    assert [example for example in examples if "".join(example.split()) not in text] == []


def test_every_method_is_in_the_table() -> None:
    documented = {
        re.split(r"\W", span)[0]: span
        for cells in table_rows(read(PAGE), "Method")
        for span in codes(cells[0])
    }  # fmt: skip
    methods = {name for name, member in inspect.getmembers(Client, callable) if not name.startswith("_")}
    assert set(documented) == methods
    for name, span in documented.items():
        if "(" in span:
            parameters = [*inspect.signature(getattr(Client, name)).parameters.values()][1:]
            shown = [
                f"{p.name}" if p.default is p.empty else f"{p.name}={p.default!r}".replace("'", '"') for p in parameters
            ]
            assert span == f"{name}({', '.join(shown)})"


def test_every_status_of_the_table_of_situations_is_one() -> None:
    for cells in table_rows(read(PAGE), "Situation"):
        for cell in cells[1:]:
            for word in codes(cell):
                assert hasattr(keyspace, f"KEYSPACE_{word.removeprefix('KEYSPACE_')}")
