"""Forms of models, and Django's generic views over them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from django import forms
from django.core.exceptions import FieldError
from django.core.paginator import Paginator
from django.db import models as f
from django.forms import formset_factory, modelformset_factory
from django.http import Http404, HttpResponse
from django.test import RequestFactory, override_settings
from django.views.generic import CreateView, DeleteView, DetailView, ListView, UpdateView

from django_keyspace import kv
from django_keyspace.backend.models import registry
from django_keyspace.exceptions import InvalidArgument

pytestmark = pytest.mark.usefixtures("embedded_alias")


class Book(kv.Model):
    class Shelf(f.TextChoices):
        NOVELS = "n", "Novels"
        POEMS = "p", "Poems"

    title = f.CharField(max_length=20)
    isbn = f.CharField("ISBN", max_length=13, null=True, blank=True)
    pages = f.PositiveIntegerField(default=1, help_text="Without the cover")
    shelf = f.CharField(max_length=1, choices=Shelf.choices, default=Shelf.NOVELS)
    printed = f.DateField(null=True, blank=True)
    tags = f.JSONField(default=list, blank=True)
    changed = f.DateTimeField(auto_now=True)

    class Meta:
        app_label = "forms"
        key = "title"
        unique = ["isbn", ("shelf", "pages")]
        ordering = ["title"]

    def clean(self) -> None:
        if self.title == self.isbn:
            raise forms.ValidationError("A title is no number.")

    def get_absolute_url(self) -> str:
        return f"/books/{self.title}/"


registry.forget(Book)  # other tests look at all models that there are


class BookForm(kv.ModelForm):
    class Meta:
        model = Book
        fields = ("title", "isbn", "pages", "shelf", "printed", "tags")


def emma(**values: Any) -> Book:
    return Book.objects.create(**{"title": "Emma", "isbn": "1", "pages": 5, **values})


def data(form: forms.BaseForm, **changes: Any) -> dict[str, Any]:
    """What a browser sends of a form."""
    sent = {form.add_prefix(bound.name): bound.value() for bound in form}
    sent = {name: "" if value is None else str(value).replace("'", '"') for name, value in sent.items()}
    sent |= {form.add_initial_prefix(b.name): sent[b.html_name] for b in form if b.field.show_hidden_initial}
    return sent | {form.add_prefix(name): value for name, value in changes.items()}


def test_fields_are_those_of_django() -> None:
    form = BookForm()
    kinds = {name: type(field).__name__ for name, field in form.fields.items()}
    assert kinds == {
        "title": "CharField",
        "isbn": "CharField",
        "pages": "IntegerField",
        "shelf": "TypedChoiceField",
        "printed": "DateField",
        "tags": "JSONField",
    }
    assert form.fields["shelf"].choices == [("n", "Novels"), ("p", "Poems")]
    assert (form.fields["isbn"].label, form.fields["pages"].help_text) == ("ISBN", "Without the cover")
    assert form.fields["title"].max_length == 20 and form["pages"].initial == 1
    html = form.as_p()
    assert 'maxlength="20"' in html and 'min="0"' in html and "changed" not in html


def test_a_new_object() -> None:
    form = BookForm({"title": "Emma", "pages": "7", "shelf": "p", "printed": "1815-12-23", "tags": '["x"]'})
    assert form.is_valid(), form.errors
    made = form.save()
    stored = Book.objects.get(pk="Emma")
    assert made == stored and made.revision == stored.revision > 0
    assert (stored.pages, stored.shelf, stored.printed, stored.tags) == (7, "p", datetime.date(1815, 12, 23), ["x"])
    assert stored.isbn is None  # an empty text is none where the field has None


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"title": ""}, "title", "This field is required."),
        ({"title": "x" * 21}, "title", "at most 20 characters"),
        ({"pages": "-1"}, "pages", "greater than or equal to 0"),
        ({"pages": "many"}, "pages", "Enter a whole number."),
        ({"shelf": "z"}, "shelf", "Select a valid choice."),
        ({"printed": "1815-02-30"}, "printed", "Enter a valid date."),
        ({"tags": "{"}, "tags", "Enter a valid JSON."),
        ({"title": "Emma"}, "title", "Book with this Title already exists."),
        ({"isbn": "1"}, "isbn", "Book with this ISBN already exists."),
        ({"pages": "5"}, "__all__", "Book with this Shelf and pages already exists."),
        ({"title": "12", "isbn": "12"}, "__all__", "A title is no number."),
    ],
)
def test_errors(changes: dict[str, str], field: str, words: str) -> None:
    emma()
    form = BookForm({"title": "New", "pages": "9", "shelf": "n", "tags": "[]", **changes})
    assert not form.is_valid()
    assert list(form.errors) == [field] and words in str(form.errors[field])
    assert form.conflict is None
    with pytest.raises(ValueError, match="because the data didn't validate"):
        form.save()
    assert Book.objects.count() == 1


def test_the_revision_is_a_hidden_field_of_forms_about_stored_objects() -> None:
    assert "revision" not in BookForm().fields
    book = emma()
    form = BookForm(instance=book)
    assert [bound.name for bound in form.hidden_fields()] == ["revision"]
    assert f'type="hidden" name="revision" value="{form["revision"].value()}"' in form.as_p()
    bound = BookForm(data(form, pages="6"), instance=Book.objects.get())
    assert bound.is_valid() and bound.changed_data == ["pages"]
    bound.save()
    assert Book.objects.get().pages == 6


def test_somebody_else_was_faster() -> None:
    emma()
    sent = data(BookForm(instance=Book.objects.get()), pages="6")
    Book.objects.get().update(pages=7, tags=["theirs"])
    form = BookForm(sent, instance=Book.objects.get())
    assert not form.is_valid()
    assert form.errors.as_data()["__all__"][0].code == "conflict"
    assert form.non_field_errors() == ["It was changed by somebody else meanwhile."]
    assert (form.conflict.mine.pages, form.conflict.stored.pages, form.conflict.stored.tags) == (6, 7, ["theirs"])
    # Shown again as it is, it stays a conflict; only who goes on from the stored version may write.
    assert not BookForm(form.data, instance=Book.objects.get()).is_valid()
    again = form.on_top_of_stored()
    assert again.is_valid() and again["pages"].value() == "6"
    again.save()
    assert Book.objects.get().pages == 6


def test_somebody_else_is_faster_still() -> None:
    """Between validation and saving."""
    emma()
    form = BookForm(data(BookForm(instance=Book.objects.get()), pages="6"), instance=Book.objects.get())
    assert form.is_valid()
    Book.objects.get().update(pages=7)
    with pytest.raises(kv.Conflict):
        form.save()
    assert not form.is_valid() and form.non_field_errors() == ["It was changed by somebody else meanwhile."]
    assert form.conflict.stored.pages == 7
    form = form.on_top_of_stored()
    assert form.is_valid()
    Book.objects.get().update(pages=8)
    with pytest.raises(kv.Conflict):
        form.save()
    assert Book.objects.get().pages == 8


def test_the_object_is_gone() -> None:
    book = emma()
    form = BookForm(data(BookForm(instance=book), pages="6"), instance=Book.objects.get())
    assert form.is_valid()
    Book.objects.all().delete()
    with pytest.raises(kv.Conflict):
        form.save()
    assert form.conflict.stored is None and form.non_field_errors() == ["It was deleted meanwhile."]
    with pytest.raises(InvalidArgument, match="the form has no conflict, or the object is gone"):
        form.on_top_of_stored()
    with pytest.raises(InvalidArgument, match="no conflict"):
        BookForm().on_top_of_stored()


@pytest.mark.parametrize(
    ("changes", "field"), [({"title": "New"}, "title"), ({"isbn": "3"}, "isbn"), ({"pages": 9}, "__all__")]
)
def test_a_value_is_taken_between_validation_and_saving(changes: dict[str, Any], field: str) -> None:
    form = BookForm({"title": "New", "isbn": "3", "pages": "9", "shelf": "n", "tags": "[]"})
    assert form.is_valid()
    emma(**changes)
    with pytest.raises(kv.DuplicateValue):
        form.save()
    assert list(form.errors) == [field] and "already exists" in str(form.errors[field])
    assert Book.objects.count() == 1


def test_what_is_not_sent_is_not_guarded() -> None:
    """A form of one's own making, without the hidden field."""
    emma()
    sent = data(BookForm(instance=Book.objects.get()), pages="6")
    del sent["revision"]
    Book.objects.get().update(tags=["theirs"])
    form = BookForm(sent, instance=Book.objects.get())
    assert form.is_valid() and form.save().pages == 6
    form = BookForm(sent | {"revision": "x"}, instance=Book.objects.get())
    assert list(form.errors) == ["revision"]


