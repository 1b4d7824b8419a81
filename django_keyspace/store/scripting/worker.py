"""The process that runs Lua. It is started with this file's path, and imports nothing of the package.

It reads frames from its standard input and writes frames to its standard output: a length of 4 bytes, one letter, and what
belongs to it. It answers each order (``O``) with any number of questions about the database (``C``, each of which waits for
an answer) and one result (``R``) or failure (``X``). Its first frame says that it is ready (``K``), or why it is not (``E``).
It has no other way to anything, and ends when its input does.

Each script gets a Lua state of its own, which is gone before its result is sent: nothing of it is left for the next one. No
Python object is within a script's reach: the Lua around it (``lua/``) keeps the one function that asks questions to itself.
Should a script break out of Lua all the same, it finds a process that can open no file and no socket, and start no process.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

_LENGTH: Final = struct.Struct("<I")
_ORDER: Final = struct.Struct("<II")
"""Of an order: how many bytes of memory the script may use, and how many seconds of processor time."""
_MIB: Final = 2**20
_PRELUDE: Final = ("values.lua", "database.lua", "sandbox.lua")
"""Parts of one chunk, in this order."""


def read_frame() -> bytes:
    """The next frame from the host. The process ends if there is none."""
    (length,) = _LENGTH.unpack(_read(_LENGTH.size))
    return _read(length)


def _read(size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        data = os.read(0, min(size, _MIB))
        if not data:
            os._exit(0)
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


def write_frame(letter: bytes, data: bytes) -> None:
    """Send a frame to the host."""
    rest = memoryview(_LENGTH.pack(len(data) + 1) + letter + data)
    while rest:
        rest = rest[os.write(1, rest) :]


def ask(question: bytes) -> bytes:
    """What Lua calls: a question about the database, and its answer.

    It must not raise, for Lua would catch a Python object then: whatever goes wrong here ends the process.
    """
    try:
        write_frame(b"C", question)
        return read_frame()
    except BaseException:
        os._exit(3)


def refuse_attribute(owner: Any, name: Any, is_setting: bool) -> NoReturn:
    """Lupa asks this before Lua gets at an attribute of a Python object. Lua has none; this is the second door."""
    raise AttributeError("scripts have no Python")


class Libraries:
    """The shipped Lua files, read before the process gives up opening files.

    Arguments:
        folder: a folder with a folder of ``.lua`` files for each library. A file answers a table of functions.
        runtime_class: lupa's.

    Attributes:
        index: a line ``library.function file`` for each function.
    """

    def __init__(self, folder: str, runtime_class: Any) -> None:
        self._sources: dict[bytes, bytes] = {}
        lines = []
        for library in sorted(os.listdir(folder)):
            for name in sorted(os.listdir(os.path.join(folder, library))):
                with open(os.path.join(folder, library, name), "rb") as file:
                    source = file.read()
                path = f"{library}/{name}".encode()
                self._sources[path] = source
                functions = runtime_class(encoding=None).execute(source)
                lines += [b"%s.%s %s" % (library.encode(), function, path) for function in sorted(functions)]
        self.index = b"\n%s\n" % b"\n".join(lines)

    def fetch(self, path: bytes) -> bytes:
        """The source of a file, empty if there is none. What Lua calls: must not raise."""
        return self._sources.get(path, b"") if isinstance(path, bytes) else b""


def run(order: bytes, prelude: bytes, libraries: Libraries, lua: Any) -> tuple[bytes, bytes]:
    """Run one script in a Lua state of its own.

    Arguments:
        order: limits and request, as ``pool.py`` makes them.
        prelude: the files in ``lua/``, which begin and end each script.
        libraries: the shipped Lua.
        lua: the module ``lupa.lua54``.
    Returns:
        Letter and content of the last frame about it.
    """
    memory_bytes, cpu_s = _ORDER.unpack_from(order)
    _limit_cpu(cpu_s)
    try:
        runtime = lua.LuaRuntime(
            encoding=None,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=False,
            attribute_filter=refuse_attribute,
            max_memory=memory_bytes,
        )
        answer = runtime.execute(prelude, ask, libraries.fetch, libraries.index, order[_ORDER.size :])
    except lua.LuaMemoryError:
        return b"X", b"limit\0not enough memory"
    except MemoryError:
        return b"X", b"limit\0not enough memory"
    except lua.LuaError as error:
        return b"X", b"failed\0" + str(error).encode(errors="replace")[:1000]
    return answer[:1], answer[1:]


# ------------------------------------------------------------------------------------------------ limits of the process


def _limit(limits: Any, name: str, soft: int, hard: int) -> None:
    """Set a limit, as far as this system has it and does not have a lower one already."""
    number = getattr(limits, name, None)
    if number is None:
        return
    _, most = limits.getrlimit(number)
    if most != limits.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    try:
        limits.setrlimit(number, (soft, hard))
    except (OSError, ValueError):  # the other limits hold all the same
        return


def close_in(memory_bytes_max: int) -> None:
    """Give up files, sockets and processes, for good, and bound the memory of the process.

    Arguments:
        memory_bytes_max: the most that any script may have.
    """
    import resource

    used_bytes = 0
    try:
        with open("/proc/self/statm", "rb") as file:
            used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        pass
    if used_bytes:  # Lua's memory, and frames on their way in and out
        most = used_bytes + 4 * memory_bytes_max + 64 * _MIB
        _limit(resource, "RLIMIT_AS", most, most)
    _limit(resource, "RLIMIT_CORE", 0, 0)
    _limit(resource, "RLIMIT_FSIZE", 0, 0)
    _limit(resource, "RLIMIT_NPROC", 0, 0)
    _limit(resource, "RLIMIT_NOFILE", 0, 0)


def _limit_cpu(cpu_s: int) -> None:
    """Let the system end this process when a script has used so much processor time, should the host be gone by then."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    _limit(resource, "RLIMIT_CPU", int(usage.ru_utime + usage.ru_stime) + 1 + cpu_s, most)


def serve(read: Callable[[], bytes], handle: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    """Carry out orders until the input ends."""
    import gc

    write_frame(b"K", b"")
    while True:
        write_frame(*handle(read()))
        gc.collect(0)


def compiled(source: bytes, runtime_class: Any) -> bytes:
    """Lua's bytecode of our own source. A script's own is always text: bytecode that was forged can do anything."""
    code: bytes = runtime_class(encoding=None).execute(
        b"local source = ... return string.dump(assert(load(source, '=(django-keyspace)', 't')))", source
    )
    return code


def _source(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, "lua", name), "rb") as file:
        return file.read()


def main(arguments: list[str]) -> None:
    """Start the worker.

    Arguments:
        arguments: the folder that lupa lies in, the most memory that any script may have, in bytes.
    """
    lupa_folder, memory_bytes_max = arguments
    sys.path.append(lupa_folder)
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        from lupa import lua54

        prelude = compiled(b"".join(_source(here, name) for name in _PRELUDE), lua54.LuaRuntime)
        libraries = Libraries(os.path.join(here, "library"), lua54.LuaRuntime)
        run(_ORDER.pack(16 * _MIB, 60) + b"N", prelude, libraries, lua54)  # what is imported lazily is imported now
        close_in(int(memory_bytes_max))
    except Exception as error:
        write_frame(b"E", repr(error).encode(errors="replace"))
        return
    serve(read_frame, lambda order: run(order, prelude, libraries, lua54))


if __name__ == "__main__":
    main(sys.argv[1:])
