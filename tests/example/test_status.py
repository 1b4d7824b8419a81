"""The status page: what it says of each kind of store, and who may switch nodes."""

from __future__ import annotations

import json
import os
import re

import pytest
from django.core.cache import cache
from django.test import Client

from django_keyspace.backend import KeyspaceCache
from tests.example.conftest import PROJECT
from tests.example.test_pages import Balance
from tests.management.fakes import LOCATION, FakeCluster, alone, answers_of, status

SCRIPT = PROJECT / "reader" / "static" / "status.js"


class FakeNode:
    """What the switch needs of a local node."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"n{number}", f"127.0.0.1:{7000 + number}"
        self.exit_code: int | None = None
        self.done: list[str] = []

    def kill(self) -> None:
        self.done.append("killed")
        self.exit_code = -9

    def start(self) -> None:
        if self.name == "n3":
            raise OSError(28, "No space left on device")
        self.done.append("started")
        self.exit_code = None


class FakeNodes:
    def __init__(self) -> None:
        self.nodes = [FakeNode(number) for number in (1, 2, 3)]


@pytest.fixture
def nodes(site, monkeypatch):
    """A cluster that only says what its nodes are; n1 leads."""
    site.CACHES = {alias: {**entry, "LOCATION": f"{LOCATION}/0"} for alias, entry in site.CACHES.items()}
    return FakeCluster().install(monkeypatch)


@pytest.fixture
def switched(nodes, site):
    """The same, with processes that may be killed and started; gives them by name."""
    from reader import cluster

    processes = FakeNodes()
    with cluster.switch(processes) as offered:
        remote = cluster.Remote(os.dup(int(offered.environment[cluster.SWITCH_VARIABLE])))
        site.SWITCH = "tests"
        cluster._remotes["tests"] = remote
        yield {node.name: node for node in processes.nodes}
        del cluster._remotes["tests"]
        remote._lines.close()
        remote._socket.close()


def text_of(response) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def data_of(browser) -> dict:
    response = browser.get("/status/data/")
    assert response["Content-Type"] == "application/json"
    assert "no-store" in response["Cache-Control"]
    return json.loads(response.content)


def test_a_folder_shows_its_figures(browser):
    cache.set("a", 1)
    page, data = browser.get("/status/"), data_of(browser)
    assert (data["kind"], data["state"], data["rows"]) == ("folder", "good", [])
    assert data["tiles"]["Records"] == "1"
    assert data["headline"] in text_of(page)
    assert "<form" not in page.content.decode()
    assert "<table" not in page.content.decode()


def test_a_page_shows_what_its_script_will_get(nodes):
    nodes.statuses["n2"] |= {"applied": 97, "commit": 98}
    del nodes.statuses["n3"]
    page, data = Client().get("/status/").content.decode(), data_of(Client())
    for row in data["rows"]:
        part = re.search(rf'data-node="{row["address"]}" class="{row["state"]}".*?</tr>', page, re.DOTALL)
        assert part is not None
        assert dict(re.findall(r'data-cell="(\w+)">([^<]*)<', part[0])) == row["cells"]
        assert re.findall(r"data-name>([^<]*)<", part[0]) == [row["name"]]
    assert dict(re.findall(r'data-tile="([^"]+)">([^<]*)<', page)) == data["tiles"]
    assert [(row["name"], row["state"], row["do"]) for row in data["rows"]] == [
        ("n1", "leader", "kill"),
        ("n2", "here", "kill"),
        ("n3", "silent", "start"),
    ]
    assert (data["rows"][1]["cells"]["lag"], data["rows"][2]["cells"]["role"]) == ("3", "no answer")


def test_it_is_whole_and_its_script_finds_what_it_looks_for(switched):
    response = Client().get("/status/")
    page = response.content.decode()
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    # The forms of all nodes have the same hidden fields, but no ids.
    assert len(balance.ids) == len(set(balance.ids))
    assert re.findall(r'<script src="([^"]+)" defer></script>', page) == ["/static/status.js"]
    assert page.count("<script") == 1
    assert response["Content-Security-Policy"].endswith("script-src 'self'; connect-src 'self'")
    assert "script-src" not in Client().get("/nope")["Content-Security-Policy"]
    script = SCRIPT.read_text()
    assert set(re.findall(r'byId\("([\w-]+)"\)', script)) <= set(balance.ids)
    for attribute in re.findall(r"\[(data-[\w-]+)\]", script):
        assert attribute in page


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        ([status("n1", "leader"), status("n2"), status("n3")], "good", "n1 leads, all 3 nodes answer."),
        ([status("n1", "leader"), status("n2"), "n3"], "trouble", "2 of 3 nodes answer, and the site goes on."),
        ([status("n1"), "n2", "n3"], "lost", "No node leads: 1 of 3 nodes answer, and the site cannot go on."),
        (["n1", "n2", "n3"], "lost", "No node leads: 0 of 3 nodes answer"),
    ],
)
def test_a_cluster_says_how_it_is(site, found, state, words):
    from reader.standing import of_cluster

    standing = of_cluster(answers_of(*found))
    assert standing.state == state
    assert words in standing.headline
    assert bool(standing.reasons) == (state == "lost")
    assert [row.name for row in standing.rows] == ["n1", "n2", "n3"]


def test_a_name_is_kept_when_nobody_answers(nodes):
    assert [row["name"] for row in data_of(Client())["rows"]] == ["n1", "n2", "n3"]
    nodes.statuses.clear()
    data = data_of(Client())
    assert [row["name"] for row in data["rows"]] == ["n1", "n2", "n3"]
    assert data["reasons"][0] == "No node answers."


def test_a_node_alone_shows_its_figures_or_that_it_is_gone(nodes, site):
    site.CACHES["default"]["LOCATION"] = "keyspace://127.0.0.1:7001/0"
    nodes.statuses = {"n1": alone()}
    data = data_of(Client())
    assert (data["kind"], data["state"], data["tiles"]["Records"]) == ("node", "good", "5")
    nodes.statuses = {}
    data = data_of(Client())
    assert (data["state"], data["headline"]) == ("lost", "The node does not answer.")
    assert data["reasons"] == ["No node answers at 127.0.0.1:7001."]
    assert "The node does not answer." in text_of(Client().get("/status/"))


def test_a_button_kills_a_node_and_starts_it_again(switched):
    browser = Client()
    assert browser.get("/status/").content.decode().count('name="do" value="kill"') == 3
    for do, done in (("start", []), ("kill", ["killed"]), ("start", ["killed", "started"])):
        response = browser.post("/status/switch/", {"do": do, "node": "127.0.0.1:7002"})
        assert (response.status_code, response["Location"]) == (302, "/status/")
        assert switched["n2"].done == done
    assert switched["n1"].done == switched["n3"].done == []


@pytest.mark.parametrize(
    ("do", "node", "sentence"),
    [
        ("kill", "127.0.0.1:22", "There is no node at 127.0.0.1:22 to kill."),
        ("reboot", "127.0.0.1:7001", "There is no node at 127.0.0.1:7001 to reboot."),
        ("kill 127.0.0.1:7001\nkill", "127.0.0.1:7002", "There is no node"),
        ("", "", "There is no node"),
        ("start", "127.0.0.1:7003", "Node n3 could not be started: No space left on device."),
    ],
)
def test_what_cannot_be_switched_is_said(switched, do, node, sentence):
    switched["n3"].exit_code = -9
    response = Client().post("/status/switch/", {"do": do, "node": node})
    assert response.status_code == 409
    assert sentence in text_of(response)
    assert [node.done for node in switched.values()] == [[], [], []]
    # And the next question gets its own answer.
    assert Client().post("/status/switch/", {"do": "kill", "node": "127.0.0.1:7001"}).status_code == 302


def test_only_who_sits_at_the_machine_may_switch(switched):
    fields = {"do": "kill", "node": "127.0.0.1:7001"}
    for elsewhere in (
        {"REMOTE_ADDR": "192.0.2.7"},
        {"REMOTE_ADDR": ""},
        {"HTTP_X_FORWARDED_FOR": "192.0.2.7"},
        {"HTTP_FORWARDED": "for=192.0.2.7"},
    ):
        assert Client(**elsewhere).post("/status/switch/", fields).status_code == 403
        assert "<button" not in Client(**elsewhere).get("/status/").content.decode()
    assert Client(enforce_csrf_checks=True).post("/status/switch/", fields).status_code == 403
    assert Client().get("/status/switch/").status_code == 405
    assert switched["n1"].done == []
    assert Client(REMOTE_ADDR="::1").post("/status/switch/", fields).status_code == 302


def test_without_the_demo_there_is_no_switch(nodes):
    assert Client().post("/status/switch/", {"do": "kill", "node": "127.0.0.1:7001"}).status_code == 404
    assert "<button" not in Client().get("/status/").content.decode()


def test_a_cache_out_of_reach_ends_no_session(site, monkeypatch):
    browser = Client(raise_request_exception=False)
    browser.get("/module/colorsys/")
    kept = browser.cookies[site.SESSION_COOKIE_NAME].value

    def fail(*arguments, **options):
        raise ConnectionError("no leader here")

    with monkeypatch.context() as patch:
        patch.setattr(KeyspaceCache, "get", fail)
        assert browser.get("/").status_code == 500
    assert browser.cookies[site.SESSION_COOKIE_NAME].value == kept
    assert 'id="recent"' in browser.get("/").content.decode()


def test_a_session_that_is_gone_begins_anew(browser):
    browser.get("/module/colorsys/")
    cache.clear()
    response = browser.get("/")
    assert response.status_code == 200
    assert 'id="recent"' not in response.content.decode()
