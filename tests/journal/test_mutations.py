"""That the ordeal notices: with one rule of the journal switched off, one of its first seeds fails.

Each case names the rule of consensus that the switched-off line keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_keyspace.exceptions import DamagedJournal, KeyspaceError
from django_keyspace.node import generations as generations_module
from django_keyspace.node.generations import Generations
from django_keyspace.node.journal import recovery
from django_keyspace.node.journal.journal import Journal
from django_keyspace.node.journal.records import Scan
from django_keyspace.node.journal.recovery import Recovery
from django_keyspace.node.journal.segments import Segments
from django_keyspace.node.raft.errors import BrokenInvariant
from django_keyspace.node.snapshot import SnapshotStore, SnapshotWriter
from tests.journal import test_generations, test_snapshots
from tests.journal.model import Broken, random_ordeal
from tests.sim.disk import SimFile

STEPS = 40
SEEDS = 200
Patch = Callable[[Any, str, Any], None]


def acknowledge_before_the_sync(patch: Patch) -> None:
    def write_only(journal: Any, offset: int, data: bytes) -> None:
        journal._segments.file(journal._number).write_at(offset, data)
        journal.syncs += 1

    patch(Journal, "_write_durably", write_only)


def forget_the_folder(patch: Patch) -> None:
    patch(Segments, "sync", lambda segments: None)


def trust_the_page_cache(patch: Patch) -> None:
    """Start without writing the last batch once more."""

    def zero_only(recovery: Any, file: SimFile, data: bytes) -> None:
        end, used = recovery._state.tail.end, len(data.rstrip(b"\0"))
        if used > end:
            file.write_at(end, bytes(used - end))
        file.sync()

    patch(Recovery, "_settle_tail", zero_only)


def leave_a_torn_tail(patch: Patch) -> None:
    patch(Recovery, "_settle_tail", lambda recovery, file, data: file.sync())


def go_on_after_an_error(patch: Patch) -> None:
    patch(Journal, "_require_running", lambda journal: None)


def leave_what_a_full_disk_left(patch: Patch) -> None:
    patch(Journal, "_clear_garbage", lambda journal: None)


def cut_whatever_is_broken(patch: Patch) -> None:
    original = recovery.scan

    def scan(*arguments: Any) -> Scan:
        found = original(*arguments)
        found.damage = None
        return found

    patch(recovery, "scan", scan)


def refuse_a_torn_tail(patch: Patch) -> None:
    original = recovery.scan

    def scan(*arguments: Any) -> Scan:
        found = original(*arguments)
        if found.torn:
            found.damage = "it is torn"
        return found

    patch(recovery, "scan", scan)


def remove_before_it_is_durable(patch: Patch) -> None:
    """Remove files whose entries are forgotten, before the record that says so."""
    original = Journal._write

    def write(journal: Any, records: Any, commit: int, **options: Any) -> Any:
        if records[0][0] == 5:
            journal._durable_base = int.from_bytes(records[0][1][:8], "little")
            journal._remove_forgotten()
        return original(journal, records, commit, **options)

    patch(Journal, "_write", write)


CASES = [
    pytest.param(acknowledge_before_the_sync, id="rule_16_append_is_acknowledged_after_the_sync"),
    pytest.param(forget_the_folder, id="rule_46_the_folder_is_synced"),
    pytest.param(trust_the_page_cache, id="rule_42_the_last_batch_is_written_again"),
    pytest.param(leave_a_torn_tail, id="rule_45_a_torn_tail_is_zeroed"),
    pytest.param(go_on_after_an_error, id="rule_42_no_call_after_a_failed_sync"),
    pytest.param(leave_what_a_full_disk_left, id="rule_43_a_refused_write_is_cleared"),
    pytest.param(cut_whatever_is_broken, id="rule_45_damage_is_not_cut"),
    pytest.param(refuse_a_torn_tail, id="rule_45_a_torn_tail_is_cut"),
    pytest.param(remove_before_it_is_durable, id="rule_38_files_go_after_the_base_is_durable"),
]


@pytest.mark.parametrize("switch_off", CASES)
def test_a_missing_rule_is_noticed(switch_off: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    switch_off(monkeypatch.setattr)
    for seed in range(SEEDS):
        try:
            random_ordeal(seed, STEPS)
        except (Broken, DamagedJournal, BrokenInvariant):
            return
        except (KeyError, IndexError):
            continue  # a file was missed by something else than the check
    pytest.fail(f"none of {SEEDS} seeds noticed")


# ------------------------------------------------------------------------------------------------ snapshots


def adopt_without_the_folder(patch: Patch) -> None:
    def adopt(snapshots: Any, temporary: str, made: Any) -> None:
        snapshots.disk.rename(temporary, snapshots.path(made.file_name))
        snapshots.kept.append(made)

    patch(SnapshotStore, "adopt", adopt)


def drop_the_old_ones_first(patch: Patch) -> None:
    original = SnapshotStore.build

    def build(snapshots: Any, *arguments: Any) -> None:
        while snapshots.kept:
            snapshots.disk.remove(snapshots.path(snapshots.kept.pop().file_name))
        snapshots.disk.sync_folder(snapshots.folder)
        original(snapshots, *arguments)

    patch(SnapshotStore, "build", build)


def name_it_before_it_is_synced(patch: Patch) -> None:
    original = SnapshotWriter.finish

    def finish(writer: Any) -> str:
        writer._file = Unsynced(writer._file)
        return original(writer)

    patch(SnapshotWriter, "finish", finish)


class Unsynced:
    """A file whose sync does nothing."""

    def __init__(self, file: Any) -> None:
        self.write_at, self.close = file.write_at, file.close

    def sync(self) -> None:
        pass


def point_at_a_folder_that_is_not_there_yet(patch: Patch) -> None:
    def swap(generations: Any, number: int) -> None:
        disk, folder = generations._disk, generations.folder_of(number)
        text = b'{"format": 1, "generation": %d}' % number
        generations_module.replace_file(disk, "generation.json", text)
        disk.rename(folder + ".new", folder)
        disk.sync_folder()
        generations.number = number
        generations._remove_others()

    patch(Generations, "_swap", swap)


def remove_the_old_store_first(patch: Patch) -> None:
    original = Generations._swap

    def swap(generations: Any, number: int) -> None:
        generations._disk.remove(generations.folder)
        generations._disk.sync_folder()
        original(generations, number)

    patch(Generations, "_swap", swap)


def write_the_pointer_in_place(patch: Patch) -> None:
    def replace(disk: Any, name: str, data: bytes) -> None:
        disk.remove(name)
        file = disk.create(name)
        disk.sync_folder()
        file.write_at(0, data)
        file.sync()

    patch(generations_module, "replace_file", replace)


BUILDING = test_snapshots.test_rule_35_power_may_go_out_anywhere_while_one_is_built
INSTALLING = test_generations.test_rule_35_power_may_go_out_anywhere_while_one_is_installed
SNAPSHOT_CASES = [
    pytest.param(adopt_without_the_folder, BUILDING, (), id="rule_46_the_snapshots_folder_is_synced"),
    pytest.param(drop_the_old_ones_first, BUILDING, (), id="rule_38_two_snapshots_are_kept"),
    pytest.param(name_it_before_it_is_synced, BUILDING, (), id="rule_35_a_snapshot_is_synced_before_it_is_named"),
    pytest.param(
        point_at_a_folder_that_is_not_there_yet,
        INSTALLING,
        (test_snapshots.snapshot(50, 3),),
        id="rule_35_the_folder_is_durable_before_it_counts",
    ),
    pytest.param(
        remove_the_old_store_first,
        INSTALLING,
        (test_snapshots.snapshot(50, 3),),
        id="rule_35_the_old_store_stays_until_the_new_one_counts",
    ),
    pytest.param(
        write_the_pointer_in_place,
        INSTALLING,
        (test_snapshots.snapshot(50, 3),),
        id="rule_46_no_file_is_replaced_in_place",
    ),
]


@pytest.mark.parametrize(("switch_off", "test", "arguments"), SNAPSHOT_CASES)
def test_a_missing_rule_of_snapshots_is_noticed(
    switch_off: Callable[[Patch], None], test: Callable[..., None], arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch.setattr)
    with pytest.raises((AssertionError, KeyError, KeyspaceError)):
        test(*arguments)
