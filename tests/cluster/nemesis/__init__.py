"""Trouble for real nodes: processes are killed, frozen, cut off and robbed of their disks while clients write down what they see.

``run.py`` is one run, ``faults.py`` and ``scene.py`` what may happen in it, ``place.py`` the cluster that it happens to, what is
between its nodes (``wires.py``, ``namespaces.py``) and below them (``disks.py``), and their releases (``../releases.py``),
``client.py`` and ``recorder.py`` the client processes, ``verify.py`` what has to hold at the end.
``python -m tests.cluster`` is the long form, ``test_nemesis.py`` the short one.
"""
