"""Addresses of the reader."""

from __future__ import annotations

from pathlib import Path

from django.urls import path, register_converter
from django.views.static import serve

from reader import bookmarks, status, views
from reader.catalogue import NAME_LENGTH_MAX


class ModuleNameConverter:
    """A dotted module name of a sane length. Whether there is such a module is for the view to find out."""

    regex = rf"[A-Za-z][A-Za-z0-9_.]{{0,{NAME_LENGTH_MAX - 1}}}"

    def to_python(self, value: str) -> str:
        """Return the name as it stands in the address."""
        return value

    def to_url(self, value: str) -> str:
        """Return the name as it will stand in the address."""
        return value


register_converter(ModuleNameConverter, "module")

urlpatterns = [
    path("", views.index, name="index"),
    path("module/<module:name>/", views.module, name="module"),
    path("most-read/", views.most_read, name="most-read"),
    path("python/", views.python_facts, name="python"),
    path("bookmarks/", bookmarks.bookmarks, name="bookmarks"),
    path("bookmarks/new/", bookmarks.new_bookmark, name="new-bookmark"),
    path("bookmarks/<int:pk>/", bookmarks.bookmark, name="bookmark"),
    path("bookmarks/<int:pk>/delete/", bookmarks.delete_bookmark, name="delete-bookmark"),
    path("cache/", views.cache_report, name="cache"),
    path("cache/forget/", views.forget_pages, name="forget"),
    path("status/", status.status, name="status"),
    path("status/data/", status.status_data, name="status-data"),
    path("status/switch/", status.switch_node, name="switch-node"),
    # One style sheet and one script: plain serving is enough, with and without DEBUG.
    path("static/<path:path>", serve, {"document_root": Path(__file__).with_name("static")}),
]
