"""Who is let in and who is not: the shared secret and TLS, with both drivers and with clients that cheat."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import AuthenticationFailed, KeyspaceError, NoConnection, ProtocolError
from django_keyspace.handshake import PROOF, client_proof, new_nonce
from django_keyspace.security import Security, make_security
from django_keyspace.testing import RunningNode, running_node
from django_keyspace.wire import HELLO_BYTES_MAX, ClientHello

from ..certificates import Certificates
from ..store.helpers import await_condition
from .conftest import RawClient

SECRET = "correct horse battery staple"
OTHER = "another secret of that length"
VALUE = (1, 0, b"v")


def security(secret: str | None = SECRET, *, tls: dict[str, Any] | None = None) -> Security:
    return make_security(uses_tls=tls is not None, secret=secret, tls=tls, environment={})


def engine(node: RunningNode, with_security: Security, location: str | None = None) -> RemoteEngine:
    return RemoteEngine(parse_location(location or node.location).endpoints, security=with_security)


def both_ways(found: RemoteEngine, *call: Any) -> list[Any]:
    """The answer, or the error, of a blocking and of an asyncio call."""
    answers: list[Any] = []
    for do in (lambda: found.execute(*call), lambda: asyncio.run(found.aexecute(*call))):
        try:
            answers.append(do())
        except KeyspaceError as error:
            answers.append(error)
    found.close()
    return answers


# --- The secret


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningNode]:
    with running_node(secret=SECRET) as node:
        yield node


def test_who_knows_the_secret_is_served(guarded: RunningNode) -> None:
    found = engine(guarded, security())
    assert both_ways(found, "set", 0, b"k", VALUE, None, "always") == [True, True]
    assert both_ways(found, "exists", 0, b"k") == [True, True]


def test_the_unix_socket_wants_the_secret_too(guarded: RunningNode) -> None:
    location = f"keyspace+unix://{guarded.data}/node.sock"
    assert both_ways(engine(guarded, security(), location), "exists", 0, b"no") == [False, False]
    for error in both_ways(engine(guarded, security(None), location), "exists", 0, b"no"):
        assert type(error) is AuthenticationFailed


@pytest.mark.parametrize(
    ("secret", "words"), [(OTHER, "is another one than this client's"), (None, "this one has none")]
)
@pytest.mark.parametrize("call", [("get", 0, b"k"), ("set", 0, b"stranger", VALUE, None, "always")])
def test_who_does_not_know_it_is_told_so(guarded: RunningNode, secret: str | None, words: str, call: Any) -> None:
    for error in both_ways(engine(guarded, security(secret)), *call):
        assert type(error) is AuthenticationFailed
        assert words in str(error)
    assert both_ways(engine(guarded, security()), "exists", 0, b"stranger") == [False, False]


def test_a_node_without_the_secret_gets_nothing() -> None:
    with running_node() as node:
        for error in both_ways(engine(node, security()), "set", 0, b"k", VALUE, None, "always"):
            assert type(error) is AuthenticationFailed
            assert "has no secret" in str(error)
        assert both_ways(engine(node, security(None)), "exists", 0, b"k") == [False, False]


def greeted(node: RunningNode, nonce: bytes | None) -> tuple[RawClient, Any]:
    client = RawClient(node.address, hello=False)
    client.send(ClientHello(nonce=nonce).message())
    return client, client.receive()


def last_words(client: RawClient) -> tuple[int, str, str]:
    answer = client.receive()
    assert client.receive() is None
    client.close()
    return answer


def test_a_request_before_the_proof_is_refused(guarded: RunningNode) -> None:
    client, _ = greeted(guarded, new_nonce())
    client.send((1, "get", 0, b"k"))
    assert last_words(client)[:2] == (0, "authentication-failed")


@pytest.mark.parametrize("proof", [b"", b"x" * 32, "text", None, 5])
def test_a_wrong_proof_is_refused(guarded: RunningNode, proof: Any) -> None:
    client, _ = greeted(guarded, new_nonce())
    client.send((PROOF, proof), (1, "get", 0, b"k"))
    assert last_words(client)[:2] == (0, "authentication-failed")


@pytest.mark.parametrize("nonce", [None, b"", b"short", b"x" * 33])
def test_a_wrong_nonce_is_refused(guarded: RunningNode, nonce: bytes | None) -> None:
    client = RawClient(guarded.address, hello=False)
    client.send(ClientHello(nonce=nonce).message())
    assert last_words(client)[:2] == (0, "authentication-failed")


def test_a_large_request_may_come_right_behind_the_proof(guarded: RunningNode) -> None:
    nonce = new_nonce()
    client, hello = greeted(guarded, nonce)
    fields = hello[2]
    proof = client_proof(SECRET.encode(), nonce, fields["nonce"], fields["node"], None)
    client.send((PROOF, proof), (1, "set", 0, b"large", (1, 0, b"x" * 2 * HELLO_BYTES_MAX), None, "always"))
    assert client.receive() == (1, "ok", True)
    client.close()


def test_neither_an_overheard_proof_nor_the_nodes_own_is_good_again(guarded: RunningNode) -> None:
    nonce = new_nonce()
    first, hello = greeted(guarded, nonce)
    fields = hello[2]
    proof = client_proof(SECRET.encode(), nonce, fields["nonce"], fields["node"], None)
    first.send((PROOF, proof), (1, "exists", 0, b"no"))
    assert first.receive() == (1, "ok", False)
    first.close()
    for overheard in (proof, fields["proof"]):
        second, _ = greeted(guarded, nonce)
        second.send((PROOF, overheard))
        assert last_words(second)[:2] == (0, "authentication-failed")
    third, hello = greeted(guarded, nonce)
    third.send((PROOF, hello[2]["proof"]))
    assert last_words(third)[:2] == (0, "authentication-failed")


def test_a_stranger_may_not_send_large_frames(guarded: RunningNode) -> None:
    client, _ = greeted(guarded, new_nonce())
    client.socket.sendall((HELLO_BYTES_MAX + 1).to_bytes(4, "big"))
    assert last_words(client)[:2] == (0, "protocol")


# --- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def encrypted(certificates: Certificates) -> Iterator[RunningNode]:
    with running_node(secret=SECRET, **certificates.node_options()) as node:
        yield node


def test_calls_over_tls(encrypted: RunningNode, certificates: Certificates) -> None:
    assert encrypted.location.startswith("keyspaces://")
    found = engine(encrypted, security(tls={"ca": certificates.ca}))
    large = (1, 0, os.urandom(3_000_000))
    assert both_ways(found, "set", 0, b"large", large, None, "always") == [True, True]
    records = both_ways(found, "get", 0, b"large")
    assert [record[-3_000_000:] == large[2] for record in records] == [True, True]


def test_many_calls_on_one_tls_connection(encrypted: RunningNode, certificates: Certificates) -> None:
    found = engine(encrypted, security(tls={"ca": certificates.ca}))
    for number in range(200):
        found.execute("set", 0, b"many", VALUE, None, "always")
        assert found.execute("exists", 0, b"many"), number

    async def together() -> list[Any]:
        return await asyncio.gather(*(found.aexecute("exists", 0, b"many") for _ in range(200)))

    assert asyncio.run(together()) == [True] * 200
    found.close()


def test_a_certificate_of_strangers_is_not_accepted(encrypted: RunningNode, certificates: Certificates) -> None:
    found = engine(encrypted, security(tls={"ca": certificates.strangers_ca}))
    for error in both_ways(found, "set", 0, b"k", VALUE, None, "always"):
        assert type(error) is AuthenticationFailed
        assert "is not accepted" in str(error)


def test_a_certificate_for_another_host_is_not_accepted(encrypted: RunningNode, certificates: Certificates) -> None:
    location = f"keyspaces://localhost:{encrypted.address.rpartition(':')[2]}/0"
    tls: dict[str, Any] = {"ca": certificates.ca}
    for error in both_ways(engine(encrypted, security(tls=tls), location), "get", 0, b"k"):
        assert type(error) is AuthenticationFailed
    tls["verify_hostname"] = False
    assert both_ways(engine(encrypted, security(tls=tls), location), "exists", 0, b"no") == [False, False]


def test_a_client_without_tls_is_not_served(encrypted: RunningNode) -> None:
    for error in both_ways(engine(encrypted, security()), "set", 0, b"k", VALUE, None, "always"):
        assert isinstance(error, ProtocolError | NoConnection)


def test_a_node_without_tls_is_not_trusted(guarded: RunningNode, certificates: Certificates) -> None:
    location = guarded.location.replace("keyspace://", "keyspaces://")
    found = engine(guarded, security(tls={"ca": certificates.ca}), location)
    for error in both_ways(found, "set", 0, b"k", VALUE, None, "always"):
        assert isinstance(error, ProtocolError | NoConnection)


def test_clients_that_must_show_a_certificate(certificates: Certificates) -> None:
    cert, key = certificates.issue("client", "client")
    foreign_cert, foreign_key = certificates.issue("foreign", "client", certificates.strangers)
    with running_node(**certificates.node_options(), tls_ca=certificates.ca) as node:
        tls = {"ca": certificates.ca}
        good = engine(node, security(None, tls=tls | {"cert": cert, "key": key}))
        assert both_ways(good, "exists", 0, b"no") == [False, False]
        for shown in ({}, {"cert": foreign_cert, "key": foreign_key}):
            for error in both_ways(engine(node, security(None, tls=tls | shown)), "get", 0, b"k"):
                assert isinstance(error, KeyspaceError)


def serial_number(node: RunningNode, ca: str) -> int:
    host, _, port = node.address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection((host, int(port)), 20) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        return int(tls.getpeercert()["serialNumber"], 16)


def test_sighup_reads_the_certificate_again(certificates: Certificates, tmp_path: Path) -> None:
    own = Certificates(tmp_path)
    with running_node(**own.node_options()) as node:
        first = serial_number(node, own.ca)
        found = engine(node, security(None, tls={"ca": own.ca}))
        assert not found.execute("exists", 0, b"no")
        own.issue("node", "127.0.0.1")
        node.send_signal(signal.SIGHUP)
        await_condition(lambda: serial_number(node, own.ca) != first, 30)
        second = serial_number(node, own.ca)
        Path(own.cert).write_text("rubbish")
        node.send_signal(signal.SIGHUP)
        await_condition(lambda: "stays as it was" in node.errors(), 30)
        assert serial_number(node, own.ca) == second
        assert not found.execute("exists", 0, b"no")  # the connection of before goes on
        found.close()
