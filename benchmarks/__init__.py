"""Benchmarks of django-keyspace beside the other cache backends a Django site could use. Not part of the package."""
