"""kt's exceptions, in this package's tree.

Code that was written for kt catches these names; code that was written for this package catches the classes of
``django_keyspace.exceptions``. An error of an operation is both: ``KyotoNotANumber`` is a :class:`ProtocolError` and a
``NotANumber``. The combined classes are made here, once, so that they can be pickled.
"""

from __future__ import annotations

from typing import ClassVar, Final

from django_keyspace.exceptions import (
    ERRORS_BY_CODE,
    ConfigurationError,
    KeyspaceError,
    LocalError,
    TransportError,
    UnknownOutcome,
)


class KyotoTycoonError(KeyspaceError):
    """Base of kt's errors."""

    code: ClassVar[str] = "kyoto"


class ImproperlyConfigured(KyotoTycoonError, ConfigurationError):
    """A client cannot work as it was made: an unknown serializer, a missing library, no secret for pickles."""

    code = "kyoto-configuration"


class ProtocolError(KyotoTycoonError):
    """The store refused the call: a wrong type, a missing key, a bad database. Nothing was changed."""

    code = "kyoto-refused"


class ServerConnectionError(KyotoTycoonError):
    """The node did not answer, or not in time. Of a write, the message says whether it may have happened."""

    code = "kyoto-connection"


class ServerError(KyotoTycoonError):
    """The store itself has trouble: it is full, locked or damaged."""

    code = "kyoto-server"


class ScriptError(KyotoTycoonError):
    """A script failed, or there is none of that name. Nothing was changed."""

    code = "kyoto-script"


_FAMILIES: Final[tuple[tuple[type[KeyspaceError], type[KyotoTycoonError]], ...]] = (
    (ConfigurationError, ImproperlyConfigured),
    (LocalError, ProtocolError),
    (TransportError, ServerConnectionError),
    (UnknownOutcome, ServerConnectionError),
    (KeyspaceError, ServerError),
)
"""Which of kt's classes stands for which branch of our tree; the first that fits."""


def _combined(cls: type[KeyspaceError], family: type[KyotoTycoonError] | None = None) -> type[KeyspaceError]:
    """The class of ours that is also the one of kt's."""
    if family is None:
        family = next(kt for branch, kt in _FAMILIES if issubclass(cls, branch))
    if issubclass(cls, family):
        return cls
    if issubclass(family, cls):
        return family
    name = f"{'Script' if family is ScriptError else 'Kyoto'}{cls.__name__}"
    made = globals().get(name)
    if not isinstance(made, type) or not issubclass(made, cls):
        facts = {"__doc__": cls.__doc__, "__module__": __name__, "code": cls.code}
        made = globals()[name] = type(name, (family, cls), facts)
    return made


for _cls in list(ERRORS_BY_CODE.values()):
    _combined(_cls)
    _combined(_cls, ScriptError)


def in_kt_words(error: KeyspaceError, family: type[KyotoTycoonError] | None = None) -> KeyspaceError:
    """The same error as one that kt's callers catch too.

    Arguments:
        error: an error of this package.
        family: which of kt's classes it is to be; by the table if None.
    """
    if isinstance(error, family or KyotoTycoonError):
        return error
    made = _combined(type(error), family)(*error.args)
    made.__cause__, made.__traceback__ = error.__cause__, error.__traceback__
    return made
