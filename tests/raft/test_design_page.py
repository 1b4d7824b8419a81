"""The pages of docs/design.md about consensus say what the code and the tests say."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from django_keyspace.node.raft.state import TRANSITIONS
from tests.mutate.table import TABLE

ROOT = Path(__file__).resolve().parents[2]
RULES = 53


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its own two lines."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert lines is not None
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[0].splitlines()[2:]]


def test_roles_change_as_the_page_says() -> None:
    assert sorted((one, other) for one, other, _ in rows("### Roles")) == sorted(
        (one.value, other.value) for one, other in TRANSITIONS
    )


def test_every_rule_is_shown_or_has_a_reason() -> None:
    table = rows("### The rules")
    assert [int(row[0]) for row in table] == list(range(1, RULES + 1))
    for number, _, files, mutations, elsewhere in table:
        names = [] if files == "-" else files.split(", ")
        for name in names:
            module = importlib.import_module("tests." + (name if "/" in name else f"raft/{name}").replace("/", "."))
            assert any(test.startswith(f"test_rule_{int(number):02d}_") for test in vars(module)), (number, name)
        assert names or elsewhere, f"rule {number} is neither shown nor excused"
        known = [mutation.name for mutation in TABLE if mutation.rule == int(number)]
        assert ([] if mutations == "-" else mutations.split(", ")) == known, number


def test_every_test_of_a_rule_is_in_the_table() -> None:
    shown = {int(row[0]): row[2].split(", ") for row in rows("### The rules")}
    for folder, prefix in (("raft", ""), ("node", "node/")):
        for path in (ROOT / "tests" / folder).glob("test_*.py"):
            for number in re.findall(
                r"^(?:async )?def test_rule_(\d\d)_", path.read_text(encoding="utf-8"), re.MULTILINE
            ):
                assert prefix + path.stem in shown[int(number)], (number, path.stem)
