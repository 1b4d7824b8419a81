"""What a node counts about itself, and the figures in Prometheus's text format.

Counting is on the way of every request, so it is plain additions; everything else is read when somebody asks.
"""

from __future__ import annotations

import os
import resource
import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final

from django_keyspace import __version__

BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histograms."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many observations there were up to each bound."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    @property
    def observations(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Metrics:
    """Counters of one node, since it started.

    Attributes:
        requests: by operation.
        errors: answers that were not "ok", by code.
        connections: clients that came.
        refused: connections that were ended by the node, by code.
        writes: writes that were done.
        groups: how long each group of writes took, from the log's hand to its answers.
        loop_lag: how late the event loop was for a timer.
    """

    def __init__(self) -> None:
        self.started_s = monotonic()
        self.requests: defaultdict[str, int] = defaultdict(int)
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.connections = 0
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.writes = 0
        self.groups = Histogram()
        self.loop_lag = Histogram()

    def group_written(self, calls: int, seconds: float) -> None:
        """Count a group of writes."""
        self.writes += calls
        self.groups.observe(seconds)

    @property
    def uptime_s(self) -> float:
        """Seconds since the node started."""
        return monotonic() - self.started_s

    def text(
        self,
        gauges: Mapping[str, float],
        store: Mapping[str, Any],
        counters: Mapping[str, int],
        cluster: Mapping[str, Any] | None = None,
    ) -> str:
        """Everything in Prometheus's text format.

        Arguments:
            gauges: figures of the moment, by name and help text: see :data:`GAUGES`.
            store: what the operation ``status`` answers.
            counters: the store's own counters.
            cluster: what ``control.describe_cluster`` says; None for a node that runs alone.
        """
        lines = _family("info", "gauge", "The node's release.", [({"release": __version__}, 1)])
        lines += _family("uptime_seconds", "gauge", "Seconds since the node started.", [({}, round(self.uptime_s, 3))])
        lines += _family("requests_total", "counter", "Requests by operation.", _by("operation", self.requests))
        lines += _family("errors_total", "counter", "Answers that are errors, by code.", _by("code", self.errors))
        lines += _family("connections_total", "counter", "Clients that came.", [({}, self.connections)])
        lines += _family(
            "connections_refused_total",
            "counter",
            "Connections that the node ended, by code.",
            _by("code", self.refused),
        )
        lines += _family("writes_total", "counter", "Writes that were done.", [({}, self.writes)])
        for name, help_text in GAUGES.items():
            lines += _family(name, "gauge", help_text, [({}, gauges[name])])
        for name, help_text in STORE_FIGURES.items():
            lines += _family(f"store_{name}", "gauge", help_text, [({}, store[name])])
        for name, number in sorted(counters.items()):
            lines += _family(f"store_{name}_total", "counter", f"The store's counter {name}.", [({}, number)])
        if cluster is not None:
            lines += _cluster_lines(cluster)
        lines += _histogram("write_group_seconds", "How long groups of writes took.", self.groups)
        lines += _histogram("loop_lag_seconds", "How late the event loop was for a timer.", self.loop_lag)
        return "\n".join(lines) + "\n"


GAUGES: Final = {
    "connections": "Clients that are connected.",
    "pending_writes": "Writes that wait or are under way.",
    "pending_write_bytes": "The same, in bytes of their frames.",
    "ready": "1 while the node takes requests.",
    "oldest_reader_seconds": "For how long a process has been reading an old state of the store, which grows meanwhile.",
    "resident_bytes": "Memory of the process.",
    "cpu_seconds": "Processor time of the process.",
}
"""Figures of the moment."""

STORE_FIGURES: Final = {
    "records": "Records in the numbered databases.",
    "used_bytes": "Bytes of the pages that hold data.",
    "max_bytes": "The soft limit of used_bytes.",
    "file_bytes": "Size of the data file.",
    "map_bytes": "Address space of the data file.",
    "readers": "Reader slots in use.",
    "revision": "Number of the last write transaction.",
}
"""Figures of the store that are worth a line of their own."""


CLUSTER_FIGURES: Final = {
    "term": "The term of the consensus.",
    "commit": "The last entry that is known to be committed.",
    "applied": "The last entry that the store has applied.",
    "last_index": "The last entry of the log.",
    "log_ms": "The log clock, in milliseconds since the epoch.",
}
"""Figures of a node of a cluster."""


def _cluster_lines(cluster: Mapping[str, Any]) -> list[str]:
    role, leader = cluster["role"], cluster["leader"]
    lines = _family("cluster_role", "gauge", "1 for what this node is.", [({"role": role}, 1)])
    lines += _family("cluster_has_leader", "gauge", "1 while this node knows of a leader.", [({}, 1 if leader else 0)])
    for name, help_text in CLUSTER_FIGURES.items():
        lines += _family(f"cluster_{name}", "gauge", help_text, [({}, cluster[name])])
    members = [(member["name"], member["lag"]) for member in cluster["members"] if member["lag"] is not None]
    help_text = "Entries by which a member is behind, as the leader knows it."
    lines += _family("cluster_lag", "gauge", help_text, [({"member": name}, lag) for name, lag in members])
    heard_ms = cluster["heard_ms_ago"]
    samples: list[tuple[dict[str, str], float]] = [] if heard_ms is None else [({}, heard_ms / 1000)]
    return lines + _family("cluster_leader_contact_seconds", "gauge", "Time since the leader was heard.", samples)


def process_figures() -> dict[str, float]:
    """Memory and processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Kilobytes on Linux, bytes on macOS. The peak; where there is a better figure, it follows.
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    return {"resident_bytes": resident, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _by(label: str, counts: Mapping[str, int]) -> list[tuple[dict[str, str], float]]:
    return [({label: name}, number) for name, number in sorted(counts.items())]


def _family(name: str, kind: str, help_text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    full = f"keyspace_{name}"
    return [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}", *(_sample(full, *sample) for sample in samples)]


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(name: str, help_text: str, histogram: Histogram) -> list[str]:
    samples: list[str] = []
    so_far = 0
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        so_far += count
        samples.append(_sample(f"keyspace_{name}_bucket", {"le": bound}, so_far))
    samples.append(_sample(f"keyspace_{name}_sum", {}, round(histogram.total_s, 6)))
    samples.append(_sample(f"keyspace_{name}_count", {}, so_far))
    return [*_family(name, "histogram", help_text, []), *samples]
