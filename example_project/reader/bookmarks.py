"""The pages about bookmarks: a list with filters, a form, and what happens when two tabs change the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from django_keyspace import kv
from reader import readers
from reader.catalogue import NAME_LENGTH_MAX
from reader.forms import BookmarkForm, FilterForm
from reader.models import Bookmark

PAGE_SIZE = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in both versions of a bookmark."""

    label: str
    mine: str
    stored: str

    @property
    def differs(self) -> bool:
        """Whether the versions have other values there."""
        return self.mine != self.stored


@require_safe
def bookmarks(request: HttpRequest) -> HttpResponse:
    """A visitor's bookmarks, filtered and sorted through an index, a page at a time."""
    visitor = readers.visitor_of(request)
    form = FilterForm(request.GET or None)
    found = form.query(visitor) if visitor else Bookmark.objects.none()
    page = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "form": form,
        "page": page,
        "is_filtered": any(request.GET.get(name) for name in ("shelf", "stars")),
        # The token is a secret of the session, like its key.
        "plan": page.object_list.explain().replace(repr(visitor), "you"),
        "done": request.GET.get("done", ""),
    }
    return render(request, "reader/bookmarks.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def new_bookmark(request: HttpRequest) -> HttpResponse:
    """The form for a bookmark that is not there yet."""
    if request.method != "POST":
        form = BookmarkForm(initial={"module": request.GET.get("module", "")[:NAME_LENGTH_MAX]})
        return render(request, "reader/bookmark_form.html", {"form": form})
    form = BookmarkForm(request.POST, instance=Bookmark(visitor=readers.visit(request).token))
    return _done("saved") if _store(form) else render(request, "reader/bookmark_form.html", {"form": form}, status=422)


@require_http_methods(["GET", "HEAD", "POST"])
def bookmark(request: HttpRequest, pk: int) -> HttpResponse:
    """The form for a bookmark that is there, or was when the form was made."""
    found = _own(request, pk)
    if request.method != "POST":
        if found is None:
            raise Http404
        return render(request, "reader/bookmark_form.html", {"form": BookmarkForm(instance=found)})
    if found is None:
        return _gone(request)
    form = BookmarkForm(request.POST, instance=found)
    if _store(form):
        return _done("changed")
    if form.conflict is not None:
        return _conflict(request, form)
    return render(request, "reader/bookmark_form.html", {"form": form}, status=422)


@require_POST
def delete_bookmark(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete a bookmark, whatever version of it the visitor saw."""
    found = _own(request, pk)
    if found is not None:
        found.delete()
    return _done("deleted")


def _own(request: HttpRequest, pk: int) -> Bookmark | None:
    visitor = readers.visitor_of(request)
    return Bookmark.objects.filter(pk=pk, visitor=visitor).first() if visitor else None


def _done(what: str) -> HttpResponse:
    response = redirect("bookmarks")
    response["Location"] += f"?done={what}"
    return response


def _store(form: BookmarkForm) -> bool:
    """Store what the form holds. False where something is off: the form says what, and its ``conflict`` has both versions."""
    if not form.is_valid():
        return False
    try:
        form.save()
    except (kv.Conflict, kv.DuplicateValue):
        return False  # somebody came between our check and our write
    return True


def _gone(request: HttpRequest) -> HttpResponse:
    """Somebody deleted what is to be saved. What was typed is not lost: it can become a new bookmark."""
    form = BookmarkForm(request.POST, instance=Bookmark(visitor=readers.visitor_of(request) or ""))
    return render(request, "reader/bookmark_form.html", {"form": form, "was_deleted": True}, status=409)


def _conflict(request: HttpRequest, form: BookmarkForm) -> HttpResponse:
    """Both versions side by side, and a form that stores the visitor's over the other one, or a mixture."""
    mine, stored = form.conflict.mine, form.conflict.stored
    if stored is None:
        return _gone(request)
    differences = [
        Difference(
            str(Bookmark._meta.get_field(name).verbose_name).capitalize(), _shown(mine, name), _shown(stored, name)
        )
        for name in BookmarkForm.Meta.fields
    ]
    context = {"form": form.on_top_of_stored(), "differences": differences, "stored": stored}
    return render(request, "reader/bookmark_conflict.html", context, status=409)


def _shown(version: Bookmark, name: str) -> str:
    display: Any = getattr(version, f"get_{name}_display", None)
    return str(display() if display else getattr(version, name))
