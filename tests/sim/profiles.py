"""What a seed draws: how large the cluster is, how its parts are set up, and which faults happen how often."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from tests.sim.network import Weather

CLEAR = Weather()


@dataclass(frozen=True)
class Profile:
    """What happens in a run.

    Attributes:
        name: of the mix.
        weather: what the network does to frames while there is trouble.
        faults: weights of the things that the evil spirit does, by name: see ``faults.py``.
        fault_every_ms: mean time between two of them.
        lose_requests: share of clients' requests, and of the answers, that get lost.
    """

    name: str
    weather: Weather = CLEAR
    faults: dict[str, float] = field(default_factory=dict)
    fault_every_ms: int = 1_000
    lose_requests: float = 0.0


NETWORK = {"partition": 3.0, "one_way": 2.0, "partial": 2.0, "isolate_leader": 3.0, "slow_link": 1.0, "break_link": 2.0}
PROCESS = {"kill": 3.0, "kill_writing": 2.0, "pause": 3.0, "pause_leader": 3.0, "all_down": 0.5, "shutdown": 1.0}
POWER = {"power_cut": 2.0, "power_cut_writing": 5.0, "power_cut_somewhere": 2.0, "all_power_cut": 0.6}
DISK = {"eio_write": 1.5, "eio_sync": 2.0, "eio_read": 1.0, "enospc": 2.0, "slow_disk": 3.0, "bit_flip": 1.5}
CLOCK = {"drift": 2.0, "wall_jump": 3.0}
MEMBERS = {"transfer": 3.0, "stop_leading": 1.0, "grow": 2.0, "shrink": 2.0, "wipe": 1.5}
OVERLAPS = {"slow_apply": 1.0}

PROFILES = (
    (1.0, Profile("calm", faults={"transfer": 1.0, **CLOCK}, fault_every_ms=2_000)),
    (
        2.0,
        Profile(
            "network", Weather(loss=0.03, duplicate=0.03, reorder=0.3, spike=0.01), NETWORK, 600, lose_requests=0.03
        ),
    ),
    (2.0, Profile("crash", faults={**PROCESS, **POWER}, fault_every_ms=700, lose_requests=0.01)),
    (2.0, Profile("disk", faults={**DISK, **POWER}, fault_every_ms=700)),
    (2.0, Profile("membership", Weather(loss=0.01), {**MEMBERS, "kill": 1.0, "partition": 1.0}, 600)),
    (1.0, Profile("clocks", Weather(spike=0.01), {**CLOCK, "pause_leader": 3.0, "isolate_leader": 2.0}, 500, 0.02)),
    (
        4.0,
        Profile(
            "everything",
            Weather(loss=0.02, duplicate=0.02, reorder=0.2, spike=0.005),
            {**NETWORK, **PROCESS, **POWER, **DISK, **CLOCK, **MEMBERS, **OVERLAPS},
            600,
            lose_requests=0.02,
        ),
    ),
)
"""Weights and mixes."""


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides before the first event.

    Attributes:
        profile: which faults.
        nodes: how many voters there are at the beginning.
        trouble_ms: how long clients work and faults happen, before everything is healed.
        clients: how many.
        think_ms: a client's mean time between two calls.
        leases: whether leases are configured; clocks then keep within the drift.
        drift_max: how much clocks differ in speed.
        snapshot_entries, tail_entries: when snapshots are made, and what of the log stays then.
        segment_bytes: of a journal file.
        max_bytes: the store's soft limit.
        tight: clients write large values, so that the store is full now and then.
        timed: clients mostly write and read values with timeouts.
        digest_every: how many entries there are between two comparisons of whole stores.
        session_ms: how long a session lives after its last use.
        append_entries, inflight, entries_max, apply_here_bytes: limits of the core and the runtime.
    """

    profile: Profile
    nodes: int
    trouble_ms: int
    clients: int
    think_ms: int
    leases: bool
    drift_max: float
    snapshot_entries: int
    tail_entries: int
    segment_bytes: int
    max_bytes: int
    tight: bool
    timed: bool
    digest_every: int
    session_ms: int
    append_entries: int
    inflight: int
    entries_max: int
    apply_here_bytes: int


def draw(random: Random, name: str | None = None) -> Plan:
    """Draw a plan; with a profile's name, one of that."""
    profiles = [profile for _, profile in PROFILES if name in (None, profile.name)]
    weights = [weight for weight, profile in PROFILES if profile in profiles]
    profile = random.choices(profiles, weights)[0]
    if random.random() < 0.2:  # of some seeds, only some of the faults: what is rare in the mix comes together there
        chosen = {name: weight for name, weight in profile.faults.items() if random.random() < 0.4}
        profile = replace(profile, faults=chosen or profile.faults)
    tight = random.random() < 0.12
    leases = random.random() < 0.5
    return Plan(
        profile=profile,
        nodes=random.choices((1, 2, 3, 4, 5), (1, 0.5, 10, 0.5, 4))[0],
        trouble_ms=random.randint(5_000, 11_000),
        clients=random.randint(2, 5),
        think_ms=random.choice((60, 150, 300)),
        leases=leases,
        drift_max=0.04 if leases else random.choice((0.0, 0.2, 0.35)),
        snapshot_entries=random.choice((15, 40, 100, 100_000)),
        tail_entries=random.choice((0, 5, 30)),
        segment_bytes=random.choice((16, 32, 64)) * 1024,
        max_bytes=2**20 if tight else 2**24,
        tight=tight,
        timed=random.random() < 0.12,
        digest_every=random.choice((5, 20)),
        session_ms=random.choice((4_000, 3_600_000, 3_600_000)),
        append_entries=random.choice((1, 4, 1024)),
        inflight=random.choice((1, 4, 64)),
        entries_max=random.choice((1, 4, 16)),
        apply_here_bytes=random.choice((1, 2_000, 128 * 1024)),
    )
