"""A long run against a node that is killed and restarted at random, every acknowledged write checked against a model.

    python -m tests.soak --minutes 60
    python -m tests.soak --seconds 60 --seed 7

Each worker has keys of its own, and a model of what they must hold. A write that was answered is in the model, whatever was
killed before its answer came: it is sent again under its sequence, and was done once. One whose outcome is unknown, because its
time was over, would leave two possibilities. All workers count together on shared counters: without unknown outcomes, their
sums must be exactly what was acknowledged. The folder may not grow without end, nor the node's memory.
"""
