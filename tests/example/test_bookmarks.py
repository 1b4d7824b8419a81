"""Bookmarks: the form, the list with its filters, and what two tabs do to each other."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from tests.example.test_pages import Balance, text_of


def fields(**changed: str) -> dict[str, str]:
    return {"module": "json", "shelf": "later", "stars": "3", "note": "", **changed}


def add(browser, **changed: str) -> None:
    response = browser.post("/bookmarks/new/", fields(**changed))
    assert response["Location"] == "/bookmarks/?done=saved", text_of(response)


def listed(browser, query: str = "") -> list[str]:
    page = text_of(browser.get(f"/bookmarks/{query}"))
    return re.findall(r'<p class="head"><a href="/bookmarks/\d+/">([\w.]+)</a>', page)


def shown_plan(browser, query: str = "") -> str:
    return re.search(r'<span id="plan">(.*?)</span>', text_of(browser.get(f"/bookmarks/{query}")))[1]  # type: ignore[index]


def the_bookmark():
    from reader.models import Bookmark

    return Bookmark.objects.get()


def revision_in(response) -> str:
    return re.search(r'name="revision" value="(\d+)"', text_of(response))[1]  # type: ignore[index]


def test_a_bookmark_is_saved_and_listed(browser):
    assert listed(browser) == []
    form = text_of(browser.get("/bookmarks/new/?module=json"))
    assert 'value="json"' in form
    add(browser, note="The <b>encoder</b>")
    page = text_of(browser.get("/bookmarks/?done=saved"))
    assert "Bookmark saved." in page
    assert "The &lt;b&gt;encoder&lt;/b&gt;" in page
    assert listed(browser) == ["json"]
    assert listed(Client()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"module": "no_such_module"}, "The site shows no module no_such_module."),
        ({"module": "../../etc/passwd"}, "The site shows no module ../../etc/passwd."),
        ({"module": ""}, "This field is required."),
        ({"shelf": "nowhere"}, "Select a valid choice."),
        ({"stars": "9"}, "Select a valid choice."),
        ({"note": "x" * 501}, "Ensure this value has at most 500 characters"),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(browser, changed, sentence):
    response = browser.post("/bookmarks/new/", fields(**changed))
    assert response.status_code == 422
    assert sentence in text_of(response)
    assert listed(browser) == []


def test_a_module_is_bookmarked_once(browser):
    add(browser)
    response = browser.post("/bookmarks/new/", fields())
    assert response.status_code == 422
    assert "already exists." in text_of(response)
    add(Client())  # somebody else's is another one
    add(browser, module="stat")
    (path,) = re.findall(r'href="(/bookmarks/\d+/)">stat<', text_of(browser.get("/bookmarks/")))
    response = browser.post(path, fields(revision=revision_in(browser.get(path))))
    assert response.status_code == 422
    assert listed(browser) == ["stat", "json"]


def test_filters_and_orders_come_from_indexes(browser):
    for number, name in enumerate(("json", "stat", "abc", "ast", "bisect")):
        add(browser, module=name, shelf=("later", "now")[number % 2], stars=str(number + 1))
    assert listed(browser) == ["bisect", "ast", "abc", "stat", "json"]
    assert listed(browser, "?order=oldest") == ["json", "stat", "abc", "ast", "bisect"]
    assert listed(browser, "?shelf=now") == ["ast", "stat"]
    assert listed(browser, "?stars=4&order=stars") == ["bisect", "ast"]
    assert listed(browser, "?shelf=later&stars=2") == ["bisect", "abc"]
    assert listed(browser, "?shelf=nonsense&stars=x&page=-7") == ["bisect", "ast", "abc", "stat", "json"]
    assert "No bookmark is like that." in text_of(browser.get("/bookmarks/?shelf=done"))
    assert "index visitor, saved_at, backwards" in shown_plan(browser)
    assert "index visitor, shelf, saved_at" in shown_plan(browser, "?shelf=now")
    assert "index visitor, stars, saved_at" in shown_plan(browser, "?stars=4&order=stars")
    assert browser.session["visitor"] not in text_of(browser.get("/bookmarks/?shelf=now"))


def test_the_list_has_pages(browser):
    from reader.models import Bookmark

    add(browser)
    token = browser.session["visitor"]
    Bookmark.objects.bulk_create([Bookmark(visitor=token, module=f"json.m{number}") for number in range(24)])
    pages = [listed(browser, f"?page={number}&order=oldest") for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert len({*pages[0], *pages[1], *pages[2]}) == 25
    first = text_of(browser.get("/bookmarks/?order=oldest&done=saved"))
    assert 'href="?order=oldest&amp;page=2"' in first
    assert "Previous" not in first
    assert listed(browser, "?page=99&order=oldest") == pages[2]


def test_two_tabs_that_change_one_bookmark(browser):
    add(browser)
    path = f"/bookmarks/{the_bookmark().pk}/"
    one, other = browser.get(path), browser.get(path)
    assert browser.post(path, fields(note="first", revision=revision_in(one))).status_code == 302
    conflict = browser.post(path, fields(note="second", stars="5", revision=revision_in(other)))
    assert conflict.status_code == 409
    page = text_of(conflict)
    assert "Two versions" in page
    rows = re.findall(r'<tr class="differs"><th scope="row">(\w+)</th><td>(.*?)</td><td>(.*?)</td>', page)
    assert rows == [("Stars", "★★★★★", "★★★"), ("Note", "second", "first")]
    assert the_bookmark().note == "first"

    # Somebody is faster once more: the question comes again, and then mine is stored.
    again = browser.get(path)
    assert browser.post(path, fields(note="third", revision=revision_in(again))).status_code == 302
    second_conflict = browser.post(path, fields(note="second", revision=revision_in(conflict)))
    assert (second_conflict.status_code, the_bookmark().note) == (409, "third")
    assert browser.post(path, fields(note="second", revision=revision_in(second_conflict))).status_code == 302
    assert the_bookmark().note == "second"


def test_a_bookmark_that_was_deleted_meanwhile_can_be_saved_anew(browser):
    add(browser)
    path = f"/bookmarks/{the_bookmark().pk}/"
    tab = browser.get(path)
    assert browser.post(f"{path}delete/")["Location"] == "/bookmarks/?done=deleted"
    response = browser.post(path, fields(note="typed for an hour", revision=revision_in(tab)))
    assert response.status_code == 409
    assert "was deleted" in text_of(response)
    assert "typed for an hour" in text_of(response)
    assert 'action="/bookmarks/new/"' in text_of(response)
    add(browser, note="typed for an hour", revision="")
    assert the_bookmark().note == "typed for an hour"


def test_another_visitors_bookmark_is_out_of_reach(browser):
    add(browser)
    path = f"/bookmarks/{the_bookmark().pk}/"
    stranger = Client()
    add(stranger, module="stat")
    assert stranger.get(path).status_code == 404
    assert stranger.post(path, fields(note="mine now", revision="1")).status_code == 409
    stranger.post(f"{path}delete/")
    assert listed(browser) == ["json"]
    assert "mine now" not in text_of(browser.get("/bookmarks/"))


@pytest.mark.parametrize("path", ["new/", "1/", "1/delete/"])
def test_forms_want_their_token(site, path):
    assert Client(enforce_csrf_checks=True).post(f"/bookmarks/{path}", fields()).status_code == 403


def test_the_pages_are_whole(browser):
    add(browser)
    path = f"/bookmarks/{the_bookmark().pk}/"
    answers = [browser.get(each) for each in ("/bookmarks/", "/bookmarks/new/", path)]
    answers += [browser.post("/bookmarks/new/", {}), browser.post(path, fields(note="stale", revision="1"))]
    for answer in answers:
        balance = Balance()
        balance.feed(text_of(answer))
        balance.close()
        assert balance.open == []
        assert len(balance.ids) == len(set(balance.ids))
        assert " style=" not in text_of(answer)


def test_visitors_and_their_reads_are_objects(browser):
    from reader.models import VISITOR_TIMEOUT, Read, Visitor

    for name in ("colorsys", "stat", "colorsys"):
        browser.get(f"/module/{name}/")
    visitor = Visitor.objects.get()
    assert (visitor.token, visitor.reads) == (browser.session["visitor"], 3)
    assert visitor.ttl() > VISITOR_TIMEOUT.total_seconds() - 3600
    assert Read.objects.filter(visitor=visitor.token).count() == 2
    assert re.search(r"<dt>Visitors</dt><dd>1 ", text_of(browser.get("/cache/")))


def test_clearing_the_cache_leaves_the_objects(browser):
    from django.core.cache import caches

    add(browser)
    for alias in caches:
        caches[alias].clear()
    assert the_bookmark().module == "json"


def test_the_settings_pass_djangos_checks(site, only_models):
    from django.core.checks import run_checks

    only_models("reader")
    assert run_checks() == []