def test_another_timeout_is_no_conflict() -> None:
    emma()
    sent = data(BookForm(instance=Book.objects.get()), pages="6")
    Book.objects.get().touch(600)
    form = BookForm(sent, instance=Book.objects.get())
    assert form.is_valid(), form.errors
    form.save()
    assert Book.objects.get().pages == 6 and Book.objects.get().ttl() > 0


def test_an_object_without_commit() -> None:
    form = BookForm({"title": "Emma", "pages": "7", "shelf": "p", "tags": "[]"})
    made = form.save(commit=False)
    assert made.pages == 7 and made._state.adding and not Book.objects.exists()
    form.save_m2m()


async def test_asave() -> None:
    form = BookForm({"title": "Emma", "pages": "7", "shelf": "p", "tags": "[]"})
    assert (await form.asave()).revision
    assert (await Book.objects.aget(pk="Emma")).pages == 7
    form = BookForm({"title": "Other", "pages": "8", "shelf": "p", "tags": "[]"})
    assert form.is_valid()
    await Book.objects.acreate(title="Other", pages=1)
    with pytest.raises(kv.DuplicateValue):
        await form.asave()
    assert list(form.errors) == ["title"]
    with pytest.raises(ValueError, match="because the data didn't validate"):
        await form.asave()


def test_a_factory() -> None:
    made = kv.modelform_factory(Book, fields=["title", "pages"], labels={"pages": "Leaves"})
    assert issubclass(made, kv.ModelForm) and made.Meta.model is Book
    assert list(made().fields) == ["title", "pages"] and made().fields["pages"].label == "Leaves"
    with pytest.raises(FieldError, match=r"Unknown field\(s\) \(sides\)"):
        kv.modelform_factory(Book, fields=["sides"])


