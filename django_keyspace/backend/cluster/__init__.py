"""The client of a cluster: ``knowledge.py`` is what a process knows of it, ``route.py`` the way of one call, both sans-IO;
``drivers.py`` carries out what they say, blocking and on event loops."""
