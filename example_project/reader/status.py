"""The page /status/: how the store is, kept up to date; and, in ``demo --cluster``, a switch for each node."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from reader import cluster
from reader.middleware import LIVE_POLICY
from reader.standing import COLUMNS, TEXT_COLUMNS, standing


@require_safe
@never_cache
def status(request: HttpRequest) -> HttpResponse:
    """The page. Its script asks for the data from then on; without scripts it is loaded anew."""
    return _page(request)


@require_safe
@never_cache
def status_data(request: HttpRequest) -> HttpResponse:
    """What the page shows, as JSON: the same words and figures."""
    return JsonResponse(asdict(standing()))


@require_POST
def switch_node(request: HttpRequest) -> HttpResponse:
    """Kill a node, as a crash would, or start it again. Only in ``demo --cluster``, and only for who sits at this machine."""
    remote = cluster.remote()
    if remote is None:
        raise Http404
    if not _is_local(request):
        raise PermissionDenied
    try:
        remote.ask(request.POST.get("do", ""), request.POST.get("node", ""))
    except cluster.SwitchFailed as error:
        return _page(request, failure=str(error), status=409)
    return redirect("status")


def _page(request: HttpRequest, failure: str = "", status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {
        "standing": standing(),
        "columns": [{"key": key, "title": title, "is_text": key in TEXT_COLUMNS} for key, title in COLUMNS.items()],
        "can_switch": cluster.remote() is not None and _is_local(request),
        "failure": failure,
    }
    response = render(request, "reader/status.html", context, status=status)
    response["Content-Security-Policy"] = LIVE_POLICY
    return response


def _is_local(request: HttpRequest) -> bool:
    """Say whether the visitor is at this machine. Behind a proxy everybody would seem to be, so nobody is there."""
    if "HTTP_X_FORWARDED_FOR" in request.META or "HTTP_FORWARDED" in request.META:
        return False
    try:
        return ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False
