"""A client process that counts all the time: ``python -P writer.py LOCATION SECRET KEY``, of whichever release is on its path.

It says ``ready``, works until its standard input ends, and says what came of it, as JSON. It knows nothing but the package.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from django_keyspace import __version__
from django_keyspace.addresses import parse_location
from django_keyspace.backend.transport import RemoteEngine
from django_keyspace.exceptions import KeyspaceError
from django_keyspace.security import make_security
from django_keyspace.wire import PROTOCOL_VERSION

TIMEOUT_MS = 60_000
PAUSE_S = 0.005


def main() -> int:
    location, secret, key = sys.argv[1:]
    security = make_security(uses_tls=False, secret=secret)
    engine = RemoteEngine(
        parse_location(location).endpoints, timeout_ms=TIMEOUT_MS, leader_timeout_ms=TIMEOUT_MS, security=security
    )
    stop, counted, errors = threading.Event(), 0, []
    end = threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True)
    end.start()
    print("ready", flush=True)
    while not stop.is_set():
        try:
            counted += 1
            answer = engine.execute("incr", 0, key.encode(), 1, 0, None, 0)
            if answer != counted:
                errors.append(f"count {counted} was answered {answer}")
            engine.execute("at", "dirty", 0, None, ("get", 0, key.encode()))
        except KeyspaceError as error:
            errors.append(f"{type(error).__name__}: {error}")
        time.sleep(PAUSE_S)
    engine.close()
    print(json.dumps({"counted": counted, "errors": errors, "release": __version__, "protocol": PROTOCOL_VERSION}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
