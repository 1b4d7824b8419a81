"""How old a copy says that it is (rule 22)."""

from __future__ import annotations

from django_keyspace.node.freshness import NOTES_MAX, Freshness


class Clock:
    """Stands until it is told otherwise."""

    now_ms = 5_000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        raise AssertionError("the wall clock has nothing to do with it")


LOG_MS = 1_700_000_000_000


def hear(freshness: Freshness, clock: Clock, commit: int, log_ms: int, *, passed_ms: int) -> None:
    clock.now_ms += passed_ms
    freshness.heard(commit, LOG_MS + log_ms)


def test_rule_22_nobody_knows_before_a_leader_was_heard() -> None:
    assert Freshness(Clock()).age_ms(100) is None


def test_rule_22_a_copy_is_as_old_as_the_last_moment_at_which_it_had_everything() -> None:
    clock = Clock()
    freshness = Freshness(clock)
    hear(freshness, clock, 10, 0, passed_ms=0)
    assert freshness.age_ms(9) is None
    assert freshness.age_ms(10) == 0
    hear(freshness, clock, 12, 100, passed_ms=100)
    hear(freshness, clock, 15, 200, passed_ms=100)
    assert freshness.age_ms(11) == 200, "it hears its leader, and is behind"
    assert freshness.age_ms(14) == 100
    assert freshness.age_ms(15) == 0


def test_rule_22_a_heartbeat_that_comes_late_tells_of_an_earlier_moment() -> None:
    clock = Clock()
    freshness = Freshness(clock)
    for number in range(10):
        hear(freshness, clock, 1, 100 * number, passed_ms=100)
    hear(freshness, clock, 1, 1_000, passed_ms=6_000)
    age_ms = freshness.age_ms(1)
    assert age_ms is not None and 4_500 <= age_ms <= 6_000


def test_a_log_clock_that_jumps_ahead_or_is_slow_makes_no_copy_old() -> None:
    clock = Clock()
    freshness = Freshness(clock)
    log_ms = 0
    for number in range(300):
        log_ms += 1_000 if number < 100 else 90
        hear(freshness, clock, 1, log_ms, passed_ms=100)
        assert freshness.age_ms(1) == 0


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    freshness = Freshness(clock)
    for commit in range(10 * NOTES_MAX):
        hear(freshness, clock, commit, 100 * commit, passed_ms=100)
    assert len(freshness._notes) <= NOTES_MAX
    assert freshness.age_ms(10 * NOTES_MAX) == 0
