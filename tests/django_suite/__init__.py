"""Django's own cache tests, unmodified, run against our backend.

``sdist.py`` gets Django's tests from its source distribution, ``engines.py`` says what a cache is stored in,
``suites.py`` builds the test classes, ``runner.py`` runs them in a process of its own, ``test_django_suite.py`` is
how pytest sees all of it. By hand: ``python -m tests.django_suite --engine embedded [labels] [-v]``.
"""
