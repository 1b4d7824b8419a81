"""Tests of the Django face that do not depend on the engine."""
