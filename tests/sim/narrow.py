"""A search that looks at little: mostly enough to find an order where there is one.

Whatever order it finds is one, so it may leave out what it likes. When it finds none, nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from tests.sim.search import Op, Search, Situations, State

MOST_STEPS: Final = 20_000
"""So many steps are taken for each answer."""


class Narrow(Search):
    """See the module.

    Attributes:
        kept: so many situations are kept after each answer: those that need the fewest outcomes that nobody knows.
        enough_steps: so many steps are taken for each answer once there is a way.
    """

    kept, enough_steps = 60, 300

    def _end(self, op: Op, situations: Situations) -> Situations:
        reached = super()._end(op, situations)
        if sum(map(len, reached.values())) <= self.kept:
            return reached
        unknown = sum(other.bit for other in self._unknown)
        ranked = sorted(
            ((used & unknown).bit_count(), -settled.bit_count(), state, settled, used)
            for state, best in reached.items()
            for settled, used in best
        )
        kept: Situations = {}
        for _, _, state, settled, used in ranked[: self.kept]:
            kept.setdefault(state, []).append((settled, used))
        return kept

    def _others(self, op: Op, reached: Situations) -> tuple[list[Op], Callable[[State, int, int], bool]]:
        near, superfluous = super()._others(op, reached)
        before = self.steps

        def is_enough(state: State, settled: int, used: int) -> bool:
            taken = self.steps - before
            return (
                taken > MOST_STEPS or (taken > self.enough_steps and bool(reached)) or superfluous(state, settled, used)
            )

        return near, is_enough


SEARCHES: Final[Sequence[type[Search]]] = (Narrow, Search)
"""One after the other, until one finds an order; the last one knows that there is none."""
