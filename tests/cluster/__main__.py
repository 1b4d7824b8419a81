"""``python -m tests.cluster --minutes 60``: trouble for real nodes, the long form."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from pathlib import Path
from random import Random
from time import monotonic

from tests.sim.checker import BadHistory

from .nemesis.disks import why_no_hanging_disks, why_no_small_disks
from .nemesis.faults import FAULTS, NEED_CABLES, NEED_CUTS, NEED_DISKS, NEED_HANGS
from .nemesis.namespaces import command_within, is_within, why_no_namespaces
from .nemesis.place import running_place
from .nemesis.run import run
from .nemesis.verify import Broken

FAULTS_PER_ROUND = 8
NETS = ("proxy", "namespaces", "plain")


def main() -> int:
    options = _options()
    if options.net == "namespaces" and not is_within():
        if (reason := why_no_namespaces()) is not None:
            print(f"No namespaces: {reason}", file=sys.stderr)
            return 2
        command, environment = command_within(
            [sys.executable, "-m", "tests.cluster", *sys.argv[1:]], mounts=_wants_disks(options.faults)
        )
        os.execvpe(command[0], command, environment)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    can_be_small = can_hang = _wants_disks(options.faults)
    if can_be_small:
        can_be_small, can_hang = _looks("filled", why_no_small_disks()), _looks("made to hang", why_no_hanging_disks())
    began_s = monotonic()
    while True:
        random = Random(seed)
        disks = _choose_disks(random, options.faults, can_be_small, can_hang)
        size = options.nodes or random.choice((3, 3, 3, 5))
        net = options.net or ("proxy" if options.faults or random.random() < 0.6 else "plain")
        faults = options.faults or random.choices(_known(disks, net), k=FAULTS_PER_ROUND)
        print(f"Seed {seed}: {size} nodes, net {net}{f', {disks} disks' if disks else ''}", flush=True)
        if not _round(seed, faults, size, disks, net, options.keep):
            return 1
        seed += 1
        if monotonic() - began_s > options.minutes * 60:
            return 0


def _options() -> argparse.Namespace:
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
    parser.add_argument(
        "--net",
        choices=NETS,
        help="What is between the nodes: a proxy that can hold everything back, namespaces in which the kernel loses packets, or "
        "nothing (default: the first, sometimes the last).",
    )
    options = parser.parse_args()
    options.faults = options.faults.split(",") if options.faults else []
    if unknown := [name for name in options.faults if name not in FAULTS]:
        parser.error(f"there is no fault {', '.join(unknown)}")
    if options.net != "namespaces" and (wanted := set(options.faults) & set(NEED_CABLES)):
        parser.error(f"{', '.join(sorted(wanted))} needs --net namespaces")
    return options


def _wants_disks(chosen: list[str]) -> bool:
    return not chosen or not set(chosen).isdisjoint((*NEED_DISKS, *NEED_HANGS))


def _looks(trouble: str, why_not: str | None) -> bool:
    if why_not is not None:
        print(f"Disks are not {trouble}: {why_not}")
    return why_not is None


def _choose_disks(random: Random, chosen: list[str], can_be_small: bool, can_hang: bool) -> str:
    """``hanging``, ``small``, or nothing."""
    luck = random.random()
    if can_hang and (not set(chosen).isdisjoint(NEED_HANGS) or (not chosen and luck < 0.3)):
        return "hanging"
    if can_be_small and (not set(chosen).isdisjoint(NEED_DISKS) or (not chosen and luck < 0.5)):
        return "small"
    return ""


def _known(disks: str, net: str) -> list[str]:
    """What may happen there."""
    missing = {
        *(NEED_DISKS if not disks else ()),
        *(NEED_HANGS if disks != "hanging" else ()),
        *(NEED_CUTS if net == "plain" else ()),
        *(NEED_CABLES if net != "namespaces" else ()),
    }
    return [name for name in FAULTS if name not in missing]


def _round(seed: int, faults: list[str], size: int, disks: str, net: str, keep: Path | None) -> bool:
    """One run. Returns: whether all is as it has to be."""
    with tempfile.TemporaryDirectory(prefix="keyspace-nemesis-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with running_place(Path(scratch), size, disks=disks, net=net) as place:
                try:
                    result = run(place, seed, faults, folder, say=lambda line: print(line, flush=True))
                except BaseException:
                    for name, node in place.nodes.items():
                        print(f"--- {name}\n{node.errors()[-4000:]}", file=sys.stderr)
                    raise
        except (Broken, BadHistory) as error:
            print(f"BROKEN with seed {seed}: {error}", file=sys.stderr)
            return False
    print("\n".join(f"  {line}" for line in result.lines()), flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
