"""Tests of django-keyspace; the folders mirror the package."""
