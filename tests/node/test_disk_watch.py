"""What the log says of a disk that does not answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from django_keyspace.node import disk_watch
from django_keyspace.node.disk_watch import LOOKS, DiskWatch


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "django_keyspace.node")
    return caplog


def watching(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, DiskWatch, list[float]]:
    writer, now_s = SimpleNamespace(busy_since_s=None), [0.0]
    monkeypatch.setattr(disk_watch, "monotonic", lambda: now_s[0])
    return writer, DiskWatch("n1", cast("Any", writer)), now_s


def test_a_write_that_does_not_end_is_told_once_and_that_it_has_ended_too(
    monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    writer, watch, now_s = watching(monkeypatch)
    watch.look()
    writer.busy_since_s = 5.0
    for looks in range(1, 3 * LOOKS):
        now_s[0] = 5.0 + looks / 10
        watch.look()
    assert told.messages == [
        "The disk of node n1 has not finished a write for 1.1 seconds. Until it does, the node takes no entries and does "
        "not lead; the others go on. Look at the disk."
    ]
    writer.busy_since_s, now_s[0] = 9.5, 9.5  # the next write
    watch.look()
    assert told.messages[1:] == ["The disk of node n1 goes on, after 4.5 seconds."]
    for _ in range(3):
        watch.look()
    assert len(told.messages) == 2


def test_writes_that_end_are_not_news(monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture) -> None:
    writer, watch, now_s = watching(monkeypatch)
    for write in range(5):
        for _ in range(LOOKS):
            writer.busy_since_s = now_s[0] = float(write)
            watch.look()
        now_s[0] += 100.0  # the process was stopped
        writer.busy_since_s = None
        watch.look()
    assert not told.messages
