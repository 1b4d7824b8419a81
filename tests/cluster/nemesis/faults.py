"""What may happen to a cluster. Each fault makes its trouble, waits for its effect, and leaves a whole cluster behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from django_keyspace.exceptions import KeyspaceError
from django_keyspace.testing.cluster import await_found

from .scene import TROUBLE_TIMEOUT_S, Scene
from .verify import Broken
from .wires import CLIENTS


def both(one: str, other: str) -> list[tuple[str, str]]:
    """Both directions between two."""
    return [(one, other), (other, one)]


# --- Ends of processes


def kill_leader(scene: Scene) -> None:
    name = scene.leader()
    scene.node(name).kill()
    scene.successor(name)
    scene.node(name).start()


def kill_leader_again_and_again(scene: Scene) -> None:
    for _ in range(3):
        name = scene.leader()
        scene.node(name).kill()
        scene.node(name).start()


def kill_follower(scene: Scene) -> None:
    name = scene.others(scene.leader())[0]
    scene.node(name).kill()
    scene.linger()
    scene.node(name).start()


def kill_most(scene: Scene) -> None:
    most = len(scene.place.nodes) // 2 + 1
    for name in scene.others("")[:most]:
        scene.node(name).kill()
    scene.linger()
    scene.place.start()


def kill_all(scene: Scene) -> None:
    for name in scene.others(""):
        scene.node(name).send_signal(signal.SIGKILL)
    for name in scene.place.nodes:
        scene.node(name).kill()
    scene.place.start()


def restart_each(scene: Scene) -> None:
    """What an upgrade does. It shows in no answer: `test_nemesis.py` holds clients against that."""
    for name in scene.others(""):
        _restart(scene, name)


def _restart(scene: Scene, name: str) -> None:
    if scene.node(name).stop() != 0:
        raise Broken(f"{name} did not end in good order: {scene.node(name).errors()[-2000:]}")
    scene.node(name).start()
    _caught_up(scene, name)


def upgrade_one(scene: Scene) -> None:
    """What comes after it happens to nodes of two releases, unless it was the last one."""
    older = [name for name in scene.others("") if name not in scene.place.upgraded]
    for name in older[:1]:
        scene.place.upgrade(name)
        _restart(scene, name)


def upgrade_each(scene: Scene) -> None:
    for name in scene.others(""):
        scene.place.upgrade(name)
    restart_each(scene)


def _caught_up(scene: Scene, name: str) -> None:
    """Wait until a node has about what the leader has, as whoever upgrades a cluster has to."""

    def look() -> bool | None:
        leader = scene.place.status(scene.leader())
        own = scene.place.status(name)
        if leader is None or own is None or own["leader"] is None:
            return None
        return own["applied"] >= leader["commit"] - 100 or None

    if await_found(look, TROUBLE_TIMEOUT_S) is None:
        raise Broken(f"{name} does not catch up: {scene.place.status(name)}")


def hand_over(scene: Scene) -> None:
    name = scene.leader()
    with contextlib.suppress(KeyspaceError):  # nobody may be near enough just now
        scene.place.ask(name, "transfer_leadership", None)


# --- Pauses


def freeze_leader(scene: Scene) -> None:
    """For longer than an election takes: another one leads, and this one does not know it when it wakes up."""
    name = scene.leader()
    with scene.frozen(name):
        scene.successor(name)
        scene.linger()


def freeze_leader_briefly(scene: Scene) -> None:
    with scene.frozen(scene.leader()):
        scene.linger(0.05, 0.5)


def freeze_follower(scene: Scene) -> None:
    with scene.frozen(scene.others(scene.leader())[0]):
        scene.linger(0.5, 1.5)


def freeze_all(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        for name in scene.others(""):
            stack.enter_context(scene.frozen(name))
        scene.linger(0.5, 1.0)


# --- Networks


def cut_off_leader(scene: Scene) -> None:
    """From the other nodes; clients still reach it."""
    name = scene.leader()
    with scene.cut(*(way for other in scene.others(name) for way in both(name, other))):
        scene.successor(name)
        scene.linger()


def cut_off_leader_from_all(scene: Scene) -> None:
    name = scene.leader()
    with scene.cut(*(way for other in [CLIENTS, *scene.others(name)] for way in both(name, other))):
        scene.successor(name)
        scene.linger()


def deafen_leader(scene: Scene) -> None:
    """The others hear it and it does not hear them: it must not go on to lead."""
    name = scene.leader()
    with scene.cut(*((other, name) for other in scene.others(name))):
        scene.successor(name)
        scene.linger()


def mute_leader(scene: Scene) -> None:
    """It hears the others, and they do not hear it."""
    name = scene.leader()
    with scene.cut(*((name, other) for other in scene.others(name))):
        scene.successor(name)
        scene.linger()


def deafen_follower(scene: Scene) -> None:
    """It stands for election again and again, and must not depose a leader whom the others hear."""
    name = scene.others(scene.leader())[0]
    with scene.cut(*((other, name) for other in scene.others(name))):
        scene.linger(1.0, 2.0)


def cut_one_pair(scene: Scene) -> None:
    """Leader and one follower do not reach each other, and everybody else reaches both."""
    name = scene.leader()
    with scene.cut(*both(name, scene.others(name)[0])):
        scene.linger(1.0, 2.0)


def cut_everywhere(scene: Scene) -> None:
    names = scene.others("")
    with scene.cut(*((one, other) for one in names for other in names)):
        scene.linger(1.0, 2.0)


def unplug_leader(scene: Scene) -> None:
    """Its own network card knows that there is nobody."""
    name = scene.leader()
    with scene.unplugged(name):
        scene.successor(name)
        scene.linger()


def unplug_follower(scene: Scene) -> None:
    name = scene.others(scene.leader())[0]
    with scene.unplugged(name):
        scene.linger(1.0, 2.0)


# --- Several at once


def freeze_leader_and_kill_follower(scene: Scene) -> None:
    name = scene.leader()
    other = scene.others(name)[0]
    with scene.frozen(name):
        scene.node(other).kill()
        scene.linger(0.5, 1.0)
    scene.node(other).start()


def kill_leader_of_a_cut_cluster(scene: Scene) -> None:
    name = scene.leader()
    other = scene.others(name)[0]
    with scene.cut(*((one, other) for one in scene.others(other))):
        scene.node(name).kill()
        scene.linger(0.5, 1.0)
    scene.node(name).start()


def restart_under_a_frozen_follower(scene: Scene) -> None:
    leader = scene.leader()
    one, *_ = scene.others(leader)
    with scene.frozen(one):
        scene.node(leader).kill()
        scene.node(leader).start()


# --- Disks


def wipe_follower(scene: Scene) -> None:
    """Its folder is gone; it joins again as a learner, and is promoted once it has everything."""
    place = scene.place
    name = scene.others(scene.leader())[0]
    scene.node(name).kill()
    for item in scene.node(name).data.iterdir():
        shutil.rmtree(item) if item.is_dir() else item.unlink()
    place.rejoin(name)

    def promoted() -> bool | None:
        leader = scene.leader()
        with contextlib.suppress(KeyspaceError):
            place.ask(leader, "change_member", "promote", name)
            return True
        status = place.status(leader)
        members = status["members"] if status is not None else []
        return any(member["name"] == name and member["role"] == "voter" for member in members) or None

    if await_found(promoted, TROUBLE_TIMEOUT_S) is None:
        raise Broken(f"{name} could not be promoted: {place.status(scene.leader())}")


def fill_disk_of_leader(scene: Scene) -> None:
    name = scene.leader()
    with _filled(scene, name):
        scene.successor(name)
        scene.linger()


def fill_disk_of_follower(scene: Scene) -> None:
    name = scene.others(scene.leader())[0]
    with _filled(scene, name):
        scene.linger(0.5, 1.0)


def hang_disk_of_leader(scene: Scene) -> None:
    """Another one leads after an election timeout. It may be silent itself: its file system may keep whoever writes waiting."""
    name = scene.leader()
    with scene.hanging(name):
        scene.successor(name)
        for other in scene.others(name):
            scene.reads_here(other)
        scene.linger(0.5, 1.5)


def hang_disk_of_follower(scene: Scene) -> None:
    """It holds up nothing: others answer writes and reads."""
    name = scene.others(scene.leader())[0]
    with scene.hanging(name):
        scene.linger(0.5, 1.0)
        scene.writes()
        for other in scene.others(name):
            scene.reads_here(other)


def hang_disks_of_most(scene: Scene) -> None:
    """No write is answered, and none is lost."""
    names = scene.others("")
    with contextlib.ExitStack() as stack:
        for name in names[: len(names) // 2 + 1]:
            stack.enter_context(scene.hanging(name))
        scene.linger(0.5, 2.0)
        for name in names[len(names) // 2 + 1 :]:
            scene.reads_here(name)
    scene.writes()


def kill_leader_with_hanging_disk(scene: Scene) -> None:
    """What it has told its disk and its disk has not done is not lost: nobody was told that it was done."""
    name = scene.leader()
    with scene.hanging(name):
        scene.linger(0.1, 0.5)
        scene.node(name).send_signal(signal.SIGKILL)
        scene.successor(name)
    scene.node(name).kill()
    scene.node(name).start()


def freeze_files_of_leader(scene: Scene) -> None:
    """As somebody does who takes a snapshot of its volume: it is silent meanwhile."""
    name = scene.leader()
    with scene.without_writes(name):
        scene.successor(name)
        scene.linger()


def freeze_files_of_follower(scene: Scene) -> None:
    with scene.without_writes(scene.others(scene.leader())[0]):
        scene.linger(0.5, 1.0)
        scene.writes()


def slow_disk_of_leader(scene: Scene) -> None:
    _slow(scene, scene.leader())


def slow_disk_of_follower(scene: Scene) -> None:
    _slow(scene, scene.others(scene.leader())[0])


def _slow(scene: Scene, name: str) -> None:
    """A disk that answers now and then, never for as long as an election takes."""
    for _ in range(10):
        with scene.hanging(name):
            scene.linger(0.05, 0.15)
        scene.linger(0.01, 0.05)
    scene.writes()


@contextlib.contextmanager
def _filled(scene: Scene, name: str) -> Iterator[None]:
    """A node's small disk has no room."""
    filler = scene.place.disks[name].folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65_536)
        _await_full(scene, name, True, filler)
        yield
    finally:
        filler.unlink()
    _await_full(scene, name, False, filler)


