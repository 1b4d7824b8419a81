"""Plays every story and compares. `pytest tests/interaction --rewrite-interaction` writes what they answer now.

Read the difference before it is committed: each changed line is a changed behaviour.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .language import play

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    played = play(path)
    if request.config.getoption("--rewrite-interaction"):
        path.write_text(played, encoding="utf-8")
    assert played == path.read_text(encoding="utf-8")


def test_there_are_stories() -> None:
    names = {path.stem for path in STORIES}
    assert {"prevote_rejoin", "check_quorum", "figure_8", "membership_2015", "read_across_pause"} <= names


def test_a_wrong_answer_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text("> cluster n1\n> time 1\n    n1 is follower in term 7\n", encoding="utf-8")
    assert play(path) != path.read_text(encoding="utf-8")
    assert "n1 is leader in term 1" in play(path)
