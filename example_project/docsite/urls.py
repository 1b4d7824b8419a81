"""Addresses of the example site: everything belongs to the reader app."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("", include("reader.urls"))]
handler404 = "reader.views.not_found"
