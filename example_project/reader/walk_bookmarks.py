"""The part of ``demo --check`` that keeps bookmarks: adds, filters, changes them, and lets two tabs collide."""

from __future__ import annotations

import re

from reader.browser import Answer, Browser
from reader.expectations import expect

LIST = "/bookmarks/"
NEW = "/bookmarks/new/"


class BookmarkWalk:
    """One visitor with two tabs, which are at two server processes."""

    def __init__(self, visitor: Browser, second_site: str) -> None:
        """Go on with this visitor's cookies; ``second_site`` is the other tab's."""
        self.visitor = visitor
        self.other_tab = Browser(second_site, visitor.cookies)

    def run(self) -> None:
        """Do all steps. Raises WalkFailed at the first thing that is off."""
        self.add()
        self.filter()
        self.refuse_what_is_wrong()
        self.collide()
        self.delete()
        self.keep_to_itself()

    def listed(self, query: str = "", tab: Browser | None = None) -> list[tuple[str, str]]:
        """Return (address, module) of each bookmark that the list shows."""
        answer = (tab or self.visitor).get(f"{LIST}{query}")
        expect(answer.status == 200, f"{LIST}{query} answered {answer.status}: {answer.text[:300]}")
        return re.findall(r'<p class="head"><a href="([^"]+)">([^<]+)</a>', answer.body)

    def names(self, query: str = "") -> list[str]:
        """Return the modules of the list."""
        return [name for _, name in self.listed(query)]

    def send(self, path: str, form: Answer, tab: Browser | None = None, **fields: str) -> Answer:
        """Send a form as it came, with some fields changed."""
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form.body))
        return (tab or self.visitor).post(path, {"shelf": "later", "stars": "3", "note": "", **hidden, **fields})

    def add(self) -> None:
        """Bookmarks are stored and listed, the latest first; the other server process has them too."""
        for name, shelf, stars in (("json", "later", "4"), ("decimal", "now", "2"), ("asyncio", "now", "5")):
            sent = self.send(NEW, self.visitor.get(f"{NEW}?module={name}"), module=name, shelf=shelf, stars=stars)
            expect(sent.status == 200 and "Bookmark saved." in sent.text, f"Adding {name} answered {sent.status}.")
        expect(self.names() == ["asyncio", "decimal", "json"], f"{LIST} shows {self.names()} after three were added.")
        expect(self.listed(tab=self.other_tab) == self.listed(), "A second server process shows other bookmarks.")

    def filter(self) -> None:
        """Filters find what they should, through an index each."""
        for query, expected, index in (
            ("?shelf=now", ["asyncio", "decimal"], "visitor, shelf, saved_at"),
            ("?order=stars", ["asyncio", "json", "decimal"], "visitor, stars, saved_at"),
            ("?order=oldest", ["json", "decimal", "asyncio"], "visitor, saved_at"),
        ):
            expect(self.names(query) == expected, f"{LIST}{query} shows {self.names(query)}, expected {expected}.")
            plan = self.visitor.get(f"{LIST}{query}").element("plan")
            expect(f"index {index}" in plan, f'{LIST}{query} was found by "{plan}", expected the index {index}.')

    def refuse_what_is_wrong(self) -> None:
        """What a field does not take is said beside it, and nothing is stored."""
        for name, sentence in (
            ("no_such_module", "The site shows no module"),
            ("json", "already exists"),
        ):
            sent = self.send(NEW, self.visitor.get(NEW), module=name)
            expect(
                sent.status == 422 and sentence in sent.text, f"A wrong form was answered {sent.status}: {sent.text}"
            )
        expect(len(self.names()) == 3, "A form that was refused stored something.")

    def collide(self) -> None:
        """Two tabs change one bookmark: the second is shown both versions, and goes on with its own."""
        (path,) = (path for path, name in self.listed() if name == "json")
        mine, theirs = self.visitor.get(path), self.other_tab.get(path)
        self.send(path, theirs, self.other_tab, module="json", note="from the other tab")
        conflict = self.send(path, mine, module="json", note="from this tab")
        expect(conflict.status == 409, f"A form that was overtaken was answered {conflict.status}, expected 409.")
        versions = conflict.element("versions")
        for note in ("from this tab", "from the other tab"):
            expect(note in versions, f'The page about the conflict lacks "{note}": {versions}')
        expect(
            "from the other tab" in self.visitor.get(path).body, "A form that was overtaken was stored all the same."
        )
        self.send(path, conflict, module="json", note="from both tabs")
        expect("from both tabs" in self.other_tab.get(path).body, "The settled version was not stored.")

    def delete(self) -> None:
        """A bookmark goes; what another tab sends for it then is not lost."""
        (path,) = (path for path, name in self.listed() if name == "decimal")
        form = self.other_tab.get(path)
        self.send(f"{path}delete/", self.visitor.get(path))
        expect("decimal" not in self.names(), "A deleted bookmark is still listed.")
        late = self.send(path, form, self.other_tab, module="decimal", note="typed for an hour")
        kept = late.status == 409 and "typed for an hour" in late.body
        expect(kept, f"A form for a bookmark that was deleted meanwhile was answered {late.status}.")

    def keep_to_itself(self) -> None:
        """A stranger sees none of it."""
        stranger = Browser(self.visitor.site)
        expect(stranger.get(LIST).element("found") == "0 bookmarks", "A stranger sees bookmarks.")
        for path, _ in self.listed():
            status = stranger.get(path).status
            expect(status == 404, f"A stranger got {path} with {status}, expected 404.")
