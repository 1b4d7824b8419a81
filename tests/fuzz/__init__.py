"""Bytes that nobody would send, for everything that reads bytes of others.

``targets.py`` has what is held against them, ``mutate.py`` changes known inputs, ``corpus/`` keeps inputs worth keeping.
``python -m tests.fuzz`` looks for new ones, guided by coverage; ``test_fuzz.py`` is the short form.
"""
