"""Start a node: ``python -m django_keyspace.node --id n1 --listen 127.0.0.1:7080 --data DIR``.

``manage.py keyspace_node`` has the same flags and comes here too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.exceptions import ConfigurationError, KeyspaceError
from django_keyspace.node.config import (
    DURABILITY_DEFAULT,
    PORT_DEFAULT,
    NodeConfig,
    parse_listen,
    parse_size,
)
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.runtime import LocalLog
from django_keyspace.node.server import Server
from django_keyspace.operations import DATABASES_DEFAULT, VALUE_BYTES_MAX_DEFAULT
from django_keyspace.store import Store, open_store
from django_keyspace.store.options import DURABILITIES, MAX_BYTES_DEFAULT
from django_keyspace.wire import PROTOCOL_VERSION

logger = logging.getLogger("django_keyspace.node")

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2
LISTEN_DEFAULT: Final = f"127.0.0.1:{PORT_DEFAULT}"


def add_arguments(parser: argparse.ArgumentParser, defaults: Mapping[str, Any] | None = None) -> None:
    """Add a node's flags to a parser.

    Arguments:
        parser: where they go.
        defaults: values for flags that are not given, by their names in capitals (``ID``, ``LISTEN``, ``MAX_BYTES``).
    Raises:
        ConfigurationError: a default has a name that is none of the flags.
    """
    given = dict(defaults or {})

    def flag(name: str, default: Any, **options: Any) -> None:
        options["help"] += f" Default: {default}." if default is not None else ""
        word = name.lstrip("-").replace("-", "_").upper()
        parser.add_argument(name, default=given.pop(word, default), **options)

    flag("--id", None, metavar="NAME", help="The node's name. It stays with the data folder.")
    flag(
        "--listen",
        LISTEN_DEFAULT,
        metavar="HOST:PORT",
        help="Address for clients; loopback only in this release. Port 0 takes a free port.",
    )
    flag("--data", None, metavar="DIR", help="The data folder; made if it does not exist.")
    flag(
        "--durability",
        DURABILITY_DEFAULT,
        choices=DURABILITIES,
        help="What an answered write has survived. commit: a power cut. interval and none: the end of this process; "
        "interval also syncs to the disk once a second.",
    )
    flag(
        "--max-bytes",
        MAX_BYTES_DEFAULT,
        metavar="BYTES",
        help="Size at which the store evicts cache entries, and refuses other writes. Takes K, M, G.",
    )
    flag("--databases", DATABASES_DEFAULT, type=int, metavar="N", help="Number of databases.")
    flag(
        "--value-bytes-max",
        VALUE_BYTES_MAX_DEFAULT,
        metavar="BYTES",
        help="Largest value. Takes K, M, G.",
    )
    if given:
        raise ConfigurationError(f"A node has no setting {', '.join(sorted(map(repr, given)))}.")


def config_from(options: Mapping[str, Any]) -> NodeConfig:
    """The checked configuration from parsed flags.

    Arguments:
        options: what the parser of :func:`add_arguments` found, as a mapping.
    Raises:
        ConfigurationError: a value is missing or not legal.
    """
    for name in ("id", "data"):
        if not options[name]:
            raise ConfigurationError(f"The node needs --{name}.")
    host, port = parse_listen(str(options["listen"]))
    return NodeConfig(
        node_id=str(options["id"]),
        host=host,
        port=port,
        data=os.fspath(options["data"]),
        durability=options["durability"],
        max_bytes=parse_size(str(options["max_bytes"])),
        databases=options["databases"],
        value_bytes_max=parse_size(str(options["value_bytes_max"])),
    )


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM or SIGINT, then end in good order.

    Arguments:
        config: what the node was told.
    Raises:
        KeyspaceError: the node could not start.
    """
    folder = DataFolder(config.data, config.node_id)
    try:
        store = open_store(folder.store_path, config.store_options())
        try:
            # Opens it: whatever is wrong with it shows before a client comes.
            store.read("status")
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve(config, folder, store))
        finally:
            store.shutdown()
    finally:
        folder.release()
    logger.info("Node %s has stopped; the store is synced and closed", config.node_id)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(config: NodeConfig, folder: DataFolder, store: Store) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    _on_signals(loop, stopping)
    log = LocalLog(store, loop, may_write_here=config.durability != "commit")
    server = Server(config, store, log, store.limits)
    address = await server.listen()
    unix = await server.listen_unix(folder.socket_path)
    folder.announce(address)
    # What exists now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    _print_block(config, folder, address, unix, loop)
    await stopping.wait()
    logger.info("Node %s is stopping: it answers what is under way", config.node_id)
    await server.stop()


def _on_signals(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stopping.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))


def _print_block(
    config: NodeConfig, folder: DataFolder, address: str, unix: bool, loop: asyncio.AbstractEventLoop
) -> None:
    """Say what runs here. The last line is the address: whoever reads it can connect."""
    facts = [
        ("release", f"{__version__}, protocol {PROTOCOL_VERSION}, {type(loop).__module__.partition('.')[0]}"),
        ("data folder", str(folder.path)),
        ("durability", config.durability),
        ("store", f"{config.databases} databases, at most {config.max_bytes:,} bytes"),
        ("security", "none: this machine only, no secret, no TLS"),
        ("unix socket", folder.socket_path if unix else "none"),
        ("process", str(os.getpid())),
        ("address", f"keyspace://{address}/0"),
    ]
    lines = [f"Node {config.node_id} is ready", *(f"  {name:<12} {value}" for name, value in facts)]
    # Whoever started the node may have closed the pipe: that is no reason not to serve.
    with contextlib.suppress(OSError):
        print("\n".join(lines), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Arguments:
        arguments: the flags, ``sys.argv`` if None.
    Returns:
        The exit code: 0 after an orderly end, 1 if the store or the folder failed, 2 for a wrong configuration.
    """
    parser = argparse.ArgumentParser(
        prog="python -m django_keyspace.node", description="Serve a keyspace store to clients on this machine."
    )
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"django-keyspace {__version__}")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        run(config_from(vars(options)))
    except ConfigurationError as error:
        print(f"The node did not start. {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except KeyspaceError as error:
        print(f"The node did not start or had to end. {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
