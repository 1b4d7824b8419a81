"""The network between nodes, and between clients and nodes: it loses, delays, doubles, overtakes and cuts.

Frames travel as bytes, so that two nodes never share an object; what arrives must be equal to what was sent, or else the
frame was not made of plain values. A frame finds its receiver by its id when it arrives: if another node has taken that one's
place on the host, the handshake would have refused it, and it is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from tests.sim.world import Violated, World

BASE_DELAY_US = 300
SPIKE_US = 400_000


@dataclass(frozen=True)
class Weather:
    """What the network does to each frame, as shares of one."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    spike: float = 0.0


class Network:
    """All links.

    Arguments:
        world: time and chance.
        deliver: takes (sender's host, sender's id, receiver's host, receiver's id, frame) when a frame arrives.

    Attributes:
        weather: what happens to frames now.
        cut: pairs of hosts between which nothing gets through, in that direction. Clients have hosts, too.
    """

    def __init__(self, world: World, deliver: Callable[[str, str, str, str, Any], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._random = world.random("network")
        self._last_us: dict[tuple[str, str], int] = {}
        self._epochs: dict[tuple[str, str], int] = {}
        self.weather = Weather()
        self.cut: set[tuple[str, str]] = set()
        self.slow: dict[tuple[str, str], int] = {}

    def send(self, host: str, sender: str, to_host: str, to: str, frame: tuple[Any, ...]) -> None:
        """Send a frame from a node to another one."""
        data = msgpack.packb(frame)
        self._world.taste(data)
        counts, weather, chance = self._world.counts, self.weather, self._random.random
        counts["frames"] += 1
        if (host, to_host) in self.cut:
            counts["cut_frame"] += 1
            return
        if weather.loss and chance() < weather.loss:
            counts["loss"] += 1
            return
        self._travel(host, sender, to_host, to, data, frame, weather.reorder)
        if weather.duplicate and chance() < weather.duplicate:
            counts["duplicate"] += 1
            self._travel(host, sender, to_host, to, data, frame, 1.0)

    def _travel(
        self, host: str, sender: str, to_host: str, to: str, data: bytes, frame: tuple[Any, ...], reorder: float
    ) -> None:
        link = (host, to_host)
        arrives_us = self._world.now_us + self.delay_us(link)
        last_us = self._last_us.get(link, 0)
        if arrives_us < last_us:
            if reorder and self._random.random() < reorder:
                self._world.counts["reorder"] += 1
            else:
                arrives_us = last_us
        self._last_us[link] = max(arrives_us, last_us)
        epoch = self._epochs.get(link, 0)
        self._world.at(arrives_us - self._world.now_us, None, self._arrive, link, epoch, sender, to, data, frame)

    def delay_us(self, link: tuple[str, str]) -> int:
        """How long the next frame on a link takes."""
        chance = self._random.random()
        delay_us = BASE_DELAY_US + int(chance * chance * 1_500) + self.slow.get(link, 0)
        if self.weather.spike and self._random.random() < self.weather.spike:
            self._world.counts["spike"] += 1
            delay_us += int(self._random.random() * SPIKE_US)
        return delay_us

    def _arrive(
        self, link: tuple[str, str], epoch: int, sender: str, to: str, data: bytes, frame: tuple[Any, ...]
    ) -> None:
        if epoch != self._epochs.get(link, 0) or link in self.cut:
            self._world.counts["lost_in_flight"] += 1
            return
        received = msgpack.unpackb(data, use_list=False)
        if received != frame:
            raise Violated(
                f"A frame of {sender} is not made of plain values: {frame!r:.200} arrives as {received!r:.200}"
            )
        self._deliver(link[0], sender, link[1], to, received)

    def break_link(self, one: str, other: str) -> None:
        """The connections between two hosts break: what is under way is lost."""
        for link in ((one, other), (other, one)):
            self._epochs[link] = self._epochs.get(link, 0) + 1

    def heal(self) -> None:
        """Mend everything."""
        self.weather = Weather()
        self.cut = set()
        self.slow = {}
