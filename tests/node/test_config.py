"""What a node refuses before it opens anything, and whose its data folder is."""

from __future__ import annotations

import argparse
import json
import logging
import os
import stat
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_keyspace.exceptions import ConfigurationError, ForeignStore, StorageError
from django_keyspace.node.__main__ import main
from django_keyspace.node.auth import ServerTls
from django_keyspace.node.config import NodeConfig, format_address, parse_listen, parse_size
from django_keyspace.node.flags import add_arguments, config_from
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.logs import JsonFormatter

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
        ({"host": "0.0.0.0"}, "without a secret"),
        ({"host": "192.168.1.5"}, "without a secret"),
        ({"host": "::"}, "without a secret"),
        ({"host": "cache.example.org"}, "without a secret"),
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
        (["--id", "n1", "--data", "x", "--listen", "0.0.0.0:7080"], "without a secret"),
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
        ('{"format": 3, "node": "n1"}', "format 3"),
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


# --- Where its words come from


@pytest.fixture
def private_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("a secret in a file, with its line break\n")
    file.chmod(0o600)
    return file


def configured(flags: list[str], defaults: dict[str, Any] | None = None, **environment: str) -> NodeConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser, defaults)
    flags = ["--id", "n1", "--data", "folder", *flags]
    return config_from(vars(parser.parse_args(flags)), defaults, environment)


def test_flags_win_over_the_file_and_the_file_over_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('listen = "127.0.0.1:2"\nmax_bytes = "2G"\ndatabases = 4\n')
    defaults = {"LISTEN": "127.0.0.1:1", "DATABASES": 3, "DURABILITY": "none"}
    config = configured(["--config", str(file), "--listen", "127.0.0.1:3"], defaults)
    assert (config.port, config.databases, config.durability, config.max_bytes) == (3, 4, "none", 2**31)
    assert configured(["--config", str(file)], defaults).port == 2
    assert configured([], defaults).port == 1
    assert configured([]).port == 7080


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("listen = ", "is not TOML"),
        ('liste = "x"', "has the unknown liste"),
        ('databases = "4"', "databases must be a whole number"),
        ('durability = "always"', "durability must be one of"),
        (None, "cannot be read"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "node.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationError, match=words):
        configured(["--config", str(file)])


def test_the_secret_comes_from_a_file_or_the_environment(private_file: Path) -> None:
    expected = b"a secret in a file, with its line break"
    assert configured(["--secret-file", str(private_file)]).secret == expected
    assert configured([], KEYSPACE_SECRET_FILE=str(private_file)).secret == expected
    assert configured([], {"SECRET_FILE": private_file}).secret == expected
    assert configured([], KEYSPACE_SECRET="a secret in the environment").secret == b"a secret in the environment"
    assert configured([]).secret is None
    assert "line break" not in repr(configured(["--secret-file", str(private_file)]))
    assert configured(["--secret-file", str(private_file), "--listen", "0.0.0.0:0"]).host == "0.0.0.0"


def test_secrets_that_are_refused(private_file: Path) -> None:
    flags = ["--secret-file", str(private_file)]
    with pytest.raises(ConfigurationError, match="given by --secret-file and by KEYSPACE_SECRET"):
        configured(flags, KEYSPACE_SECRET="a secret in the environment")
    with pytest.raises(ConfigurationError, match="must have 16 to 1,024"):
        configured([], KEYSPACE_SECRET="short")
    private_file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        configured(flags)
    private_file.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        configured(flags)


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    rubbish = tmp_path / "cert.pem"
    rubbish.write_text("rubbish")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        ServerTls(str(rubbish), str(rubbish), None)
    with pytest.raises(ConfigurationError, match="No such file"):
        ServerTls(str(tmp_path / "none.pem"), str(rubbish), None)
    for given in ({"tls_cert": "c"}, {"tls_key": "k"}, {"tls_ca": "a"}):
        with pytest.raises(ConfigurationError, match="TLS needs both"):
            NodeConfig(**SOUND | given)


def test_logs_as_json() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("django_keyspace.node", logging.ERROR, "f", 1, "It is %s", ("käse",), sys.exc_info())
    fields = json.loads(JsonFormatter().format(record))
    assert (fields["level"], fields["logger"], fields["message"]) == ("error", "django_keyspace.node", "It is käse")
    assert "ValueError: broken" in fields["error"]
    assert datetime.fromisoformat(fields["time"]).tzinfo is not None
