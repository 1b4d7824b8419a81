"""Forms of key-value models: Django's own ``ModelForm``, with conflicts.

Django's model forms need of a model what ours have: fields that make form fields, ``full_clean`` and ``save``. What they
lack is a notion of an object that somebody else has changed between showing the form and sending it. So the form says in a
hidden field which version of the object it shows, and a form of an older one is not valid. What it says is the checksum of
the record: a new timeout gives the record another revision, but the object is what the form shows still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from django import forms
from django.core.exceptions import ValidationError
from django.forms.models import modelform_factory as django_modelform_factory
from django.utils.translation import gettext as _

from django_keyspace.backend.models.errors import Conflict, DuplicateValue
from django_keyspace.exceptions import InvalidArgument
from django_keyspace.store.record import unpack_header

if TYPE_CHECKING:
    from django_keyspace.backend.models.base import Model

REVISION_NAME: Final = "revision"
"""The hidden field. A model's own field of that name stays the model's, and the form then has no such guard."""


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form for an object: ``class Meta`` with ``model`` and ``fields``, as with Django's.

    Attributes:
        conflict: the :class:`Conflict` that made the form invalid, or that :meth:`save` has raised; it has both versions. None
            otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conflict: Conflict | None = None
        if REVISION_NAME not in self.fields and not self.instance._state.adding:
            self.fields[REVISION_NAME] = forms.IntegerField(
                required=False, widget=forms.HiddenInput, initial=_version_of(self.instance)
            )
            self._guards = True
        else:
            self._guards = False

    def _post_clean(self) -> None:
        shown = self.cleaned_data.get(REVISION_NAME) if self._guards else None
        is_stale = shown is not None and shown != _version_of(self.instance)
        stored = _loaded(self.instance) if is_stale else None
        super()._post_clean()  # type: ignore[misc]
        if is_stale:
            self._note(Conflict(f"{self.instance!r} was changed since the form was shown.", self.instance, stored))

    def save(self, commit: bool = True) -> Any:
        """Store the object.

        Arguments:
            commit: False: only hand it out with the new values.
        Raises:
            ValueError: the form is not valid.
            Conflict: somebody has changed the object just now. It is a form error from then on, and :attr:`conflict`.
            DuplicateValue: somebody has taken a unique value just now. It is a form error, too.
        """
        try:
            return super().save(commit)
        except (Conflict, DuplicateValue) as error:
            self._note(error)
            raise

    async def asave(self) -> Any:
        """As :meth:`save`, on an event loop."""
        if self.errors:
            super().save(False)  # which raises Django's ValueError
        try:
            await self.instance.asave()
        except (Conflict, DuplicateValue) as error:
            self._note(error)
            raise
        return self.instance

    def _note(self, error: Conflict | DuplicateValue) -> None:
        if isinstance(error, Conflict):
            self.conflict = error
            gone = error.stored is None
            sentence = _("It was deleted meanwhile.") if gone else _("It was changed by somebody else meanwhile.")
            self.add_error(None, ValidationError(sentence, code="conflict"))
        else:
            name = error.fields[0] if len(error.fields) == 1 and error.fields[0] in self.fields else None
            unique = self.instance._unique_error(error.fields) if error.fields else ValidationError(str(error))
            self.add_error(name, unique)

    def on_top_of_stored(self) -> Self:
        """The same input as a form on top of what is stored now: for somebody who has seen both versions and goes on.

        Raises:
            InvalidArgument: there is no conflict, or the object is gone.
        """
        if self.conflict is None or self.conflict.stored is None:
            raise InvalidArgument(
                "There is no stored version to go on from: the form has no conflict, or the object is gone."
            )
        data: Any = self.data
        data = data.copy()
        data[self.add_prefix(REVISION_NAME)] = str(_version_of(self.conflict.stored))
        return type(self)(data, self.files, instance=self.conflict.stored, prefix=self.prefix)


def _version_of(instance: Model) -> int:
    """The version of an object as a form tells it: the checksum of its record."""
    record = instance._state.record
    return int(unpack_header(record)[2]) if record else 0


def _loaded(instance: Model) -> Model | None:
    """The object as it is stored now."""
    storage = instance._own_storage()
    key_bytes = storage.key_of_record(instance._state.record)
    found: Model | None = storage._run(storage.load(key_bytes))
    return found


def modelform_factory(model: type[Model], form: type[ModelForm] = ModelForm, **options: Any) -> type[ModelForm]:
    """A form class for a model, as Django's function of that name makes it.

    Arguments:
        model: the model.
        form: its base.
        **options: ``fields``, ``exclude``, ``widgets`` and so on.
    """
    make: Any = django_modelform_factory
    made: type[ModelForm] = make(model, form=form, **options)
    return made
