"""A long run against a node that is killed and restarted at random, every acknowledged write checked against a model.

    python -m tests.soak --minutes 60
    python -m tests.soak --seconds 60 --seed 7

Each worker has keys of its own, and a model of what they must hold. A write that was answered is in the model; one whose
outcome is unknown leaves two possibilities, until the next read shows which one it was. All workers count together on shared
counters, whose sums must lie between what was acknowledged and what may have happened. The folder may not grow without end,
nor the node's memory.
"""
