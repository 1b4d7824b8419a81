"""A small browser for ``demo --check``: follows links and redirects, keeps cookies, reads pages as text."""

from __future__ import annotations

import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from html import unescape
from http.cookiejar import CookieJar

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request, and how long the visitor waited for it."""

    status: int
    headers: Message
    body: str
    took_ms: float

    @property
    def text(self) -> str:
        """The body without its tags, as somebody would read it."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.body)).split())

    def element(self, element_id: str) -> str:
        """Return the text of the element with this id, or an empty text if the page has none."""
        found = re.search(rf'<(\w+)[^>]* id="{re.escape(element_id)}"[^>]*>(.*?)</\1>', self.body, re.DOTALL)
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[2])).split()) if found else ""

    def term(self, name: str) -> str:
        """Return what a definition list of the page says about ``name``, or an empty text."""
        found = re.search(rf"<dt>{re.escape(name)}</dt><dd[^>]*>(.*?)</dd>", self.body, re.DOTALL)
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", found[1])).split()) if found else ""


class Browser:
    """One visitor with one set of cookies."""

    def __init__(self, site: str, cookies: CookieJar | None = None) -> None:
        """Start at ``site``, the address without a path; with the cookies of another browser it is that one's second tab."""
        self.site = site.rstrip("/")
        self.cookies = CookieJar() if cookies is None else cookies
        # An empty ProxyHandler: a proxy that the environment names has no business between us and the loopback address.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def get(self, path: str) -> Answer:
        """Load a page of the site."""
        return self._open(urllib.request.Request(self.site + path))

    def post(self, path: str, fields: dict[str, str]) -> Answer:
        """Send a form of the site."""
        data = urllib.parse.urlencode(fields).encode()
        return self._open(urllib.request.Request(self.site + path, data=data))

    def _open(self, request: urllib.request.Request) -> Answer:
        started = time.perf_counter()
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                body, status, headers = response.read(), response.status, response.headers
        except urllib.error.HTTPError as error:  # 404 and 429 are answers too.
            with error:
                body, status, headers = error.read(), error.code, error.headers
        took_ms = (time.perf_counter() - started) * 1000
        return Answer(status, headers, body.decode("utf-8"), took_ms)
