"""The clients of the ancestor kt, over this package's engines. ``django_keyspace.kyoto`` is the public face.

=================  ==================================================================================================
``client.py``      what both clients share: where the data is, keys, records, errors, scripts
``tycoon.py``      KyotoTycoon                      ``tyrant.py``    TokyoTyrant
``embedded.py``    EmbeddedServer, EmbeddedTokyoTyrantServer
``cursors.py``     Cursor                           ``queue.py``     Queue
``places.py``      from a host to an engine         ``arguments.py`` what callers pass, checked
``serializers.py`` values <-> records               ``errors.py``    kt's errors, in our tree
``figures.py``     status() and report()
=================  ==================================================================================================
"""
