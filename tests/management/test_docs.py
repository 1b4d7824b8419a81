"""docs/cluster.md and docs/failures.md against the code: flags, columns, configurations, and what logs say."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import load_command_class

from django_keyspace.management.__main__ import COMMANDS
from django_keyspace.management.commands.keyspace_members import ACTIONS
from django_keyspace.management.commands.keyspace_status import HEADS
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.flags import add_arguments, config_from
from django_keyspace.operations import CONTROLS
from tests.test_docs import ROOT, blocks, codes, read, table_rows

PACKAGE = ROOT / "django_keyspace"
ANY = "\0"
"""What stands for the parts of a text that differ."""


def templates_of(tree: ast.AST) -> Iterator[str]:
    """The texts in a program, with :data:`ANY` where something is put in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sdr]", ANY, node.value)


@cache
def templates() -> list[str]:
    paths = [*(PACKAGE / "node").rglob("*.py"), *(PACKAGE / "management").rglob("*.py"), PACKAGE / "wire.py"]
    return [
        text
        for path in sorted(paths)
        for text in templates_of(ast.parse(path.read_text(encoding="utf-8")))
        if " " in text
    ]


def is_said(phrase: str) -> bool:
    """Whether some text of the package can become this one, in which each … stands for anything."""
    wanted = re.sub(r"\d+", "…", phrase).removeprefix("! ")
    pieces = [re.escape(piece.strip()) for piece in wanted.split("…") if piece.strip()]
    pattern = re.compile(".*".join(pieces).replace(r"\ ", " "), re.DOTALL)
    return any(pattern.search(template.replace(ANY, " … ")) for template in templates()) or any(
        pattern.search(re.sub(r"\s+", " ", template.replace(ANY, ""))) for template in templates()
    )


def failure_rows() -> list[list[str]]:
    return table_rows(read("docs/failures.md"), "Trouble")


def test_the_tables_of_failures_are_whole() -> None:
    rows = failure_rows()
    assert len(rows) >= 30
    for cells in rows:
        assert len(cells) == 5 and cells[0] and cells[1], cells


PHRASES = [
    (cells[0], phrase) for cells in failure_rows() for cell in cells[2:4] for phrase in codes(cell) if " " in phrase
]


@pytest.mark.parametrize(("trouble", "phrase"), PHRASES, ids=[phrase for _, phrase in PHRASES])
def test_what_logs_and_commands_say_is_what_the_page_says(trouble: str, phrase: str) -> None:
    assert is_said(phrase), trouble


@pytest.mark.parametrize("phrase", ["Node … likes term …", "! … is too far ahead for the log", "No link to nodes …"])
def test_what_nobody_says_is_noticed(phrase: str) -> None:
    assert not is_said(phrase)


def test_columns_of_the_status() -> None:
    named = [name for cells in table_rows(read("docs/cluster.md"), "Column") for name in codes(cells[0])]
    assert sorted(named) == sorted([*HEADS])


def test_commands() -> None:
    named = [codes(cells[0])[0].split() for cells in table_rows(read("docs/cluster.md"), "Command")]
    assert {words[0] for words in named} == {*COMMANDS, "keyspace_node"}
    assert {words[1] for words in named if words[0] == "keyspace_members"} == set(ACTIONS)


def test_what_operators_ask_of_a_node() -> None:
    rows = {cells[0]: codes(cells[1]) for cells in table_rows(read("docs/operations.md"), "Request")}
    assert rows == {name: [parameter for parameter, _ in row.parameters] for name, row in CONTROLS.items()}


def flags_of(name: str) -> set[str]:
    parser = load_command_class("django_keyspace", name).create_parser("manage.py", name)
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= set(inner._option_string_actions)
    return found


def test_flags() -> None:
    known = set().union(*map(flags_of, (*COMMANDS, "keyspace_node")))
    text = read("docs/cluster.md") + read("docs/failures.md")
    text = re.sub(r"scripts/\w+ [^`\n]*", "", text)  # those have flags of their own
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert len(named) > 12 and named - known == set()


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return {"KEYSPACE_SECRET": "a secret for the test of a page"}


def node_of(words: list[str], environment: dict[str, str]) -> NodeConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return config_from(vars(parser.parse_args(words)), environment=environment)


def test_the_configuration_of_a_host(secret: dict[str, str], tmp_path: Path) -> None:
    [text] = [block.text for block in blocks_of_lists(read("docs/cluster.md")) if block.language == "toml"]
    file = tmp_path / "node.toml"
    assert "secret_file" in tomllib.loads(text)
    file.write_text(re.sub(r"^secret_file.*$", "", text, flags=re.MULTILINE))
    config = node_of(["--config", str(file)], secret)
    assert (config.node_id, config.address, config.http) == ("n1", "10.0.0.1:7080", ("127.0.0.1", 7081))
    assert config.peers == (("n2", "10.0.0.2:7080"), ("n3", "10.0.0.3:7080"))


def blocks_of_lists(text: str) -> list[object]:
    """The fenced blocks, also those that are indented because they belong to a list."""
    return list(blocks("\n".join(line.removeprefix("   ") for line in text.splitlines())))


def command_lines(text: str) -> list[list[str]]:
    """The flags of each command that starts a node."""
    return [shlex.split(flags) for flags in re.findall(r"python -m django_keyspace\.node (--id .+)", text)]


def test_every_command_that_starts_a_node_is_legal(secret: dict[str, str]) -> None:
    configs = [node_of(words, secret) for words in command_lines(read("docs/cluster.md"))]
    assert len(configs) >= 5
    members = {config.node_id: config.address for config in configs if config.peers}
    assert members == {"n1": "n1:7080", "n2": "n2:7080", "n3": "n3:7080"}
    for config in configs:
        if config.peers:  # each knows all the others, at the address that they say
            assert dict(config.peers) | {config.node_id: config.address} == members
        else:
            assert config.join
