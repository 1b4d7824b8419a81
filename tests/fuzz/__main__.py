"""``python -m tests.fuzz --seconds 60 --target connection``: look for inputs that upset what reads them.

Guided by coverage, with atheris (``pip install atheris``); ``--without-atheris`` changes known inputs at random instead. An
input that is found is saved in the folder for temporary files; put it into ``tests/fuzz/corpus/TARGET/``, where the tests
hold it for ever.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("frames", "connection", "hello", "client")
NO_ATHERIS = (
    "atheris, which guides the fuzzer by coverage, is not installed. Install it (pip install atheris; Linux and macOS), or "
    "add --without-atheris to change known inputs at random."
)
MEMORY_MB_MAX = 1024
INPUT_SECONDS_MAX = 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads bytes of others.")
    parser.add_argument("--seconds", type=int, default=60, help="How long, for each target (default: 60).")
    parser.add_argument("--target", choices=NAMES, action="append", help="One target (default: all, one by one).")
    parser.add_argument("--seed", type=int, help="Of all choices; a fresh one if it is not given.")
    parser.add_argument(
        "--found", type=Path, help="Folder for the inputs that reach something new; kept if it is given."
    )
    parser.add_argument("--without-atheris", action="store_true", help="Change known inputs at random.")
    parser.add_argument("--guided", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.without_atheris and importlib.util.find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return 2
    seed = secrets.randbits(31) if options.seed is None else options.seed
    if options.guided:
        return _guide(options.target[0], options.seconds, seed, options.guided)
    code = 0
    for target in options.target or NAMES:
        print(f"{target}: seed {seed}, {options.seconds} seconds", flush=True)
        if options.without_atheris:
            from .short import run

            print(f"{target}: {run(target, seed, seconds=options.seconds):,} inputs, nothing found")
        else:
            code = _start_guided(target, options.seconds, seed, options.found) or code
    return code


def _start_guided(target: str, seconds: int, seed: int, found: Path | None) -> int:
    """Run one target in a process of its own: libFuzzer ends the process that it is in."""
    with tempfile.TemporaryDirectory(prefix="keyspace-fuzz-") as scratch:
        folder = (found or Path(scratch)) / target
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.fuzz", "--target", target, "--seconds", str(seconds)]
        return subprocess.run([*command, "--seed", str(seed), "--guided", str(folder)], check=False).returncode


def _guide(target: str, seconds: int, seed: int, folder: str) -> int:
    import atheris

    # Whatever was imported before is not seen: this module's own imports are few for that reason.
    with atheris.instrument_imports(include=["django_keyspace"]):
        from .mutate import CORPUS, INPUT_BYTES_MAX, change_frames, mutate
        from .seeds import seeds
        from .targets import TARGETS

    for number, data in enumerate(seeds(target)):
        (Path(folder) / f"seed-{number}").write_bytes(data)
    known = CORPUS / target
    known.mkdir(parents=True, exist_ok=True)

    def change(data: bytes, size_max: int, change_seed: int) -> bytes:
        rng = random.Random(change_seed)
        if rng.random() < 0.3:
            return mutate(data, rng)[:size_max]
        if rng.random() < 0.6:
            return change_frames(data, rng, lambda body: atheris.Mutate(body, len(body) + 64))[:size_max]
        return bytes(atheris.Mutate(data, size_max))

    flags = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={INPUT_BYTES_MAX}", "-print_final_stats=1"]
    flags += [f"-artifact_prefix={Path(tempfile.gettempdir()) / f'keyspace-fuzz-{target}-'}"]
    flags += [f"-rss_limit_mb={MEMORY_MB_MAX}", f"-timeout={INPUT_SECONDS_MAX}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, folder, str(known)], TARGETS[target], custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
