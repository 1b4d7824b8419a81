"""Which modules the site shows, and that finding them imports nothing."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.parametrize(
    "name", ["json", "os", "sys", "unittest.mock", "django", "django.test.client", "django_keyspace"]
)
def test_installed_modules_are_found(site, name):
    from reader.catalogue import find_module

    assert find_module(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        "antigravity",
        "this",
        "idlelib",
        "idlelib.run",
        "turtledemo",
        "test.support",
        "lib2to3.tests",
        "json.__main__",
        "_thread",
        "os.path",
        "json.nonsense",
        "nonsense",
        "reader.views",
        "docsite.settings",
        "tests.settings",
        "manage",
        "",
        ".",
        ".json",
        "json.",
        "json..tool",
        "../json",
        "json/tool",
        "json\n",
        "jsоn",
        "a" * 151,
        ".".join("abcdefghi"),
    ],
)
def test_everything_else_is_not(site, name):
    from reader.catalogue import find_module

    assert find_module(name) is None


def test_finding_imports_nothing(site):
    from reader.catalogue import all_modules, find_module

    before = set(sys.modules)
    all_modules()
    assert find_module("wsgiref.simple_server") is not None
    assert find_module("xmlrpc.client") is not None
    added = {name.partition(".")[0] for name in set(sys.modules) - before}
    shown = {module.name for module in all_modules()}
    assert not (added & shown & {"xmlrpc", "antigravity", "turtle", "pytest_asyncio", "hypothesis"})
    assert "xmlrpc.client" not in set(sys.modules) - before


def test_the_list_names_standard_and_installed_modules_once(site):
    from reader.catalogue import all_modules

    modules = all_modules()
    names = [module.name for module in modules]
    assert len(names) == len(set(names)) > 150
    by_name = {module.name: module for module in modules}
    assert by_name["json"].group == "Data formats"
    assert by_name["json"].synopsis.startswith("JSON")
    assert by_name["django"].group == "Installed packages"
    assert by_name["django"].origin.lower().startswith("django 5") or by_name["django"].origin.lower().startswith(
        "django 6"
    )
    assert not {"antigravity", "this", "idlelib", "turtle", "_thread"} & set(names)


def test_groups_hold_every_module(site):
    from reader.catalogue import all_modules, grouped

    modules = all_modules()
    groups = grouped(modules)
    assert sum(len(members) for _, members in groups) == len(modules)
    assert groups[0][0] == "Text"
    assert groups[-1][0] == "Installed packages"


def test_search_puts_names_that_start_alike_first(site):
    from reader.catalogue import Module, search

    modules = [
        Module("alpha", "reads zip files", "", ""),
        Module("gzip", "", "", ""),
        Module("zipfile", "", "", ""),
        Module("ZipApp", "", "", ""),
        Module("json", "", "", ""),
    ]
    assert [module.name for module in search(modules, "zIp")] == ["ZipApp", "zipfile", "gzip", "alpha"]
    assert search(modules, "nothing like it") == []


def test_topics_name_no_module_twice():
    from reader.topics import TOPIC_OF, TOPICS

    assert len(TOPIC_OF) == sum(len(names.split()) for names in TOPICS.values())