def test_a_field_named_revision_stays_the_models() -> None:
    class Patch(kv.Model):
        name = f.CharField(max_length=5)
        revision_note = f.CharField(max_length=5)

        class Meta:
            app_label = "forms"
            key = "name"

    class PatchForm(kv.ModelForm):
        revision = forms.CharField()

        class Meta:
            model = Patch
            fields = ("name", "revision_note")

    try:
        patch = Patch.objects.create(name="a", revision_note="b")
        form = PatchForm({"name": "a", "revision_note": "c", "revision": "mine"}, instance=patch)
        assert form.is_valid() and form.cleaned_data["revision"] == "mine"
        assert form.save().revision_note == "c"
    finally:
        registry.forget(Patch)


def test_formsets() -> None:
    """Several objects on a page: each form has its own guard."""
    for number in range(3):
        emma(title=f"b{number}", isbn=str(number), pages=number)
    books = list(Book.objects.all())
    shown = [BookForm(instance=book, prefix=str(number)) for number, book in enumerate(books)]
    sent: dict[str, Any] = {}
    for number, form in enumerate(shown):
        sent |= data(form, pages=str(number + 10))
    Book.objects.get(pk="b1").update(tags=["theirs"])
    back = [BookForm(sent, instance=book, prefix=str(n)) for n, book in enumerate(Book.objects.all())]
    assert [form.is_valid() for form in back] == [True, False, True]
    assert back[1].on_top_of_stored().is_valid()
    make = formset_factory(BookForm, extra=2)
    sent = {"form-TOTAL_FORMS": "2", "form-INITIAL_FORMS": "0"}
    for form in make().forms:
        sent |= data(form)
    new = make(sent | {"form-0-title": "x", "form-0-pages": "30"})
    assert new.is_valid(), new.errors
    new.forms[0].save()
    assert Book.objects.count() == 4


