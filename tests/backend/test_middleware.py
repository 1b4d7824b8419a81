"""The session's token: what it holds, how it travels in a cookie, and that nobody else's counts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.signing import Signer
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from django_keyspace.backend import levels
from django_keyspace.backend.levels import CLUSTERS_MAX, Seen, note_seen, seen_index, session
from django_keyspace.middleware import (
    COOKIE_CHARACTERS_MAX,
    COOKIE_NAME,
    SessionTokenMiddleware,
    make_token,
    read_token,
)

View = Callable[[HttpRequest], HttpResponse]


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "process", Seen())


def serve(view: View, cookie: str | None = None, *, is_async: bool = False) -> HttpResponse:
    """One request through the middleware."""
    request = RequestFactory().get("/")
    if cookie is not None:
        request.COOKIES[COOKIE_NAME] = cookie
    if not is_async:
        return SessionTokenMiddleware(view)(request)  # type: ignore[return-value]

    async def aview(request: HttpRequest) -> HttpResponse:
        return await sync_to_async(view)(request)

    middleware = SessionTokenMiddleware(aview)
    assert iscoroutinefunction(middleware)
    return asyncio.run(middleware(request))  # type: ignore[arg-type]


def cookie_of(response: HttpResponse) -> str | None:
    return response.cookies[COOKIE_NAME].value if COOKIE_NAME in response.cookies else None


def page(index: int | None = None, cluster: str = "c1") -> View:
    """A view that writes, if it is given the index of its write, and says what its reads would ask for."""

    def view(request: HttpRequest) -> HttpResponse:
        before = seen_index(cluster)
        if index is not None:
            note_seen(cluster, index)
        return HttpResponse(str(before))

    return view


both = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


@both
def test_what_one_request_wrote_the_next_one_asks_for(is_async: bool) -> None:
    first = serve(page(7), is_async=is_async)
    cookie = cookie_of(first)
    assert cookie is not None and read_token(cookie) == {"c1": 7}
    second = serve(page(), cookie, is_async=is_async)
    assert second.content == b"7"
    assert cookie_of(second) is None, "nothing was added, so that nothing is set"
    third = serve(page(9), cookie, is_async=is_async)
    assert read_token(cookie_of(third)) == {"c1": 9}


@both
def test_visitors_do_not_ask_for_each_others_writes(is_async: bool) -> None:
    serve(page(1000), is_async=is_async)
    assert serve(page(), is_async=is_async).content == b"0"
    assert seen_index("c1") == 1000, "outside of a request the process has one session"


@both
def test_a_page_that_touches_no_cluster_sets_nothing(is_async: bool) -> None:
    response = serve(lambda request: HttpResponse("static"), is_async=is_async)
    assert cookie_of(response) is None and not response.has_header("Vary")


def test_the_cookie_is_small_and_not_for_scripts() -> None:
    response = serve(page(2**62))
    morsel = response.cookies[COOKIE_NAME]
    assert len(morsel.value) < 120
    assert morsel["httponly"] is True and morsel["samesite"] == "Lax" and morsel["path"] == "/"
    assert not morsel["secure"]
    assert response["Vary"] == "Cookie", "no cache gives it to somebody else"
    with override_settings(SESSION_COOKIE_SECURE=True, SESSION_COOKIE_DOMAIN="example.org", SESSION_COOKIE_PATH="/x/"):
        morsel = serve(page(3)).cookies[COOKIE_NAME]
    assert (morsel["secure"], morsel["domain"], morsel["path"]) == (True, "example.org", "/x/")


def forged(token: str) -> str:
    return Signer(salt="another").sign(token)


@pytest.mark.parametrize(
    "cookie",
    ["", "c1-7", "c1-7:", "c1-7:AAAA", forged("c1-7"), make_token({"c1": 7})[:-1], make_token({"c1": 7}) + "x", "\0", "ü" * 50,
     "x" * (COOKIE_CHARACTERS_MAX + 1)],
)  # fmt: skip
def test_a_cookie_that_is_not_ours_counts_as_none(cookie: str) -> None:
    assert read_token(cookie) == {}
    assert serve(page(), cookie).content == b"0"


@pytest.mark.parametrize(
    ("token", "indexes"),
    [("", {}), ("c1", {}), ("c1-", {}), ("-5", {}), ("c1-x", {}), ("c1--5", {"c1-": 5}), ("c1-5.c2-6", {"c1": 5, "c2": 6}),
     ("c1-²", {}), ("c1-" + "9" * 20, {}), ("c1-1.c1-2", {"c1": 2})],
)  # fmt: skip
def test_tokens_are_read_carefully_even_if_they_are_signed(token: str, indexes: dict[str, int]) -> None:
    assert read_token(Signer(salt="django_keyspace.middleware").sign(token)) == indexes


def test_a_key_that_was_replaced_is_good_for_a_while() -> None:
    with override_settings(SECRET_KEY="the old one"):
        cookie = make_token({"c1": 7})
    with override_settings(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["the old one"]):
        assert read_token(cookie) == {"c1": 7}
    with override_settings(SECRET_KEY="the new one"):
        assert read_token(cookie) == {}


def test_a_token_of_many_clusters_stays_small() -> None:
    token = make_token({f"{number:016x}": 10**18 + number for number in range(50)})
    assert len(token) < COOKIE_CHARACTERS_MAX
    assert 0 < len(read_token(token)) < 50


def test_an_error_in_a_view_ends_the_session_all_the_same() -> None:
    def broken(request: HttpRequest) -> HttpResponse:
        note_seen("c1", 5)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        serve(broken)
    assert seen_index("c2") == 0
    note_seen("c1", 6)
    assert seen_index("c1") == 6


# --- What a session has seen


def test_indexes_only_grow() -> None:
    with session({"c1": 5}) as seen:
        for index in (3, 9, 7):
            note_seen("c1", index)
        assert seen_index("c1") == 9 and seen.as_dict() == {"c1": 9}
        with session() as inner:
            note_seen("c2", 1)
            assert seen_index("c1") == 0
        assert seen_index("c2") == 0 and inner.as_dict() == {"c2": 1}
    assert seen_index("c1") == 9, "the process has seen what its sessions have"


def test_the_tasks_and_threads_of_a_session_share_it() -> None:
    async def main() -> int:
        with session():

            async def write(index: int) -> None:
                await asyncio.sleep(0)
                note_seen("c1", index)

            await asyncio.gather(write(3), write(8), sync_to_async(note_seen)("c1", 5))
            return seen_index("c1")

    assert asyncio.run(main()) == 8


def test_two_tasks_have_sessions_of_their_own() -> None:
    async def visitor(index: int) -> int:
        with session():
            note_seen("c1", index)
            await asyncio.sleep(0.001)
            return seen_index("c1")

    async def main() -> list[int]:
        return await asyncio.gather(*[visitor(index) for index in (5, 3, 9)])

    assert asyncio.run(main()) == [5, 3, 9]


def test_threads_lose_no_index() -> None:
    seen = Seen()
    barrier = threading.Barrier(4)

    def work(first: int) -> None:
        barrier.wait()
        for index in range(first, 20_000, 4):
            seen.note("c1", index)
            assert seen.index("c1") >= index

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.index("c1") == 19_999


def test_a_session_remembers_the_latest_clusters_only() -> None:
    seen = Seen()
    for number in range(CLUSTERS_MAX + 5):
        seen.note(f"c{number}", 1)
    found: dict[str, Any] = seen.as_dict()
    assert len(found) == CLUSTERS_MAX and f"c{CLUSTERS_MAX + 4}" in found
