"""What a node refuses before it opens anything, and whose its data folder is."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_keyspace.exceptions import ConfigurationError, ForeignStore, StorageError
from django_keyspace.node.__main__ import main
from django_keyspace.node.config import NodeConfig, format_address, parse_listen, parse_size
from django_keyspace.node.folder import DataFolder

SOUND: dict[str, Any] = {"node_id": "n1", "host": "127.0.0.1", "port": 0, "data": "folder"}


@pytest.mark.parametrize("node_id", ["n1", "a", "A.b-c_9", "x" * 64])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_sound_configurations(node_id: str, host: str) -> None:
    config = NodeConfig(**SOUND | {"node_id": node_id, "host": host})
    assert config.store_options().durability == "interval"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"node_id": ""}, "node id"),
        ({"node_id": "x" * 65}, "node id"),
        ({"node_id": "-n"}, "node id"),
        ({"node_id": "n/1"}, "node id"),
        ({"node_id": "n1\n"}, "node id"),
        ({"data": ""}, "--data"),
        ({"host": "0.0.0.0"}, "neither a shared secret nor TLS"),
        ({"host": "192.168.1.5"}, "neither a shared secret nor TLS"),
        ({"host": "::"}, "neither a shared secret nor TLS"),
        ({"host": "cache.example.org"}, "neither a shared secret nor TLS"),
        ({"port": 70_000}, "port"),
        ({"port": -1}, "port"),
        ({"port": True}, "port"),
        ({"durability": "always"}, "durability"),
        ({"max_bytes": 5}, "max_bytes"),
        ({"databases": 0}, "databases"),
        ({"databases": "16"}, "databases"),
        ({"value_bytes_max": 0}, "value_bytes_max"),
        ({"connections_max": 0}, "connections"),
    ],
)
def test_wrong_configurations(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        NodeConfig(**SOUND | change)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7080", ("127.0.0.1", 7080)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("localhost", ("localhost", 7080)),
        ("[::1]:99", ("::1", 99)),
        ("[::1]", ("::1", 7080)),
    ],
)
def test_listen(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected
    assert parse_listen(format_address(*expected)) == expected


@pytest.mark.parametrize("text", ["", ":7080", "host:", "host:x", "::1", "[::1", "[::1]7", "host:-1", "host:７"])
def test_wrong_listen(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("5", 5), ("512M", 512 * 2**20), ("1k", 1024), ("2GiB", 2**31), ("1 TB", 2**40), (" 7 ", 7), ("8B", 8)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "x", "1.5G", "-1", "5P", "G"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ConfigurationError, match="size in bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "needs --id"),
        (["--id", "n1"], "needs --data"),
        (["--id", "n 1", "--data", "x"], "node id"),
        (["--id", "n1", "--data", "x", "--listen", "0.0.0.0:7080"], "this machine only"),
        (["--id", "n1", "--data", "x", "--max-bytes", "much"], "size in bytes"),
    ],
)
def test_command_line_says_what_is_wrong(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    assert words in capsys.readouterr().err


def test_management_command_takes_defaults_from_the_settings() -> None:
    with override_settings(KEYSPACE={"NODE": {"ID": "n1", "DATA": "x", "LISTEN": "0.0.0.0:1"}}):
        with pytest.raises(CommandError, match=r"will not listen on '0.0.0.0'"):
            call_command("keyspace_node")
        with pytest.raises(CommandError, match=r"will not listen on '10.0.0.1'"):
            call_command("keyspace_node", "--listen", "10.0.0.1:5")
    with override_settings(KEYSPACE={"NODE": {"LISTENS": "0.0.0.0:1"}}), pytest.raises(CommandError, match="'LISTENS'"):
        call_command("keyspace_node")
    with pytest.raises(CommandError, match="needs --id") as caught:
        call_command("keyspace_node")
    assert caught.value.returncode == 2


# --- The data folder


def test_folder_is_private_and_remembers_its_node(tmp_path: Path) -> None:
    path = tmp_path / "a" / "n1"
    DataFolder(str(path), "n1").release()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert json.loads((path / "node.json").read_text()) == {"format": 1, "node": "n1"}
    DataFolder(str(path), "n1").release()
    with pytest.raises(ConfigurationError, match="belongs to node 'n1', not to 'n2'"):
        DataFolder(str(path), "n2")
    DataFolder(str(path), "n1").release()  # the refused one holds no lock


def test_folder_in_use_names_its_holder(tmp_path: Path) -> None:
    folder = DataFolder(str(tmp_path), "n1")
    with pytest.raises(ConfigurationError, match=rf"in use by node n1 \(process {os.getpid()}\)\. Stop"):
        DataFolder(str(tmp_path), "n1")
    folder.announce("127.0.0.1:7080")
    with pytest.raises(ConfigurationError, match=r"at 127\.0\.0\.1:7080"):
        DataFolder(str(tmp_path), "n2")
    folder.release()
    DataFolder(str(tmp_path), "n1").release()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rubbish", "Is .* the data folder of a node"),
        ("[]", "not the identity"),
        ('{"format": 1}', "not the identity"),
        ('{"format": 2, "node": "n1"}', "format 2"),
    ],
)
def test_folder_with_an_identity_that_is_not_ours(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(ForeignStore, match=words):
        DataFolder(str(tmp_path), "n1")
    assert (tmp_path / "node.json").read_text() == text


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        DataFolder(str(tmp_path / "file"), "n1")
