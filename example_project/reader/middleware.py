"""A content security policy for every page: our one style sheet, our own forms, nothing else; and one for a live page."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

View = Callable[[HttpRequest], HttpResponse]
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LIVE_POLICY = f"{POLICY}; script-src 'self'; connect-src 'self'"
"""For a page that keeps itself up to date, and shows no texts that others wrote."""


def content_security_policy(get_response: View) -> View:
    """Return a middleware that sends the policy. Pages hold documentation texts that others wrote."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware
