"""A picture of a running cluster that is drawn anew each second: in place on a terminal, elsewhere as lines."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final, Self

from django.core.management.base import OutputWrapper

from django_keyspace.management.diagnosis import Answer, Answers, lag_of, why_no_leader
from django_keyspace.management.tables import duration, table

HEADS: Final = ("node", "role", "term", "applied", "lag", "reads/s", "writes/s", "up", "pid")
LINE_INTERVAL_S: Final = 30.0
NOTHING: Final = "-"


class Rates:
    """Operations per second, from the counters of two looks."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, int, Mapping[str, int]]] = {}

    def of(self, answer: Answer, now_s: float) -> tuple[str, str]:
        """Reads and writes of a node per second since the last look."""
        counts, process = answer.facts["requests"], answer.facts["process"]
        then_s, before_process, before = self._before.get(answer.name, (now_s, process, counts))
        self._before[answer.name] = (now_s, process, counts)
        if now_s <= then_s or process != before_process:
            return NOTHING, NOTHING
        reads, writes = ((counts[kind] - before[kind]) / (now_s - then_s) for kind in ("reads", "writes"))
        return f"{reads:,.0f}", f"{writes:,.0f}"


class Picture:
    """The table of a cluster's nodes, in a ``with``.

    Arguments:
        stream: a command's output.
        title: what stands above it.
    """

    def __init__(self, stream: OutputWrapper, title: str) -> None:
        self._stream = stream
        self._title = title
        self._rates = Rates()
        self._is_terminal = stream.isatty()
        self._stack = ExitStack()
        self._live: Any = None
        self._height = 0
        self._said: list[tuple[Any, ...]] = []
        self._said_s = 0.0

    def __enter__(self) -> Self:
        if self._is_terminal:
            self._live = _rich_live(self._stack, self._stream)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def show(self, answers: Answers, processes: Mapping[str, str], now_s: float | None = None) -> None:
        """Draw it anew.

        Arguments:
            answers: what the nodes say.
            processes: by name: the process, or how it ended.
            now_s: the monotonic clock.
        """
        now_s = monotonic() if now_s is None else now_s
        rows = [self._row(answer, answers, processes, now_s) for answer in answers.answers]
        reasons = why_no_leader(answers)
        if self._live is not None:
            self._live.update(_rich_table(self._title, rows, reasons), refresh=True)
        elif self._is_terminal:
            self._redraw([self._title, "", *table(HEADS, rows), *(f"! {reason}" for reason in reasons)])
        else:
            self._say(answers, processes, rows, now_s)

    def _row(self, answer: Answer, answers: Answers, processes: Mapping[str, str], now_s: float) -> list[str]:
        process = processes.get(answer.name, NOTHING)
        if answer.status is None:
            return [answer.name or str(answer.endpoint), "down", *[NOTHING] * (len(HEADS) - 3), process]
        status = answer.status
        lag = lag_of(answer, answers)
        return [
            answer.name,
            status["role"],
            str(status.get("term", NOTHING)),
            f"{status['applied']:,}" if "applied" in status else NOTHING,
            NOTHING if lag is None else f"{lag:,}",
            *self._rates.of(answer, now_s),
            duration(status["uptime_ms"]),
            process,
        ]

    def _redraw(self, lines: list[str]) -> None:
        back = f"\x1b[{self._height}A\x1b[J" if self._height else ""
        self._stream.write(back + "\n".join(lines))
        self._height = len(lines)
        self._stream.flush()

    def _say(self, answers: Answers, processes: Mapping[str, str], rows: list[list[str]], now_s: float) -> None:
        """A line if something has changed that is worth one, or if there was none for a while."""
        state: list[tuple[Any, ...]] = [
            (answer.name, answer.facts.get("role"), answer.facts.get("term"), processes.get(answer.name))
            for answer in answers.answers
        ]
        if state == self._said and now_s - self._said_s < LINE_INTERVAL_S:
            return
        self._said, self._said_s = state, now_s
        parts = [
            f"{row[0]} {row[1]}, term {row[2]}, applied {row[3]}, {row[5]} reads/s, {row[6]} writes/s" for row in rows
        ]
        self._stream.write("; ".join(parts))
        self._stream.flush()


def _rich_live(stack: ExitStack, stream: OutputWrapper) -> Any:
    """The live display of rich, if that is installed."""
    try:
        live, console = importlib.import_module("rich.live"), importlib.import_module("rich.console")
    except ImportError:
        return None
    # Django's wrapper ends each piece with a new line.
    file = getattr(stream, "_out", stream)
    return stack.enter_context(live.Live(console=console.Console(file=file), auto_refresh=False))


def _rich_table(title: str, rows: list[list[str]], reasons: list[str]) -> Any:
    tables = importlib.import_module("rich.table")
    found = tables.Table(title=title, caption="\n".join(reasons) or None)
    for head in HEADS:
        found.add_column(head, justify="left" if head in ("node", "role") else "right", no_wrap=True)
    styles = {"leader": "bold green", "down": "bold red"}
    for row in rows:
        found.add_row(*row, style=styles.get(row[1]))
    return found
