"""What the site keeps as objects: visitors, what they read, and their bookmarks. Key-value models: no table, no migration.

They live on the alias ``records``, whose writes are on the disk when they return, and which nothing evicts.
"""

from __future__ import annotations

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import models as f
from django.urls import reverse

from django_keyspace import kv
from reader.catalogue import NAME_LENGTH_MAX, find_module

VISITOR_TIMEOUT = timedelta(days=30)
TOKEN_LENGTH = 32


def validate_shown(name: str) -> None:
    """Refuse the name of a module that the site does not show."""
    if find_module(name) is None:
        raise ValidationError("The site shows no module %(name)s.", code="not-shown", params={"name": name})


class Visitor(kv.Model):
    """Somebody with a session. The token stands in the session; whoever stays away for a month is forgotten."""

    token = f.CharField(max_length=TOKEN_LENGTH)
    reads = f.PositiveIntegerField(default=0)
    first_seen = f.DateTimeField(auto_now_add=True)
    last_seen = f.DateTimeField()

    class Meta:
        using = "records"
        key = "token"
        indexes = ["last_seen"]
        timeout = VISITOR_TIMEOUT


class Read(kv.Model):
    """That a visitor read a module, and when last: "recently read"."""

    visitor = f.CharField(max_length=TOKEN_LENGTH)
    module = f.CharField(max_length=NAME_LENGTH_MAX)
    read_at = f.DateTimeField()

    class Meta:
        using = "records"
        key = ("visitor", "module")
        indexes = [("visitor", "read_at")]
        timeout = VISITOR_TIMEOUT


class Bookmark(kv.Model):
    """A module that a visitor wants to find again. Each index serves one way of filtering and sorting the list."""

    class Shelf(f.TextChoices):
        """Where it stands."""

        LATER = "later", "To read"
        NOW = "now", "Reading"
        DONE = "done", "Read"

    visitor = f.CharField(max_length=TOKEN_LENGTH, editable=False)
    module = f.CharField(
        max_length=NAME_LENGTH_MAX, validators=[validate_shown], help_text="Such as json or unittest.mock."
    )
    shelf = f.CharField(max_length=5, choices=Shelf.choices, default=Shelf.LATER)
    stars = f.PositiveSmallIntegerField(choices=[(number, "★" * number) for number in range(1, 6)], default=3)
    note = f.TextField(blank=True, max_length=500)
    saved_at = f.DateTimeField(auto_now_add=True)
    changed_at = f.DateTimeField(auto_now=True)

    class Meta:
        using = "records"
        indexes = [("visitor", "saved_at"), ("visitor", "shelf", "saved_at"), ("visitor", "stars", "saved_at")]
        unique = [("visitor", "module")]
        ordering = ["-saved_at"]

    def __str__(self) -> str:
        return self.module

    def get_absolute_url(self) -> str:
        """The page on which it is changed."""
        return reverse("bookmark", args=[self.pk])