def _await_full(scene: Scene, name: str, is_full: bool, filler: Path) -> None:
    def look() -> bool | None:
        status = scene.place.status(name)
        if is_full and (status is None or not status["is_full"]):
            with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * 4096)  # a file that was removed meanwhile has made some room
        return (status is not None and status["is_full"] is is_full) or None

    if await_found(look, TROUBLE_TIMEOUT_S) is None:
        raise Broken(f"{name} with {'a full disk' if is_full else 'room again'} says {scene.place.status(name)}")


Fault = Callable[[Scene], None]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_leader, kill_leader_again_and_again, kill_follower, kill_most, kill_all, restart_each, upgrade_one, upgrade_each,
        hand_over, freeze_leader, freeze_leader_briefly, freeze_follower, freeze_all, cut_off_leader, cut_off_leader_from_all,
        deafen_leader, mute_leader, deafen_follower, cut_one_pair, cut_everywhere, unplug_leader, unplug_follower,
        freeze_leader_and_kill_follower, kill_leader_of_a_cut_cluster, restart_under_a_frozen_follower, wipe_follower,
        fill_disk_of_leader, fill_disk_of_follower, hang_disk_of_leader, hang_disk_of_follower, hang_disks_of_most,
        kill_leader_with_hanging_disk, freeze_files_of_leader, freeze_files_of_follower, slow_disk_of_leader,
        slow_disk_of_follower,
    )
}  # fmt: skip
NEED_DISKS = ("fill_disk_of_leader", "fill_disk_of_follower")
"""Faults for a cluster whose nodes have small disks of their own."""
NEED_HANGS = tuple(name for name in FAULTS if not {"hang", "hanging", "slow", "files"}.isdisjoint(name.split("_")))
"""Faults for a cluster whose nodes' disks can be made to hang."""
NEED_CABLES = ("unplug_leader", "unplug_follower")
"""Faults for a cluster whose nodes have networks of their own."""
NEED_CUTS = tuple(name for name, fault in FAULTS.items() if "cut" in fault.__code__.co_names)
"""Faults for a cluster between whose nodes something can be cut."""
