"""Key-value models: classes whose objects are records of an alias, with indexes and queries. See docs/models.md."""
