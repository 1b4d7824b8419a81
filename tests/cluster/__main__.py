"""``python -m tests.cluster --minutes 60``: trouble for real nodes, the long form."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path
from random import Random
from time import monotonic

from tests.sim.checker import BadHistory

from .nemesis.faults import FAULTS, NEED_DISKS, NEED_WIRES
from .nemesis.place import running_place, why_no_small_disks
from .nemesis.run import run
from .nemesis.verify import Broken

FAULTS_PER_ROUND = 8
DISK_BYTES = 64 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="Make trouble for a cluster of real nodes, and check every answer."
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="How long (default: 60).")
    parser.add_argument(
        "--seed", type=int, default=None, help="Of the first round; each round adds one. Fresh if not given."
    )
    parser.add_argument("--faults", default="", metavar="A,B", help=f"These, in this order, of {', '.join(FAULTS)}.")
    parser.add_argument("--nodes", type=int, default=0, help="So many (default: three, sometimes five).")
    parser.add_argument("--keep", type=Path, help="Have the histories written to this folder.")
    options = parser.parse_args()
    chosen = options.faults.split(",") if options.faults else []
    if unknown := [name for name in chosen if name not in FAULTS]:
        parser.error(f"there is no fault {', '.join(unknown)}")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    no_disks = why_no_small_disks()
    if no_disks:
        print(f"Disks are not filled: {no_disks}")
    began_s = monotonic()
    while True:
        random = Random(seed)
        has_disks = not no_disks and (random.random() < 0.3 or bool(set(chosen) & set(NEED_DISKS)))
        size = options.nodes or random.choice((3, 3, 3, 5))
        is_wired = bool(chosen) or random.random() < 0.6
        known = [
            name for name in FAULTS if (has_disks or name not in NEED_DISKS) and (is_wired or name not in NEED_WIRES)
        ]
        faults = chosen or random.choices(known, k=FAULTS_PER_ROUND)
        print(
            f"Seed {seed}: {size} nodes{', small disks' if has_disks else ''}{', wires' if is_wired else ''}",
            flush=True,
        )
        with tempfile.TemporaryDirectory(prefix="keyspace-nemesis-") as scratch:
            folder = options.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with running_place(
                    Path(scratch), size, disk_bytes=DISK_BYTES if has_disks else 0, is_wired=is_wired
                ) as place:
                    try:
                        result = run(place, seed, faults, folder, say=lambda line: print(line, flush=True))
                    except BaseException:
                        for name, node in place.nodes.items():
                            print(f"--- {name}\n{node.errors()[-4000:]}", file=sys.stderr)
                        raise
            except (Broken, BadHistory) as error:
                print(f"BROKEN with seed {seed}: {error}", file=sys.stderr)
                return 1
        print("\n".join(f"  {line}" for line in result.lines()), flush=True)
        seed += 1
        if monotonic() - began_s > options.minutes * 60:
            return 0


if __name__ == "__main__":
    sys.exit(main())
