"""Small servers that speak as much Redis and memcached as an import needs, for tests on machines without the real ones."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote_from_bytes

SCAN_STEP = 7


class FakeRedis(socketserver.StreamRequestHandler):
    """RESP2: SCAN, GET, PTTL, DBSIZE, PING. ``server.records`` is key -> (value or None for another type, ttl in ms or -1)."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            self.wfile.write(self.answer([words[0].upper(), *words[1:]]))

    def answer(self, words: list[bytes]) -> bytes:
        records = self.server.records
        keys = sorted(records)
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"DBSIZE"]:
                return b":%d\r\n" % len(keys)
            case [b"SCAN", cursor, *_]:
                begin = int(cursor)
                self.server.scanned.append(begin)
                end = begin + SCAN_STEP
                found = b"".join(bulk(key) for key in keys[begin:end])
                number = len(keys[begin:end])
                return b"*2\r\n" + bulk(b"%d" % (end if end < len(keys) else 0)) + b"*%d\r\n" % number + found
            case [b"GET", key]:
                if key == self.server.breaks_at:
                    raise ConnectionAbortedError("as the test wants it")
                value = records[key][0]
                return bulk(value) if value is not None else b"-WRONGTYPE Operation against a key\r\n"
            case [b"PTTL", key]:
                return b":%d\r\n" % records[key][1]
        return b"-ERR unknown command\r\n" if words[0] not in (b"CLIENT", b"AUTH") else b"+OK\r\n"


def bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)


class FakeMemcached(socketserver.StreamRequestHandler):
    """version, lru_crawler metadump, get. ``server.records`` is key -> (value, epoch seconds or -1)."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            match line.split():
                case [b"version"]:
                    self.wfile.write(b"VERSION 1.6.18\r\n")
                case [b"lru_crawler", b"metadump", b"all"]:
                    for key, (value, expires_s) in self.server.records.items():
                        quoted = quote_from_bytes(key).encode()
                        self.wfile.write(
                            b"key=%s exp=%d la=1 cas=1 fetch=no cls=1 size=%d\n" % (quoted, expires_s, len(value))
                        )
                    self.wfile.write(self.server.end)
                case [b"get", *keys]:
                    for key in keys:
                        value = self.server.records[key][0]
                        self.wfile.write(b"VALUE %s 0 %d\r\n%s\r\n" % (key, len(value), value))
                    self.wfile.write(b"END\r\n")
                case _:
                    self.wfile.write(b"ERROR\r\n")


class Server(socketserver.ThreadingTCPServer):
    """Serves one of the above on a free port; a client that breaks off is no error."""

    daemon_threads = True

    def __init__(self, handler: type, records: dict) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.records, self.scanned, self.breaks_at = records, [], None
        self.end = b"END\r\n"

    def handle_error(self, request, client_address) -> None:
        pass

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(handler: type, records: dict) -> Iterator[Server]:
    with Server(handler, records) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
