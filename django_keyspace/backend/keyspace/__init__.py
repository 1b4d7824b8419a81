"""What is behind ``django_keyspace.keyspace.Client``: Scalien Keyspace's calls over our engines.

``conversation.py`` is one client's state, ``commands.py`` what each call means as an operation, ``submission.py`` sends a batch,
``results.py`` is the ancestor's ``result``, and ``masters.py`` finds the node that serves.
"""
