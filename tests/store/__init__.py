"""Tests of the store of one machine, without Django."""
