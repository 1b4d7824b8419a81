"""One run: a cluster, its clients, and one fault after the other. At the end everything is checked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from time import monotonic

from tests.sim.checker import Report
from tests.sim.history import History, now_us

from .client import Orders
from .faults import FAULTS
from .place import Place
from .scene import Scene
from .verify import Broken, check_all, outcomes

ROOT = Path(__file__).resolve().parents[3]
PATIENT_MS = 60_000
IMPATIENT_MS = 400
CLIENT_END_S = 90
Say = Callable[[str], None]


@dataclass
class Result:
    """What came of a run.

    Attributes:
        faults: how often each happened.
        patient: outcomes of the calls of clients that wait long.
        impatient: of those that do not: their calls may end without an answer.
        errors: codes of what patient clients were told instead of an answer.
        longest_gap_ms: the longest time in which no write was acknowledged.
        checked: what the checker has looked at.
    """

    faults: Counter[str] = field(default_factory=Counter)
    patient: Counter[str] = field(default_factory=Counter)
    impatient: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    longest_gap_ms: int = 0
    checked: Report = field(default_factory=Report)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"faults: {', '.join(f'{name} {count}' for name, count in sorted(self.faults.items()))}",
            f"patient clients: {dict(self.patient)}, errors {dict(self.errors)}; impatient: {dict(self.impatient)}",
            f"longest time without an acknowledged write: {self.longest_gap_ms:,} ms",
            f"checked: {self.checked.events:,} calls in {self.checked.parts:,} groups, the largest of {self.checked.largest:,}: "
            f"{self.checked.verdict}",
        ]


def run(place: Place, seed: int, faults: Sequence[str], folder: Path, say: Say = lambda line: None) -> Result:
    """Do the faults one after the other while clients work, and check what they have seen.

    Arguments:
        place: a cluster with nothing in its store.
        seed: of all choices. What comes of them depends on the machine's timing as well.
        faults: names of ``FAULTS``.
        folder: where the histories go.
        say: takes lines about how it goes.
    Raises:
        Broken, BadHistory: the cluster has not kept its promises.
    """
    random, result = Random(seed), Result()
    began_s = monotonic()
    with _clients(place, random, folder) as files:
        scene = Scene(place, random)
        for name in faults:
            say(f"{monotonic() - began_s:6.1f} s  {name}")
            FAULTS[name](scene)
            place.start()  # whoever was left behind
            for each in place.nodes:
                scene.follows(each) if each != scene.leader() else None
            result.faults[name] += 1
    say(f"{monotonic() - began_s:6.1f} s  the clients have ended; now everything is checked")
    history = History.merge(History.read(file) for file in files)
    patient = [event for event in history.events if not event.client.startswith("impatient")]
    result.patient = outcomes(patient)
    result.errors = Counter(str(event.result) for event in patient if event.outcome in ("refused", "unknown"))
    result.impatient = outcomes(event for event in history.events if event.client.startswith("impatient"))
    writes_us = sorted(
        event.returned_us for event in history.events if event.outcome == "ok" and event.call[0] == "set"
    )
    result.longest_gap_ms = max((later - earlier for earlier, later in pairwise(writes_us)), default=0) // 1000
    result.checked = check_all(place, history)
    if result.errors:
        raise Broken(f"Clients that wait long enough were not answered: {dict(result.errors)}")
    return result


@contextlib.contextmanager
def _clients(place: Place, random: Random, folder: Path) -> Iterator[list[Path]]:
    """Client processes at work; at the end their histories are in the files."""
    began_us = now_us()
    orders = [
        Orders(
            name, place.location, random.getrandbits(32), str(folder / f"{name}.jsonl"), kind, workers, timeout_ms, began_us,
            place.options.get("secret"),
        )
        for name, kind, workers, timeout_ms in (
            ("threads", "threads", 2, PATIENT_MS),
            ("tasks", "tasks", 3, PATIENT_MS),
            ("impatient", "threads", 2, IMPATIENT_MS),
        )
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for order in orders:
            command = [sys.executable, "-m", "tests.cluster.nemesis.client", order.dump()]
            processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
            )
        for process in processes:
            _expect(process, b"ready")
        yield [Path(order.file) for order in orders]
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in processes:
            _expect(process, b"done")
            if process.wait(CLIENT_END_S) != 0:
                raise Broken(f"A client process has failed with exit code {process.returncode}.")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _expect(process: subprocess.Popen[bytes], word: bytes) -> None:
    line = process.stdout.readline() if process.stdout is not None else b""
    if line.strip() != word:
        raise Broken(f"A client process said {line!r} instead of {word!r}; its error output says why.")
