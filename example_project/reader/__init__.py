"""The reader: documentation of the installed Python modules, with everything slow kept in the cache."""
