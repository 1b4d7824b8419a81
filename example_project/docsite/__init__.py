"""The example site of django-keyspace: settings and addresses."""
