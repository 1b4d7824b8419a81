"""``SessionTokenMiddleware``: each visitor reads their own writes, whichever worker and node serves them.

For aliases of a cluster with the option ``consistency`` set to ``session``. See docs/consistency.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.signing import BadSignature, Signer
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_vary_headers

from django_keyspace.backend.levels import Seen, session

COOKIE_NAME: Final = "keyspace_token"
COOKIE_AGE_S: Final = 3600
"""Every node has long seen by then what the token asks for."""
COOKIE_CHARACTERS_MAX: Final = 1024
CLUSTERS_MAX: Final = 8
"""A token is about so many clusters at most."""
_DIGITS_MAX: Final = 19


class SessionTokenMiddleware:
    """Carries what a visitor has written and read in a signed cookie, from request to request.

    The cookie holds the id of each cluster and an index of its log, no data and nothing about the visitor. It is set by pages
    that have read or written something newer than what it says. A cookie that is not ours, or of a cluster that is gone, counts
    as none. Sync and async.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        known = read_token(request.COOKIES.get(COOKIE_NAME))
        with session(known) as seen:
            response: HttpResponseBase = self.get_response(request)
        return _with_cookie(response, known, seen)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        known = read_token(request.COOKIES.get(COOKIE_NAME))
        with session(known) as seen:
            response: HttpResponseBase = await self.get_response(request)
        return _with_cookie(response, known, seen)


def read_token(text: str | None) -> dict[str, int]:
    """What a cookie says: an index by cluster. Empty for what is missing, forged or malformed."""
    if not text or len(text) > COOKIE_CHARACTERS_MAX:
        return {}
    try:
        token = _signer().unsign(text)
    except BadSignature:
        return {}
    indexes: dict[str, int] = {}
    for part in token.split("."):
        cluster, _, index = part.rpartition("-")
        if cluster and index.isascii() and index.isdigit() and len(index) <= _DIGITS_MAX:
            indexes[cluster] = int(index)
    return indexes


def make_token(indexes: dict[str, int]) -> str:
    """The cookie's text for an index by cluster; the last clusters, if there are too many."""
    parts = [f"{cluster}-{index}" for cluster, index in list(indexes.items())[-CLUSTERS_MAX:] if "." not in cluster]
    return _signer().sign(".".join(parts))


def _with_cookie(response: HttpResponseBase, known: dict[str, int], seen: Seen) -> HttpResponseBase:
    indexes = seen.as_dict()
    if indexes != known:
        response.set_cookie(
            COOKIE_NAME,
            make_token(indexes),
            max_age=COOKIE_AGE_S,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
        patch_vary_headers(response, ("Cookie",))
    return response


def _signer() -> Signer:
    return Signer(salt="django_keyspace.middleware")
