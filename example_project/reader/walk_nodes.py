"""The part of ``demo --check`` that looks at the status page; on a cluster it kills the leader, and visits go on meanwhile."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reader.browser import Browser
from reader.expectations import expect

PAGE = "/status/"
DATA = "/status/data/"
SWITCH = "/status/switch/"
READ_PAGE = "/module/decimal/"
WAIT_S = 90.0
LOOK_AGAIN_S = 0.1


class NodesWalk:
    """One visitor of two server processes."""

    def __init__(self, visitor: Browser, second_site: str, nodes: int) -> None:
        """Look at what runs on so many nodes; 0 is an embedded store."""
        self.visitor = visitor
        self.sites = (visitor.site, second_site)
        self.nodes = nodes
        self.remarks: list[str] = []

    def run(self) -> None:
        """Do all steps. Raises WalkFailed at the first thing that is off."""
        self.page_says_what_the_data_say()
        if self.nodes > 1:
            self.leader_dies()

    def data(self) -> dict[str, Any]:
        """Return what the page's script gets."""
        answer = self.visitor.get(DATA)
        expect(answer.status == 200, f"{DATA} answered {answer.status}: {answer.text[:300]}")
        return json.loads(answer.body)

    def page_says_what_the_data_say(self) -> None:
        """The page shows the store, its nodes if there are some, and a switch for each in a cluster."""
        standing = self.wait_for(lambda now: now["state"] == "good", f"{PAGE} finds something wrong")
        answer = self.visitor.get(PAGE)
        expect(answer.status == 200, f"{PAGE} answered {answer.status}, expected 200.")
        titles = re.findall(r'data-tile="([^"]+)"', answer.body)
        expect(
            titles == list(standing["tiles"]), f"{PAGE} shows {titles}, and its script gets {list(standing['tiles'])}."
        )
        expect(answer.element("headline-text"), f"{PAGE} does not say how the store is.")
        kind = {0: "folder", 1: "node"}.get(self.nodes, "cluster")
        expect(standing["kind"] == kind, f"{PAGE} calls the store a {standing['kind']}, expected {kind}.")
        expect(re.match("[1-9]", standing["tiles"]["Records"]), f"{PAGE} shows no records.")
        if self.nodes < 2:
            return
        names = [row["name"] for row in standing["rows"]]
        expect(len(names) == self.nodes, f"{PAGE} shows the nodes {names}, expected {self.nodes}.")
        expect(answer.body.count('name="do" value="kill"') == self.nodes, f"{PAGE} has no switch for each node.")
        forged = Browser(self.visitor.site).post(SWITCH, {"do": "kill", "node": standing["rows"][0]["address"]})
        expect(forged.status == 403, f"A forged form was answered with {forged.status}, expected 403.")

    def leader_dies(self) -> None:
        """The leader is killed while others visit: each visit is answered and counted, and another node leads."""
        before, term = self.views(), int(self.data()["tiles"]["Term"].replace(",", ""))
        leader = self.leader()
        stop = threading.Event()
        with ThreadPoolExecutor(len(self.sites)) as pool:
            visits = [pool.submit(self._visit_until, stop, Browser(site)) for site in self.sites]
            try:
                began_s = time.monotonic()
                self.switch("kill", leader)
                standing = self.wait_for(lambda now: self.leader(now) not in (None, leader), "No other node leads")
                took_s = time.monotonic() - began_s
            finally:
                stop.set()
            count = sum(visit.result() for visit in visits)
        expect(standing["state"] == "trouble", f"{PAGE} finds {leader['name']}, which was killed, to be well.")
        now = int(standing["tiles"]["Term"].replace(",", ""))
        expect(now > term, f"Another node leads, and the term is {now} after {term}.")
        views = self.views()
        expect(views == before + count + 1, f"After {count} visits decimal shows {views} views, and {before} before.")
        name = self.leader(standing)["name"]
        self.remarks.append(
            f"{leader['name']} led and was killed; {name} led after {took_s:.1f} s, and {count} visits meanwhile were answered."
        )
        self.switch("start", leader)
        self.wait_for(
            lambda now: now["state"] == "good" and _lag(now, leader) == "0", f"{leader['name']} did not come back"
        )

    def views(self) -> int:
        """Visit a page and return how often it was."""
        answer = self.visitor.get(READ_PAGE)
        expect(answer.status == 200, f"{READ_PAGE} answered {answer.status}, expected 200: {answer.text[:300]}")
        return int(answer.element("views"))

    def leader(self, standing: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the row of the node that leads; its address and name do not change."""
        rows = (standing or self.data())["rows"]
        return next(({"name": r["name"], "address": r["address"]} for r in rows if r["state"] == "leader"), None)

    def switch(self, do: str, node: dict[str, Any] | None) -> None:
        """Press a node's button."""
        expect(node, f"{PAGE} shows no leader.")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.visitor.get(PAGE).body)
        expect(token, f"{PAGE} has no form with a token.")
        fields = {"csrfmiddlewaretoken": token[1], "do": do, "node": node["address"]}
        sent = self.visitor.post(SWITCH, fields)
        expect(sent.status == 200, f"To {do} {node['name']} was answered with {sent.status}: {sent.text[:300]}")

    def wait_for(self, condition: Callable[[dict[str, Any]], bool], trouble: str) -> dict[str, Any]:
        """Return the data as soon as they are as they should be."""
        give_up_s = time.monotonic() + WAIT_S
        while not condition(standing := self.data()):
            words = f"{standing['headline']} {' '.join(standing['reasons'] + standing['warnings'])}"
            expect(time.monotonic() < give_up_s, f"{trouble} within {WAIT_S:.0f} s: {words}")
            time.sleep(LOOK_AGAIN_S)
        return standing

    @staticmethod
    def _visit_until(stop: threading.Event, browser: Browser) -> int:
        visits = 0
        while not stop.is_set() or not visits:
            answer = browser.get(READ_PAGE)
            expect(answer.status == 200, f"{READ_PAGE} answered {answer.status} while the leader was gone.")
            visits += 1
        return visits


def _lag(standing: dict[str, Any], node: dict[str, Any]) -> str:
    return next(row["cells"]["lag"] for row in standing["rows"] if row["address"] == node["address"])
