"""Tests of the benchmarks: their arithmetic, and that they run. No test looks at a time."""
