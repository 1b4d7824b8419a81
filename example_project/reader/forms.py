"""The forms about bookmarks."""

from __future__ import annotations

from typing import Any

from django import forms

from django_keyspace import kv
from reader.models import Bookmark


class BookmarkForm(kv.ModelForm):
    """A bookmark. The form carries the revision that the visitor saw, so that it notices what another tab stored since."""

    class Meta:
        model = Bookmark
        fields = ("module", "shelf", "stars", "note")
        widgets = {
            "module": forms.TextInput(attrs={"autocapitalize": "none"}),
            "note": forms.Textarea(attrs={"rows": 4}),
        }


class FilterForm(forms.Form):
    """What the list shows, in which order. All of it is optional."""

    ORDERS = {
        "newest": ("Newest first", "-saved_at"),
        "oldest": ("Oldest first", "saved_at"),
        "stars": ("Best first", "-stars"),
    }

    shelf = forms.ChoiceField(required=False, choices=[("", "All shelves"), *Bookmark.Shelf.choices])
    stars = forms.TypedChoiceField(
        required=False,
        coerce=int,
        empty_value=None,
        label="At least",
        choices=[("", "Any stars"), *((number, "★" * number) for number in range(2, 6))],
    )
    order = forms.ChoiceField(required=False, choices=[(name, label) for name, (label, _) in ORDERS.items()])

    def query(self, visitor: str) -> Any:
        """The query set of a visitor's bookmarks. A field with a wrong value filters nothing."""
        wanted = {name: value for name, value in self.cleaned_data.items() if value} if self.is_valid() else {}
        found = Bookmark.objects.filter(visitor=visitor)
        if "shelf" in wanted:
            found = found.filter(shelf=wanted["shelf"])
        if "stars" in wanted:
            found = found.filter(stars__gte=wanted["stars"])
        return found.order_by(self.ORDERS[wanted.get("order", "newest")][1])
