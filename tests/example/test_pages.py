"""The pages, as a visitor gets them."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

VOID = {"meta", "link", "input", "rect", "br", "img", "path"}


class Balance(HTMLParser):
    """Checks that elements are closed in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def text_of(response) -> str:
    return response.content.decode()


def test_a_page_is_rendered_once_and_its_views_count(browser):
    cold = browser.get("/module/colorsys/")
    warm = browser.get("/module/colorsys/")
    assert (cold["X-Page-Cache"], warm["X-Page-Cache"]) == ("miss", "hit")
    assert "rgb_to_hls" in text_of(cold)
    assert '<dd id="views">1</dd>' in text_of(cold)
    assert '<dd id="views">2</dd>' in text_of(warm)
    assert cache.get("views:colorsys") == 2
    assert cache.ttl("views:colorsys") is None
    assert cache.get("warm:colorsys") < cache.get("cold:colorsys")


def test_head_counts_no_view(browser):
    assert browser.head("/module/colorsys/").status_code == 200
    assert cache.get("views:colorsys") is None


def test_recently_read_belongs_to_the_visitor(browser):
    for name in ("colorsys", "this_is_no_module", "stat", "colorsys"):
        browser.get(f"/module/{name}/")
    recent = re.search(r'id="recent">(.*?)</ul>', text_of(browser.get("/")))
    assert recent is not None
    assert re.findall(r">([\w.]+)</a>", recent[1]) == ["colorsys", "stat"]
    assert 'id="recent"' not in text_of(Client().get("/"))


def test_recently_read_keeps_eight(browser):
    from reader.models import Read

    browser.get("/module/colorsys/")
    token = browser.session["visitor"]
    minutes = [timezone.now() - timedelta(minutes=number + 1) for number in range(9)]
    Read.objects.bulk_create(
        [Read(visitor=token, module=f"module{number}", read_at=at) for number, at in enumerate(minutes)]
    )
    browser.get("/module/stat/")
    kept = ["stat", "colorsys", *(f"module{number}" for number in range(6))]
    assert [read.module for read in Read.objects.filter(visitor=token).order_by("-read_at")] == kept


def test_most_read_is_in_order(browser):
    cache.set_many({"views:json": 5, "views:os": 12, "views:abc": 5}, None)
    names = re.findall(r'<th scope="row"><a href="/module/(\w+)/">', text_of(browser.get("/most-read/")))
    assert names == ["os", "abc", "json"]


def test_the_module_list_is_made_of_cached_fragments(browser, monkeypatch):
    from reader import catalogue

    first = text_of(browser.get("/"))
    assert 'href="/module/json/"' in first
    monkeypatch.setattr(catalogue, "all_modules", lambda: pytest.fail("the fragment was made again"))
    assert text_of(browser.get("/")) == first


def test_search(browser):
    found = text_of(browser.get("/", {"q": "JSON"})).partition("<aside")[0]
    assert re.findall(r'<li><a href="/module/([\w.]+)/">', found)[0] == "json"
    nothing = text_of(browser.get("/", {"q": '"><script>alert(1)</script>'}))
    assert "<script" not in nothing
    assert "Nothing by that name" in nothing


