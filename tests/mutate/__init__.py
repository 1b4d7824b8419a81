"""Mutations: each switches one rule off, and a test that is named beside it must notice.

``python -m tests.mutate`` tries all of them and prints the table; with ``--seeds N`` it also looks for the first random
schedule that notices. The suite tries them all against their tests (`test_mutations.py`).
"""
