"""Tests of ``django_keyspace.keyspace``: the ancestor's API, held against one table of expectations on every engine."""
