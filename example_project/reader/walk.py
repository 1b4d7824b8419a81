"""The walk of ``demo --check``: visits the whole site as a browser would, and says what is off.

Two server processes share one cache here, as the workers of a real site do: what one of them stores, counts and
remembers, the other must see.
"""

from __future__ import annotations

import re
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.conf import settings

from reader.browser import Answer, Browser
from reader.expectations import expect
from reader.walk_bookmarks import BookmarkWalk
from reader.walk_nodes import NodesWalk

PAGES = ("asyncio", "decimal", "json", "typing", "unittest.mock", "django.test.client")
WARM_VISITS = 5
FAILING_MODULE = "django.contrib.auth.models"  # Wants configured settings, which the renderer does not have.
NOT_SHOWN = ("antigravity", "json.nonsense", "..%2F..%2Fetc", "reader.views", "os._exit", "json.__main__")
PARALLEL_VISITORS = 8
PARALLEL_VISITS = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one page took from outside: first, and then the median of the visits after."""

    path: str
    cold_ms: float
    warm_ms: float


class Walk:
    """One visit of the site, in order: later steps rely on what earlier ones left in the cache."""

    def __init__(self, site: str, second_site: str, nodes: int = 0) -> None:
        """Visit ``site``; ``second_site`` is another server process on the same cache, which is on so many nodes."""
        self.visitor = Browser(site)
        self.second_site = second_site
        self.site = site
        self.nodes = nodes
        self.timings: list[Timing] = []
        self.remarks: list[str] = []

    def run(self) -> list[Timing]:
        """Do all steps and return the timings. Raises WalkFailed at the first thing that is off."""
        self.module_list()
        for name in PAGES:
            self.module_page(name)
        self.most_read()
        self.recently_read()
        self.counters_are_atomic()
        self.status()
        self.cached_view()
        self.clean_errors()
        self.cache_report()
        self.forget_pages()
        self.second_process()
        self.bookmarks()
        self.searches_are_limited()
        return self.timings

    def page(self, path: str, status: int = 200) -> Answer:
        """Load a page and check what must hold for all of them."""
        answer = self.visitor.get(path)
        expect(answer.status == status, f"{path} answered {answer.status}, expected {status}: {answer.text[:300]}")
        policy = answer.headers.get("Content-Security-Policy", "")
        expect("default-src 'none'" in policy, f"{path} came without its content security policy.")
        return answer

    def timed(self, path: str, cold: Answer, warm: list[Answer]) -> None:
        """Keep the timing of a page."""
        self.timings.append(Timing(path, cold.took_ms, statistics.median(answer.took_ms for answer in warm)))

    def module_list(self) -> None:
        """The list names standard and installed modules, and its style sheet is there."""
        cold = self.page("/")
        for name in ("json", "asyncio", "django", "django_keyspace"):
            expect(f'href="/module/{name}/"' in cold.body, f"The module list does not name {name}.")
        expect("antigravity" not in cold.body, "The module list names antigravity, which opens a browser.")
        warm = [self.page("/") for _ in range(WARM_VISITS)]
        self.timed("/", cold, warm)
        style = self.page("/static/reader.css")
        expect(style.headers.get_content_type() == "text/css", "The style sheet is not served as text/css.")

    def module_page(self, name: str) -> None:
        """A page is rendered once, then comes from the cache unchanged, and each visit counts."""
        path = f"/module/{name}/"
        cold = self.page(path)
        expect(cold.headers["X-Page-Cache"] == "miss", f"The first visit of {path} did not render it.")
        expect(f"<h1><code>{name}</code></h1>" in cold.body, f"{path} has no heading with the module's name.")
        expect(len(cold.text) > 500, f"{path} shows hardly anything: {cold.text[:200]}")
        warm = [self.page(path) for _ in range(WARM_VISITS)]
        article = _article(cold)
        for count, answer in enumerate(warm, start=2):
            expect(answer.headers["X-Page-Cache"] == "hit", f"Visit {count} of {path} was rendered again.")
            expect(_article(answer) == article, f"{path} from the cache differs from the page that was rendered.")
            views = answer.element("views")
            expect(views == str(count), f"{path} shows {views} views, expected {count}.")
        self.timed(path, cold, warm)

    def most_read(self) -> None:
        """The most-read page shows every page just visited; one more visit puts a page on top."""
        self.page("/module/json/")
        answer = self.page("/most-read/")
        names = re.findall(r'<th scope="row"><a href="/module/([^/]+)/">', answer.body)
        expect(names and names[0] == "json", f"json has the most views and is not first in the most-read list {names}.")
        missing = set(PAGES) - set(names)
        expect(not missing, f"The most-read list lacks {', '.join(sorted(missing))}.")

    def recently_read(self) -> None:
        """The session remembers what this visitor read, latest first; a stranger has no such list."""
        shown = self.page("/").element("recent").split()
        expected = ["json", *(name for name in reversed(PAGES) if name != "json")]
        expect(shown == expected, f'"Recently read" shows {shown}, expected {expected}.')
        stranger = Browser(self.site).get("/")
        expect(not stranger.element("recent"), 'A visitor who read nothing sees somebody\'s "Recently read" list.')

    def counters_are_atomic(self) -> None:
        """Visits at the same moment, half of them at the other server process, are all counted."""
        before = int(self.page("/module/decimal/").element("views"))

        def visit(number: int) -> None:
            browser = Browser((self.site, self.second_site)[number % 2])
            for _ in range(PARALLEL_VISITS):
                answer = browser.get("/module/decimal/")
                expect(answer.status == 200, f"/module/decimal/ answered {answer.status} to one of several visitors.")

        with ThreadPoolExecutor(PARALLEL_VISITORS) as pool:
            list(pool.map(visit, range(PARALLEL_VISITORS)))
        expected = before + PARALLEL_VISITORS * PARALLEL_VISITS + 1
        views = self.page("/module/decimal/").element("views")
        expect(views == str(expected), f"After visits in parallel decimal shows {views} views, expected {expected}.")

    def status(self) -> None:
        """The status page is right about the store; on a cluster the leader dies, and nothing else does."""
        walk = NodesWalk(self.visitor, self.second_site, self.nodes)
        walk.run()
        self.remarks += walk.remarks

    def cached_view(self) -> None:
        """The view under cache_page keeps its response, the time of making included."""
        cold = self.page("/python/")
        warm = [self.page("/python/") for _ in range(WARM_VISITS)]
        same = all(answer.body == cold.body for answer in warm)
        expect(same, "/python/ changed between two visits, so cache_page did not keep it.")
        self.timed("/python/", cold, warm)

    def clean_errors(self) -> None:
        """What does not exist or may not be shown is a clean 404; a failing import is a clean page."""
        for path in ("/nowhere/", *(f"/module/{name}/" for name in NOT_SHOWN)):
            answer = self.page(path, status=404)
            expect("Not found" in answer.text, f"{path} answers 404 without the site's own page.")
        failed = self.page(f"/module/{FAILING_MODULE}/")
        expect("can't be imported" in failed.text, f"/module/{FAILING_MODULE}/ does not say that its import failed.")
        expect("Traceback" not in failed.body, f"/module/{FAILING_MODULE}/ shows a traceback.")

    def cache_report(self) -> None:
        """The report's figures agree with what was just done."""
        answer = self.page("/cache/?keys=pages")
        hits, keys = _number(answer.term("Hits")), _number(answer.term("Keys"))
        expect(hits >= len(PAGES) * WARM_VISITS, f"/cache/ reports {hits} hits, fewer than pages were served from it.")
        expect(_number(answer.term("Misses")) > 0, "/cache/ reports no misses, though every page was cold once.")
        expect(keys >= 3 * len(PAGES), f"/cache/ reports {keys} keys, fewer than the pages and counters just made.")
        expect(re.match("[1-9]", answer.term("Size")), "/cache/ reports no size.")
        for name in PAGES:
            expect(f">page:{name}<" in answer.body, f"/cache/ does not list the key page:{name}.")
        expect("Rendered pages" in answer.text and "×" in answer.text, "/cache/ shows no gain for any page.")
        secrets = [cookie.value for cookie in self.visitor.cookies if cookie.name == settings.SESSION_COOKIE_NAME]
        expect(secrets and not any(str(value) in answer.body for value in secrets), "/cache/ shows a session key.")

    def forget_pages(self) -> None:
        """The button drops the rendered pages and nothing else; without the form's token it does nothing."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.page("/cache/").body)
        expect(token, "/cache/ has no form to forget the rendered pages.")
        forged = Browser(self.site).post("/cache/forget/", {"csrfmiddlewaretoken": "x" * 64})
        expect(forged.status == 403, f"A forged form was answered with {forged.status}, expected 403.")
        views = int(self.page("/module/json/").element("views"))
        sent = self.visitor.post("/cache/forget/", {"csrfmiddlewaretoken": token[1] if token else ""})
        expect(sent.status == 200 and "forgotten" in sent.text, f"Forgetting the pages answered {sent.status}.")
        answer = self.page("/module/json/")
        expect(answer.headers["X-Page-Cache"] == "miss", "A forgotten page still came from the cache.")
        expect(answer.element("views") == str(views + 1), "Forgetting the pages changed a view counter.")

    def second_process(self) -> None:
        """Another server process has the page, the session and the counters too."""
        views = int(self.page("/module/json/").element("views"))
        self.visitor.site = self.second_site
        answer = self.page("/module/json/")
        expect(answer.headers["X-Page-Cache"] == "hit", "A second server process does not see the first one's pages.")
        expect(answer.element("views") == str(views + 1), "A second server process counts views by itself.")
        recent = self.page("/").element("recent").split()
        expect(recent[:1] == ["json"], f'A second server process shows "Recently read" as {recent}.')
        self.visitor.site = self.site

    def bookmarks(self) -> None:
        """Bookmarks are stored, filtered and changed, and a conflict between two tabs is shown."""
        cold = self.page("/bookmarks/")
        BookmarkWalk(self.visitor, self.second_site).run()
        self.timed("/bookmarks/", cold, [self.page("/bookmarks/") for _ in range(WARM_VISITS)])

    def searches_are_limited(self) -> None:
        """A search finds what it should; too many in a minute are answered 429 with the time to wait."""
        found = self.page("/?q=json")
        names = re.findall(r'<li><a href="/module/([^/]+)/">', found.body.partition("<aside")[0])
        expect(names[:1] == ["json"], f"A search for json finds {names}, expected json first.")
        expect("decimal" not in names, "A search for json finds decimal.")
        limit = settings.READER["searches_per_minute"]
        for count in range(2, limit + 1):
            self.page(f"/?q=number+{count}")
        refused = self.page("/?q=one+more", status=429)
        wait_s = refused.headers.get("Retry-After", "")
        expect(wait_s.isdigit() and 1 <= int(wait_s) <= 60, f"A refusal says Retry-After {wait_s!r}, not 1 to 60.")
        self.page("/")


def _article(answer: Answer) -> str:
    """Return the part of a module's page that is kept in the cache."""
    found = re.search(r"<article[^>]*>(.*)</article>", answer.body, re.DOTALL)
    return found[1] if found else ""


def _number(text: str) -> int:
    """Return a number as the site writes it, or -1 if it is none."""
    digits = text.replace(",", "")
    return int(digits) if digits.isdigit() else -1
