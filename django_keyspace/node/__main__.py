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
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from django_keyspace import __version__
from django_keyspace.exceptions import ConfigurationError, KeyspaceError, StorageError
from django_keyspace.node.beside import FORGET_MS, beside_alone
from django_keyspace.node.clustered import ClusterNode, is_clustered
from django_keyspace.node.config import NodeConfig
from django_keyspace.node.flags import add_arguments, config_from
from django_keyspace.node.folder import DataFolder
from django_keyspace.node.http import HttpServer, Pages
from django_keyspace.node.log import LocalLog
from django_keyspace.node.logs import set_up_logging
from django_keyspace.node.metrics import Metrics
from django_keyspace.node.open_files import limit_connections
from django_keyspace.node.operators import pages_of, watch_lag
from django_keyspace.node.scheduler import LoopScheduler
from django_keyspace.node.scripts import ScriptService, load_sources
from django_keyspace.node.server import Server, listening_socket, tls_of
from django_keyspace.store import Store, open_store
from django_keyspace.wire import PROTOCOL_VERSION

logger = logging.getLogger("django_keyspace.node")

EXIT_FAILED: Final = 1
EXIT_CONFIGURATION: Final = 2


def run(config: NodeConfig, *, attended: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then end in good order.

    Arguments:
        config: what the node was told.
        attended: whether to end when standard input is closed, too.
    Raises:
        KeyspaceError: the node could not start, or had to end.
    """
    config = replace(config, connections_max=limit_connections(config.connections_max))
    folder = DataFolder(config.data, config.node_id)
    try:
        if is_clustered(config, folder):
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve_cluster(config, folder, attended))
        else:
            _run_alone(config, folder, attended)
    finally:
        folder.release()
    logger.info("Node %s has stopped; the store is synced and closed", config.node_id)


def _run_alone(config: NodeConfig, folder: DataFolder, attended: bool) -> None:
    store = open_store(folder.store_path, config.store_options())
    try:
        # Opens it: whatever is wrong with it shows before a client comes.
        store.read("status")
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve_alone(config, folder, store, attended))
    finally:
        store.shutdown()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve_alone(config: NodeConfig, folder: DataFolder, store: Store, attended: bool) -> None:
    loop = asyncio.get_running_loop()
    metrics = Metrics()
    log = LocalLog(store, loop, may_write_here=config.durability != "commit", on_group=metrics.group_written)
    scripts = ScriptService(store, log, loop, load_sources(store, config.scripts))
    server = Server(config, store, log, store.limits, metrics, scripts)
    ending = _Ending(loop, server.reload, attended)
    pages = pages_of(server, lambda: store)
    scheduler = LoopScheduler(loop)
    beside = server.control.beside = beside_alone(config, folder.path, folder.store_path, store, scheduler)
    listening = listening_socket(config)
    try:
        if beside.begin():
            await asyncio.sleep(FORGET_MS / 1000)
        async with _serving(server, folder, pages, listening, [("durability", config.durability)]):
            beside.start()
            await ending.event.wait()
            logger.info("Node %s is stopping: it answers what is under way", config.node_id)
            await server.stop()
    finally:
        beside.stop()
        scheduler.stop()


async def _serve_cluster(config: NodeConfig, folder: DataFolder, attended: bool) -> None:
    loop = asyncio.get_running_loop()
    tls = tls_of(config)
    ending = _Ending(loop, tls.reload if tls is not None else None, attended)
    listening = listening_socket(config)
    node = ClusterNode(config, folder, tls, loop, ending.fail)
    if not await ending.comes_before(node.find_cluster(listening)):
        listening.close()
        return
    node.open()
    metrics, runtime = Metrics(), node.runtime
    runtime.on_group = metrics.group_written
    store = node.machine.store
    sources = load_sources(store, config.scripts)
    scripts = ScriptService(store, runtime, loop, sources, current=lambda: node.machine.store)
    server = Server(
        config, node, runtime, store.limits, metrics, scripts, cluster=runtime.cluster, links=node.peer_link, tls=tls
    )
    server.control.links = node.peers
    server.control.beside = node.beside
    pages = pages_of(server, lambda: node.machine.store, node)
    node.start()
    async with _serving(server, folder, pages, listening, node.facts()):
        await ending.event.wait()
        if ending.failure is not None:
            await node.abandon()
            raise StorageError(
                f"{ending.failure} See the log. What it had acknowledged is on its disk and on those of other nodes: start it "
                "again."
            )
        logger.info("Node %s is stopping: it hands over and answers what is under way", config.node_id)
        await node.hand_over()
        await server.stop()
        await node.stop()


@contextlib.asynccontextmanager
async def _serving(
    server: Server, folder: DataFolder, pages: Pages, listening: socket.socket, facts: Sequence[tuple[str, str]]
) -> AsyncIterator[None]:
    """Listen, say so, and have the pages of operators for as long as the block runs."""
    config = server.config
    address = await server.listen(listening)
    unix = await server.listen_unix(folder.socket_path)
    http = HttpServer(config, pages) if config.http is not None else None
    http_address = await http.listen() if http is not None else None
    watching = asyncio.get_running_loop().create_task(watch_lag(server.metrics))
    folder.announce(address)
    # What exists now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    _print_block(config, folder, address, folder.socket_path if unix else None, http_address, facts)
    try:
        yield
    finally:
        watching.cancel()
        if http is not None:
            await http.stop()


class _Ending:
    """When this process has to end, and why.

    Arguments:
        loop: the event loop.
        reload: what SIGHUP does, if anything.
        attended: whether the end of standard input is a reason.

    Attributes:
        event: set when it has to end.
        failure: why it cannot go on; None for an orderly end.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, reload: Callable[[], object] | None, attended: bool) -> None:
        self.event = asyncio.Event()
        self.failure: str | None = None
        _on_signals(loop, self.event, reload)
        if attended:
            _end_with_parent(loop, self.event)

    def fail(self, reason: str) -> None:
        """The node cannot go on."""
        self.failure = self.failure or reason
        self.event.set()

    async def comes_before(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something that may take for ever. False if the end came first. Raises what the work raises."""
        task = asyncio.ensure_future(work)
        end = asyncio.ensure_future(self.event.wait())
        try:
            await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            return task.done()
        finally:
            for future in (task, end):
                future.cancel()
            await asyncio.gather(task, end, return_exceptions=True)


def _on_signals(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event, reload: Callable[[], object] | None) -> None:
    if hasattr(signal, "SIGHUP") and reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stopping.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopping.set))


def _end_with_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """End when standard input is closed: whoever has started this process and held the other end is gone."""

    def look() -> None:
        try:
            if os.read(0, 4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # as good as closed
        loop.remove_reader(0)
        stopping.set()

    os.set_blocking(0, False)
    loop.add_reader(0, look)


def _print_block(
    config: NodeConfig,
    folder: DataFolder,
    address: str,
    unix: str | None,
    http: str | None,
    more: Sequence[tuple[str, str]],
) -> None:
    """Say what runs here. The last line is the address: whoever reads it can connect."""
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    scheme = "keyspaces" if config.tls_cert else "keyspace"
    certificates = ", clients show certificates" if config.tls_ca else ""
    facts = [
        ("release", f"{__version__}, protocol {PROTOCOL_VERSION}, {loop}"),
        ("data folder", str(folder.path)),
        *more,
        ("store", f"{config.databases} databases, at most {config.max_bytes:,} bytes"),
        ("secret", "clients must know it" if config.secret else "none"),
        ("tls", f"TLS 1.3{certificates}" if config.tls_cert else "none"),
        ("unix socket", unix or "none"),
        ("http", f"http://{http}/status" if http else "none"),
        ("process", str(os.getpid())),
        ("address", f"{scheme}://{address}/0"),
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
        prog="python -m django_keyspace.node", description="Serve a keyspace store to clients."
    )
    add_arguments(parser)
    parser.add_argument(
        "--attended", action="store_true", help="End when standard input is closed: for a child process."
    )
    parser.add_argument("--version", action="version", version=f"django-keyspace {__version__}")
    options = parser.parse_args(arguments)
    try:
        config = config_from(vars(options))
        set_up_logging(config.log_format)
        run(config, attended=options.attended)
    except ConfigurationError as error:
        print(f"The node did not start. {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except KeyspaceError as error:
        print(f"The node did not start or had to end. {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
