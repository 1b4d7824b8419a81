"""The pages of the site. What is slow is cached here or in the modules that the views call."""

from __future__ import annotations

import platform
import sys
import time

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_POST, require_safe

from reader import catalogue, insight, readers, rendering

SEARCH_LENGTH_MAX = 60
PYTHON_FACTS_TIMEOUT_S = 60


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """The module list, or what a search finds in it."""
    started = time.perf_counter()
    text = request.GET.get("q", "").strip()[:SEARCH_LENGTH_MAX]
    context = {
        "q": text,
        "recent": readers.recently_read(request),
        # Templates call functions: this one runs only when the cached fragment around it has to be made again.
        "most_read": readers.most_read,
    }
    if text:
        wait_s = readers.seconds_to_wait(request)
        if wait_s:
            return _too_many_searches(request, wait_s)
        context["found"] = catalogue.search(catalogue.all_modules(), text)
    else:
        # Also a function, for the same reason: a visit with warm fragments does not even load the catalogue.
        context["groups"] = lambda: catalogue.grouped(catalogue.all_modules())
    response = render(request, "reader/index.html", context)
    return _timed(response, "list", (time.perf_counter() - started) * 1000)


@require_safe
def module(request: HttpRequest, name: str) -> HttpResponse:
    """The documentation of one module."""
    try:
        page = rendering.get_page(name)
    except rendering.ModuleNotFound:
        return not_found(request, None)
    except rendering.RenderFailed as error:
        return render(request, "reader/module_failed.html", {"name": name, "reason": str(error)})
    except rendering.RenderBusy:
        response = render(request, "reader/busy.html", {"name": name}, status=503)
        response["Retry-After"] = "5"
        return response
    # HEAD asks what a page is like; it does not read it.
    views = readers.count_view(name) if request.method == "GET" else cache.get(f"{readers.VIEWS_PREFIX}{name}", 0)
    if request.method == "GET":
        readers.remember(request, name)
    context = {
        "name": name,
        "page": page,
        "views": views,
        "recent": [other for other in readers.recently_read(request) if other != name],
        "crumbs": _crumbs(name),
    }
    response = render(request, "reader/module.html", context)
    response["X-Page-Cache"] = "hit" if page.is_hit else "miss"
    return _timed(response, "page", page.cost_ms)


@require_safe
def most_read(request: HttpRequest) -> HttpResponse:
    """The modules with the most views, counted this moment."""
    reads = readers.most_read(count=50)
    context = {"reads": reads, "views_max": reads[0].views if reads else 1}
    return render(request, "reader/most_read.html", context)


@require_safe
@cache_page(PYTHON_FACTS_TIMEOUT_S)
def python_facts(request: HttpRequest) -> HttpResponse:
    """Facts about this Python. Django's ``cache_page`` keeps the whole response for a minute."""
    context = {
        "made_at": timezone.now(),
        "timeout_s": PYTHON_FACTS_TIMEOUT_S,
        "version": sys.version,
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "origins": insight.count_by_origin(catalogue.all_modules()),
    }
    return render(request, "reader/python_facts.html", context)


@require_safe
def cache_report(request: HttpRequest) -> HttpResponse:
    """What the cache holds and how it fares."""
    report = insight.report(request.GET.get("keys", ""))
    return render(request, "reader/cache_report.html", {"report": report, "forgot": request.GET.get("forgot")})


@require_POST
def forget_pages(request: HttpRequest) -> HttpResponse:
    """Drop all rendered pages, so that the next visit of each is a cold one again. Counters and sessions stay."""
    count = insight.forget_rendered_pages()
    response = redirect("cache")
    response["Location"] += f"?forgot={count}"
    return response


def not_found(request: HttpRequest, exception: Exception | None) -> HttpResponse:
    """The page for addresses that lead nowhere, and for modules that the site does not show."""
    return render(request, "reader/not_found.html", status=404)


def _crumbs(name: str) -> list[dict[str, str]]:
    """Return the packages around a module and the module itself, outermost first."""
    parts = name.split(".")
    return [{"label": part, "name": ".".join(parts[: place + 1])} for place, part in enumerate(parts)]


def _too_many_searches(request: HttpRequest, wait_s: int) -> HttpResponse:
    response = render(request, "reader/too_many.html", {"wait_s": wait_s}, status=429)
    response["Retry-After"] = str(wait_s)
    return response


def _timed(response: HttpResponse, what: str, cost_ms: float) -> HttpResponse:
    """Tell browsers' developer tools (and ``demo --check``) what the interesting part cost."""
    response["Server-Timing"] = f"{what};dur={cost_ms:.3f}"
    return response
