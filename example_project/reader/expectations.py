"""What the walks of ``demo --check`` say when the site does something that it should not."""

from __future__ import annotations


class WalkFailed(Exception):
    """The site did something that it should not. The message is one sentence that says what."""


def expect(condition: object, sentence: str) -> None:
    """Raise WalkFailed with this sentence unless the condition holds."""
    if not condition:
        raise WalkFailed(sentence)
