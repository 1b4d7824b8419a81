"""What a node can be told about its cluster: flags, TOML, settings, and what is refused before anything is opened."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.exceptions import ConfigurationError
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.flags import add_arguments, config_from

OTHERS = ["--peer", "n2=10.0.0.2:7080", "--peer", "n3=[::1]:7081"]


def configured(*flags: str, defaults: dict[str, Any] | None = None) -> NodeConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser, defaults)
    given = parser.parse_args(["--id", "n1", "--data", "folder", *flags])
    return config_from(vars(given), defaults, {})


def test_peers_are_names_and_addresses() -> None:
    config = configured(*OTHERS)
    assert config.peers == (("n2", "10.0.0.2:7080"), ("n3", "[::1]:7081"))
    assert config.seeks_cluster
    assert config.address == "127.0.0.1:7080"
    assert (
        configured("--listen", "127.0.0.1:7090", "--advertise", "n1.example:7080", *OTHERS).address == "n1.example:7080"
    )
    assert not configured().seeks_cluster


def test_a_node_may_join_by_several_members() -> None:
    config = configured("--join", "10.0.0.2, [::1]:7081")
    assert config.join == ("10.0.0.2:7080", "[::1]:7081")
    assert config.seeks_cluster


def test_times_and_bounds_reach_the_runtime() -> None:
    config = configured("--election-timeout-ms", "2000", "--lease-drift-max", "0.1", "--snapshot-entries", "5000")
    settings = config.runtime_settings()
    assert (settings.election_timeout_ms, settings.tick_ms, settings.snapshot_entries) == (2000, 200, 5000)
    assert settings.raft.lease_drift_max == 0.1
    assert configured().runtime_settings().raft.lease_drift_max is None


def test_the_same_words_in_a_file_and_in_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('peer = ["n2=10.0.0.2:7080"]\nelection_timeout_ms = 900\nlease_drift_max = 0.2\n')
    config = configured("--config", str(file))
    assert (config.peers, config.election_timeout_ms, config.lease_drift_max) == ((("n2", "10.0.0.2:7080"),), 900, 0.2)
    file.write_text('[peer]\nn2 = "10.0.0.2:7080"\n')
    assert configured("--config", str(file)).peers == (("n2", "10.0.0.2:7080"),)
    assert configured(defaults={"PEER": {"n4": "10.0.0.4:1"}}).peers == (("n4", "10.0.0.4:1"),)
    # A flag wins over all of them.
    assert configured("--config", str(file), "--peer", "n9=10.0.0.9:9").peers == (("n9", "10.0.0.9:9"),)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--peer", "n2"], "is not NAME=HOST:PORT"),
        (["--peer", "n2=here:there"], "is not HOST:PORT"),
        (["--peer", "n2=10.0.0.2:0"], "needs a port"),
        (["--peer=_x=10.0.0.2:1"], "none that a node can have"),
        (["--peer", "n1=10.0.0.2:7080"], "'n1' is this one: leave it out"),
        (["--peer", "n2=10.0.0.2:1", "--peer", "n2=10.0.0.3:1"], "names of the nodes must differ: n2"),
        (["--peer", "n2=10.0.0.2:1", "--peer", "n3=10.0.0.2:1"], "addresses of the nodes must differ: 10.0.0.2:1"),
        (["--peer", "n2=127.0.0.1:7080"], "addresses of the nodes must differ: 127.0.0.1:7080"),
        ([*OTHERS, "--join", "10.0.0.2:1"], "give one of both"),
        ([*OTHERS, "--listen", "127.0.0.1:0"], "needs a port that stays"),
        (["--join", "10.0.0.2:1", "--listen", "127.0.0.1:0"], "needs a port that stays"),
        ([*OTHERS, "--advertise", "0.0.0.0:7080"], "Nobody can connect to 0.0.0.0"),
        (["--election-timeout-ms", "10"], "election timeout must be an integer from 50"),
        (["--lease-drift-max", "0.9"], "0.5 at most"),
        (["--lease-drift-max", "0"], "has to be above 0"),
        (["--snapshot-entries", "1"], "entries between snapshots"),
        (["--tls-peer-ca", "ca.pem"], "TLS needs both"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words.replace("[", r"\[")):
        configured(*flags)


@pytest.mark.parametrize("peer", ["n2=10.0.0.2:1", 5, [5]])
def test_peers_of_a_file_are_a_list(peer: Any) -> None:
    with pytest.raises(ConfigurationError, match="peer must be a list"):
        configured(defaults={"PEER": peer})
