"""The durable log of a node: files, records, recovery, and the thread that writes."""

from __future__ import annotations

from django_keyspace.node.journal.journal import Batch, Journal
from django_keyspace.node.journal.writer import JournalWriter

__all__ = ["Batch", "Journal", "JournalWriter"]
