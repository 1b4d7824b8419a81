"""Tests of the key-value models, over every engine."""
