"""Tables of text for terminals and logs, and figures for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns; those that hold only figures are set to the right."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    to_right = [all(_is_figure(cell) for cell in column[1:]) for column in columns]
    lines = []
    for cells in [heads, *rows]:
        set_cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, to_right, strict=True)
        ]
        lines.append("  ".join(set_cells).rstrip())
    return lines


def _is_figure(cell: str) -> bool:
    return not cell.strip("0123456789,.- ")


def size(number_bytes: float) -> str:
    """``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number_bytes < 1024:
            return f"{number_bytes:.0f} {unit}" if unit == "B" else f"{number_bytes:.1f} {unit}"
        number_bytes /= 1024
    return f"{number_bytes:.1f} TiB"


def duration(milliseconds: float) -> str:
    """``2 h 5 m``: the two largest units; below a minute, seconds."""
    seconds = int(milliseconds // 1000)
    parts: list[str] = []
    for length_s, unit in _STEPS:
        if seconds >= length_s or parts:
            parts.append(f"{seconds // length_s} {unit}")
            seconds %= length_s
    return " ".join(parts[:2]) if parts else f"{milliseconds / 1000:.0f} s"
