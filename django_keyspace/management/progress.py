"""How far a long command is: one line that is drawn anew on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from typing import Final, Self

from django.core.management.base import OutputWrapper

_BAR_CHARACTERS: Final = 30
_TERMINAL_INTERVAL_S: Final = 0.1
_LOG_INTERVAL_S: Final = 10.0


class Progress:
    """A count towards a total, shown while a ``with`` block runs.

    Arguments:
        stream: where to write: a command's ``stderr``.
        verb: what is being done, such as ``Imported``.
        noun: what is counted, such as ``records``.
        total: how many there will be, or None if nobody knows.
        done: how many there are already, for work that goes on where it stopped.
        quiet: write nothing.
    """

    def __init__(
        self,
        stream: OutputWrapper,
        verb: str,
        noun: str,
        *,
        total: int | None = None,
        done: int = 0,
        quiet: bool = False,
    ) -> None:
        self.done = done
        self._stream, self._verb, self._noun, self._total, self._quiet = stream, verb, noun, total, quiet
        self._is_terminal = stream.isatty()
        self._interval_s = _TERMINAL_INTERVAL_S if self._is_terminal else _LOG_INTERVAL_S
        self._begun_s = self._shown_s = time.monotonic()
        self._begun_at = done
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._width:
            self._draw()
            self._stream.write("")

    def advance(self, number: int) -> None:
        """Count ``number`` more, and show it if it is time to."""
        self.done += number
        now_s = time.monotonic()
        if not self._quiet and now_s - self._shown_s >= self._interval_s:
            self._shown_s = now_s
            self._draw()

    def text(self) -> str:
        """What is shown: a bar, the count and the speed."""
        per_s = (self.done - self._begun_at) / max(time.monotonic() - self._begun_s, 0.001)
        if not self._total:
            return f"{self._verb} {self.done:,} {self._noun}, {per_s:,.0f}/s"
        share = min(self.done / self._total, 1.0)
        bar = ("#" * round(share * _BAR_CHARACTERS)).ljust(_BAR_CHARACTERS, ".")
        return f"[{bar}] {share:4.0%}  {self._verb} {self.done:,} of {self._total:,} {self._noun}, {per_s:,.0f}/s"

    def _draw(self) -> None:
        text = self.text()
        if self._is_terminal:
            self._stream.write("\r" + text.ljust(self._width), ending="")
            self._width = len(text)
        else:
            self._stream.write(text)
        self._stream.flush()