def test_searches_are_limited_by_address(browser, site):
    site.READER = {**site.READER, "searches_per_minute": 3}
    assert [browser.get("/?q=x").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = browser.get("/?q=x")
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert browser.get("/?q=x", REMOTE_ADDR="127.0.0.2").status_code == 200
    assert browser.get("/").status_code == 200


def test_asking_on_does_not_prolong_the_limit(browser, site):
    site.READER = {**site.READER, "searches_per_minute": 1}
    browser.get("/?q=x")
    first_ttl_s = cache.ttl("limit:search:127.0.0.1")
    browser.get("/?q=x")
    assert cache.ttl("limit:search:127.0.0.1") <= first_ttl_s


def test_cache_page_keeps_the_whole_response(browser):
    first = browser.get("/python/")
    assert text_of(browser.get("/python/")) == text_of(first)
    assert cache.count(prefix="views.decorators.cache.") >= 1
    cache.clear()
    assert text_of(browser.get("/python/")) != text_of(first)


def test_the_cache_page_reports_what_is_there(browser):
    browser.get("/module/colorsys/")
    browser.get("/module/colorsys/")
    page = text_of(browser.get("/cache/?keys=pages"))
    assert ">page:colorsys<" in page
    assert re.search(r'<a href="/module/colorsys/">colorsys</a></th><td class="number">[\d,]+</td>', page)
    assert re.search(r"<dt>Hits</dt><dd>[1-9][\d,]*</dd>", page)


@pytest.mark.parametrize("family", ["sessions", "limits", "nonsense", ""])
def test_keys_that_are_secret_are_not_listed(browser, family):
    browser.get("/module/colorsys/")
    browser.get("/?q=x")
    page = text_of(browser.get(f"/cache/?keys={family}"))
    assert browser.cookies[settings.SESSION_COOKIE_NAME].value not in page
    assert "127.0.0.1" not in page.replace(settings.CACHES["default"]["LOCATION"], "")
    assert 'id="listed"' not in page


def test_forgetting_drops_rendered_pages_only(browser):
    browser.get("/module/colorsys/")
    assert browser.get("/cache/forget/").status_code == 405
    assert browser.post("/cache/forget/")["Location"] == "/cache/?forgot=1"
    assert cache.get("page:colorsys") is None
    assert cache.get("views:colorsys") == 1
    assert 'id="recent"' in text_of(browser.get("/"))


def test_forgetting_wants_the_forms_token(site):
    assert Client(enforce_csrf_checks=True).post("/cache/forget/").status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/nowhere/", "/module/antigravity/", "/module/reader.views/", "/module/json.nope/", "/static/nothing.css"],
)
def test_what_is_not_there_is_a_clean_404(browser, path):
    response = browser.get(path)
    assert response.status_code == 404
    assert "Not found" in text_of(response)


def test_static_files_are_those_of_the_site_and_no_others(browser):
    style = browser.get("/static/reader.css")
    assert (style.status_code, style["Content-Type"]) == (200, "text/css")
    style.close()
    assert browser.get("/static/../views.py").status_code == 400


def test_a_module_that_cannot_be_imported_has_a_clean_page(browser):
    response = browser.get("/module/django.contrib.auth.models/")
    assert response.status_code == 200
    assert "ImproperlyConfigured" in text_of(response)
    assert "Traceback" not in text_of(response)
    assert cache.get("views:django.contrib.auth.models") is None


@pytest.mark.parametrize(
    "path", ["/", "/?q=json", "/module/json/", "/most-read/", "/bookmarks/", "/python/", "/cache/?keys=views", "/nope"]
)
def test_every_page_is_whole_and_needs_nothing_from_elsewhere(browser, path):
    browser.get("/module/colorsys/")
    response = browser.get(path)
    page = text_of(response)
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))
    assert re.findall(r'<link[^>]* href="([^"]+)"', page) == ["/static/icon.svg", "/static/reader.css"]
    assert "<script" not in page and " style=" not in page
    assert page.count("<h1") == 1
    assert '<html lang="en">' in page
    assert "default-src 'none'" in response["Content-Security-Policy"]
    assert response["X-Content-Type-Options"] == "nosniff"


def test_a_cache_that_fails_is_a_clean_page_and_not_a_traceback(site, monkeypatch):
    from reader import readers

    def fail(*arguments, **options):
        raise ConnectionError("no node here")

    monkeypatch.setattr(readers, "most_read", fail)
    response = Client(raise_request_exception=False).get("/most-read/")
    assert response.status_code == 500
    assert "Something went wrong" in text_of(response)
    assert "no node here" not in text_of(response)
