"""The fuzzer's short form: every kept input, and a few hundred changes of known ones by a fixed seed."""

from __future__ import annotations

import importlib.util
import random

import pytest

from django_keyspace.operations import check_call

from . import __main__ as command
from .mutate import change_frames, corpus, join_stream, split_stream
from .seeds import CALLS, seeds
from .short import run
from .targets import LIMITS, TARGETS, Finding


@pytest.mark.parametrize(
    ("target", "count"), [("frames", 4000), ("connection", 4000), ("hello", 4000), ("client", 4000)]
)
def test_changed_inputs_upset_nobody(target: str, count: int) -> None:
    assert run(target, seed=20_260_101, count=count) == count


@pytest.mark.parametrize("target", TARGETS)
def test_every_kept_input_upsets_nobody(target: str) -> None:
    for data in [b"", b"\x00", *corpus(target), *seeds(target)]:
        TARGETS[target](data)


def test_the_seeds_reach_the_operations() -> None:
    """A fuzzer whose requests are all refused at the door would find nothing behind it."""
    for call in CALLS:
        check_call(tuple(tuple(part) if isinstance(part, list) else part for part in call), LIMITS)


@pytest.mark.parametrize(
    ("target", "break_it"),
    [
        ("connection", lambda patch: patch.setattr("django_keyspace.node.connection.check_call", lambda *call: None)),
        ("frames", lambda patch: patch.setattr("django_keyspace.wire.FrameReader.pending_bytes", 2**40)),
        ("client", lambda patch: patch.setattr("tests.fuzz.targets.shape_result", lambda *call: 1 / 0)),
        ("hello", lambda patch: patch.setattr("django_keyspace.wire.hello_parts", lambda message: message[1:])),
    ],
)
def test_a_fault_is_found(target: str, break_it: object, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    with pytest.raises((Finding, ZeroDivisionError, TypeError, AttributeError, KeyError)) as caught:
        run(target, seed=1, count=500)
    assert f"Target {target}, seed 1, input" in caught.value.__notes__[0]


def test_changing_frames_keeps_lengths_true() -> None:
    rng = random.Random(5)
    data = b"\x02\x00" + join_stream([b"first", b"second", b"third"])
    for _ in range(50):
        changed = change_frames(data, rng, lambda body: body + b"!")
        assert changed[:2] == data[:2]
        assert changed[2:] == join_stream(split_stream(changed[2:]))


def test_the_command_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command.main(["--seconds", "1"]) == 2
    assert "pip install atheris" in capsys.readouterr().err


def test_the_command_without_atheris(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--without-atheris", "--seconds", "0", "--target", "hello", "--seed", "3"]) == 0
    assert "nothing found" in capsys.readouterr().out