def test_model_formsets_of_django() -> None:
    for number in range(2):
        emma(title=f"b{number}", isbn=str(number), pages=number)
    make = modelformset_factory(Book, form=BookForm, extra=1, can_delete=True)
    shown = make(queryset=Book.objects.all())
    sent = {f"form-{name}": str(value) for name, value in shown.management_form.initial.items() if value is not None}
    for form in shown.forms:
        sent |= data(form)
    sent |= {"form-0-pages": "10", "form-1-DELETE": "on", "form-2-title": "new", "form-2-pages": "12"}
    back = make(sent, queryset=Book.objects.all())
    assert back.is_valid(), back.errors
    assert not make(sent | {"form-2-title": "b0"}, queryset=Book.objects.all()).is_valid()
    twice = make(sent | {"form-0-isbn": "7", "form-2-isbn": "7"}, queryset=Book.objects.all())
    assert "Please correct the duplicate data for isbn." in str(twice.non_form_errors())
    back.save()
    assert [(book.pk, book.pages) for book in Book.objects.all()] == [("b0", 10), ("new", 12)]


# ---------------------------------------------------------------------------------------------- Django's generic views

TEMPLATES = {
    "list.html": "{% for book in object_list %}{{ book.title }}:{{ book.get_shelf_display }} {% endfor %}"
    "{{ page_obj.number }}/{{ paginator.num_pages }} of {{ paginator.count }}",
    "form.html": "{{ form.as_p }}",
    "detail.html": "{{ object.title }} {{ object.pages }}",
    "delete.html": "{{ object }}",
}


class Books(ListView):
    model = Book
    paginate_by = 4
    template_name = "list.html"


class OneBook(DetailView):
    model = Book
    template_name = "detail.html"


class ChangeBook(UpdateView):
    model = Book
    form_class = BookForm
    template_name = "form.html"


class AddBook(CreateView):
    model = Book
    form_class = BookForm
    template_name = "form.html"


class RemoveBook(DeleteView):
    model = Book
    template_name = "delete.html"
    success_url = "/"


@pytest.fixture
def templates() -> Iterator[None]:
    loaders = [("django.template.loaders.locmem.Loader", TEMPLATES)]
    backend = "django.template.backends.django.DjangoTemplates"
    with override_settings(TEMPLATES=[{"BACKEND": backend, "OPTIONS": {"loaders": loaders}}]):
        yield


def page(view: Any, sent: dict[str, Any] | None = None, query: str = "", **keywords: Any) -> HttpResponse:
    request = RequestFactory().get(f"/?{query}") if sent is None else RequestFactory().post("/", sent)
    response = view.as_view()(request, **keywords)
    return response.render() if hasattr(response, "render") else response


def test_lists_with_paging(templates: None) -> None:
    Book.objects.bulk_create([Book(title=f"b{number}", pages=number) for number in range(10)])
    assert page(Books).content == b"b0:Novels b1:Novels b2:Novels b3:Novels 1/3 of 10"
    assert page(Books, query="page=3").content == b"b8:Novels b9:Novels 3/3 of 10"
    assert page(Books, query="page=last").content == b"b8:Novels b9:Novels 3/3 of 10"
    with pytest.raises(Http404, match="Invalid page"):
        page(Books, query="page=4")
    assert [book.pk for book in Paginator(Book.objects.filter(pages__gt=4).order_by("-title"), 3).page(2)] == [
        "b6",
        "b5",
    ]


def test_detail_and_deletion(templates: None) -> None:
    emma()
    assert page(OneBook, pk="Emma").content == b"Emma 5"
    with pytest.raises(Http404, match="No book found matching the query"):
        page(OneBook, pk="Nobody")
    assert page(RemoveBook, {}, pk="Emma").status_code == 302
    assert not Book.objects.exists()


def test_creation(templates: None) -> None:
    assert b'name="title"' in page(AddBook).content
    response = page(AddBook, {"title": "Emma", "pages": "3", "shelf": "n", "tags": "[]"})
    assert (response.status_code, response["Location"]) == (302, "/books/Emma/")
    response = page(AddBook, {"title": "Emma", "pages": "4", "shelf": "n", "tags": "[]"})
    assert b"Book with this Title already exists." in response.content


def test_updates(templates: None) -> None:
    book = emma()
    sent = data(BookForm(instance=book), pages="6")
    assert f'name="revision" value="{sent["revision"]}"'.encode() in page(ChangeBook, pk="Emma").content
    assert page(ChangeBook, sent, pk="Emma").status_code == 302
    assert Book.objects.get().pages == 6
    response = page(ChangeBook, sent, pk="Emma")  # the same page, sent once more
    assert response.status_code == 200 and b"It was changed by somebody else meanwhile." in response.content
