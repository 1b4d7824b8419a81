"""The table: which rule, what is changed, and which test has to notice.

A mutation replaces one name of one module or class. What it is replaced with gets the original first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import changes
from .changes import always

ELECTIONS = "tests.raft.test_rules_elections"
LOG = "tests.raft.test_rules_log"
READS = "tests.raft.test_rules_reads"
MEMBERS = "tests.raft.test_rules_members"


@dataclass(frozen=True)
class Mutation:
    """One rule switched off.

    Attributes:
        name: short, for the command line.
        rule: its number in docs/design.md.
        target: dotted name of what is replaced, below `django_keyspace.node.raft`.
        make: makes the replacement from the original; for a property, from its getter.
        module: of the test that has to fail.
        what: the rest of that test's name, behind `test_rule_NN_`; for a parametrized one there is a `check_rule_NN_` that
            does one case.
    """

    name: str
    rule: int
    target: str
    make: Callable[[Any], Any]
    module: str
    what: str

    @property
    def caught_by(self) -> str:
        """The test's name."""
        return f"test_rule_{self.rule:02d}_{self.what}"


TABLE = [
    Mutation(
        "send-before-durable", 1, "state.State.needed_number", always(0), ELECTIONS, "a_vote_leaves_when_it_is_durable"
    ),
    Mutation(
        "ask-before-durable",
        1,
        "state.State.needed_number",
        always(0),
        ELECTIONS,
        "a_candidate_asks_when_its_vote_is_durable",
    ),
    Mutation(
        "count-own-unwritten-log",
        1,
        "replication.own_match",
        lambda _: lambda state: state.log.last_index,
        ELECTIONS,
        "a_leaders_own_log_counts_when_it_is_durable",
    ),
    Mutation("use-old-terms", 2, "core.Raft._may_use_old", always(True), ELECTIONS, "old_messages_change_nothing"),
    Mutation(
        "ignore-higher-terms", 2, "core.Raft._take_term", always(True), ELECTIONS, "a_higher_term_ends_everything"
    ),
    Mutation(
        "count-old-pre-votes",
        3,
        "elections.is_to_present_attempt",
        always(True),
        ELECTIONS,
        "answers_to_earlier_questions_do_not_count",
    ),
    Mutation(
        "count-old-votes", 3, "core.Raft._may_use_old", always(True), ELECTIONS, "votes_of_an_earlier_term_do_not_count"
    ),
    Mutation(
        "vote-for-anybody", 4, "log.Log.is_up_to_date", always(True), ELECTIONS, "votes_go_to_logs_that_have_everything"
    ),
    Mutation(
        "no-pre-vote", 5, "elections.asks_first", always(False), ELECTIONS, "an_isolated_node_does_not_raise_its_term"
    ),
    Mutation(
        "pre-vote-takes-term",
        5,
        "core.Raft._take_term",
        changes.pre_vote_takes_term,
        ELECTIONS,
        "a_pre_vote_changes_nothing",
    ),
    Mutation(
        "no-check-quorum",
        6,
        "leadership.lost_quorum",
        always(False),
        ELECTIONS,
        "a_leader_that_hears_no_majority_steps_down",
    ),
    Mutation(
        "no-check-quorum-partial", 6, "leadership.lost_quorum", always(False), ELECTIONS, "partial_partition_settles"
    ),
    Mutation(
        "listen-to-candidates",
        6,
        "state.State.hears_leader",
        always(False),
        ELECTIONS,
        "who_hears_a_leader_ignores_candidates",
    ),
    Mutation(
        "silent-to-lower-terms",
        7,
        "core.Raft._may_use_old",
        always(False),
        ELECTIONS,
        "a_longer_log_with_a_lower_term_catches_up",
    ),
    Mutation(
        "one-timeout-for-all",
        8,
        "state.State.reset_timer",
        changes.fixed_timer,
        ELECTIONS,
        "timeouts_are_random_for_each_attempt",
    ),
    Mutation(
        "wait-after-split-votes",
        8,
        "state.State.try_again_soon",
        always(None),
        ELECTIONS,
        "split_votes_are_tried_again_soon",
    ),
    Mutation("take-old-ids", 9, "membership.is_new", always(True), ELECTIONS, "an_id_is_used_once"),
    Mutation(
        "overlook-lost-entries",
        10,
        "log.Log.commit_to",
        changes.believe_the_leader,
        ELECTIONS,
        "a_node_that_lost_entries_stops",
    ),
    Mutation(
        "always-truncate",
        11,
        "log.Log.first_conflict",
        changes.forget_conflicts,
        LOG,
        "a_late_append_that_matches_shortens_nothing",
    ),
    Mutation(
        "cut-committed", 12, "log.Log.truncate_from", changes.cut_committed, LOG, "what_is_committed_is_never_cut"
    ),
    Mutation(
        "count-whole-log",
        13,
        "replication.take_entries",
        changes.count_the_whole_log,
        LOG,
        "only_what_is_proven_counts",
    ),
    Mutation("commit-old-terms", 14, "replication.may_commit", always(True), LOG, "figure_8"),
    Mutation(
        "commit-unverified",
        15,
        "replication.follower_commit",
        lambda _: lambda message, verified: message.commit,
        LOG,
        "a_followers_commit_ends_where_the_message_does",
    ),
    Mutation(
        "ack-before-durable",
        16,
        "state.State.needed_number",
        lambda _: lambda state, message: state.hard_number,
        LOG,
        "an_append_is_acknowledged_when_it_is_durable",
    ),
    Mutation(
        "heartbeats-wait",
        16,
        "state.State.needed_number",
        lambda _: lambda state, message: max(state.hard_number, state.entries_number),
        LOG,
        "heartbeats_do_not_wait_for_entries",
    ),
    Mutation(
        "confuse-writes",
        16,
        "log.Log.truncate_from",
        changes.write_counts_by_term,
        LOG,
        "a_replaced_write_does_not_stand_for_its_successor",
    ),
    Mutation("unbounded-proposals", 17, "leadership.has_room", always(True), LOG, "proposals_are_bounded"),
    Mutation(
        "unbounded-sending",
        17,
        "progress.Progress.has_room",
        changes.room_for_everything,
        LOG,
        "what_is_sent_is_bounded",
    ),
    Mutation(
        "no-hints",
        18,
        "log.Log.last_possible_match",
        changes.step_back_one_by_one,
        LOG,
        "a_follower_far_behind_is_found_in_few_rounds",
    ),
    Mutation(
        "read-without-quorum",
        19,
        "reads.confirmed_round",
        lambda _: lambda state: state.round,
        READS,
        "a_read_waits_for_a_majority_after_it_came",
    ),
    Mutation(
        "read-before-own-commit",
        19,
        "state.State.has_committed_in_term",
        lambda _: lambda state: state.is_leader,
        READS,
        "a_new_leader_first_commits_an_entry_of_its_term",
    ),
    Mutation(
        "join-older-round",
        20,
        "reads.begin_due_round",
        changes.join_the_last_round,
        READS,
        "an_answer_from_before_a_pause_confirms_nothing_new",
    ),
    Mutation(
        "lease-too-long",
        21,
        "config.Config.lease_ticks",
        lambda _: lambda config: config.election_ticks + 1,
        READS,
        "a_lease_ends_in_time",
    ),
    Mutation(
        "lease-from-answer",
        21,
        "core.HANDLERS[HeartbeatResponse]",
        changes.lease_from_the_answer,
        READS,
        "a_lease_counts_from_the_sending_not_from_the_answer",
    ),
    Mutation(
        "lease-after-timeout-now",
        21,
        "replication.send_timeout_now",
        changes.forget_time_now,
        READS,
        "no_lease_after_timeout_now_in_that_term",
    ),
    Mutation(
        "vote-after-start",
        21,
        "state.State.is_new_here",
        always(False),
        READS,
        "a_node_that_has_just_started_grants_no_vote",
    ),
    Mutation(
        "lone-voter-at-once",
        21,
        "elections.needs_no_timeout",
        changes.alone_at_once,
        READS,
        "a_lone_voter_waits_for_a_leader_with_a_lease",
    ),
    Mutation(
        "read-while-replaying",
        23,
        "core.Raft.replayed",
        always(True),
        READS,
        "nothing_is_read_before_the_known_commits_are_applied",
    ),
    Mutation(
        "snapshot-drops-tail",
        35,
        "log.Log.matches",
        changes.restart_always,
        LOG,
        "a_snapshot_that_the_log_has_keeps_what_is_behind_it",
    ),
    Mutation("take-old-snapshot", 36, "replication.is_old", always(False), LOG, "an_older_snapshot_is_refused"),
    Mutation(
        "wait-for-snapshot-for-ever",
        36,
        "progress.Progress.snapshot_failed",
        always(None),
        LOG,
        "a_snapshot_that_does_not_move_is_given_up",
    ),
    Mutation("no-2015-correction", 39, "leadership.require_changeable", always(None), MEMBERS, "add_and_remove"),
    Mutation("no-2015-correction-adds", 39, "leadership.require_changeable", always(None), MEMBERS, "two_adds"),
    Mutation("no-2015-correction-removes", 39, "leadership.require_changeable", always(None), MEMBERS, "two_removes"),
    Mutation("several-changes", 39, "leadership.require_changeable", always(None), MEMBERS, "one_change_at_a_time"),
    Mutation(
        "keep-truncated-membership",
        39,
        "membership.History.truncate_from",
        changes.keep_the_membership,
        MEMBERS,
        "a_change_holds_from_the_log_on_and_goes_with_it",
    ),
    Mutation(
        "promote-anybody",
        40,
        "leadership.require_caught_up",
        always(None),
        MEMBERS,
        "members_join_as_learners_and_are_promoted_when_caught_up",
    ),
    Mutation(
        "removed-leader-stays",
        40,
        "replication.retire",
        always(None),
        MEMBERS,
        "a_removed_leader_leads_until_its_removal_is_committed",
    ),
    Mutation(
        "removed-nodes-disturb", 40, "state.State.hears_leader", always(False), MEMBERS, "removed_nodes_disturb_nobody"
    ),
    Mutation(
        "remove-the-quorum",
        41,
        "leadership.require_still_decides",
        always(None),
        MEMBERS,
        "the_quorum_cannot_be_removed",
    ),
    Mutation(
        "go-on-after-failed-write", 42, "core.Raft.fail", always(None), MEMBERS, "nothing_is_done_after_a_failed_write"
    ),
    Mutation(
        "lead-without-room",
        43,
        "elections.may_campaign",
        always(True),
        MEMBERS,
        "a_node_without_room_leads_nobody_and_still_follows",
    ),
    Mutation(
        "lead-with-stuck-disk",
        47,
        "state.State.disk_is_stuck",
        always(False),
        MEMBERS,
        "a_leader_whose_disk_is_stuck_steps_down",
    ),
    Mutation(
        "lead-after-sleep",
        49,
        "leadership.lost_quorum",
        always(False),
        READS,
        "a_leader_that_slept_is_none_until_proven",
    ),
    Mutation(
        "overlook-two-leaders",
        52,
        "replication.follow",
        always(None),
        MEMBERS,
        "a_broken_invariant_stops_the_core_and_says_where",
    ),
    Mutation(
        "hand-over-unprepared",
        53,
        "leadership.transfer",
        changes.hand_over_unprepared,
        MEMBERS,
        "leadership_is_handed_over",
    ),
]
