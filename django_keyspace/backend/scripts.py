"""Lua scripts of a cache: ``script``, ``load_script``, and the files that ``settings.KEYSPACE["SCRIPTS"]`` names.

A cache sends its scripts along with each call, so that they mean the same on a folder and on a node, and a node that took over
needs to know nothing. A node may have scripts of its own as well, for clients that have none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache.backends.base import default_key_func
from django.core.signals import setting_changed

from django_keyspace.backend.methods import Methods
from django_keyspace.backend.twins import Steps, twins
from django_keyspace.exceptions import ConfigurationError, InvalidArgument, NotSupported
from django_keyspace.store.scripting import Source, read_sources, script_call, script_result


@lru_cache(maxsize=1)
def configured_sources() -> tuple[Source, ...]:
    """The scripts of ``settings.KEYSPACE["SCRIPTS"]``: a path or a list of paths, of files or folders of ``.lua`` files.

    Raises:
        ConfigurationError: one cannot be read.
    """
    if not settings.configured:  # one of the ancestors' clients, used without Django
        return ()
    paths = getattr(settings, "KEYSPACE", {}).get("SCRIPTS", ())
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise ConfigurationError('settings.KEYSPACE["SCRIPTS"] is a path or a list of paths of Lua files.')
    return tuple(read_sources(paths))


def _forget_sources(*, setting: str, **kwargs: Any) -> None:
    if setting == "KEYSPACE":
        configured_sources.cache_clear()


setting_changed.connect(_forget_sources)


class ScriptMethods(Methods):
    """Mixed into :class:`~django_keyspace.backend.cache.KeyspaceCache`, which has the fields and the engine."""

    if TYPE_CHECKING:
        key_func: Callable[[Any, str, Any], str]

    def _script(
        self,
        function: str,
        arguments: Mapping[str, Any] | Sequence[Any] | None = None,
        version: Any = None,
        *,
        time_ms: int | None = None,
    ) -> Steps[Any]:
        """Run a Lua function beside the data; what it writes through ``db`` is stored all or not at all.

        Arguments:
            function: its name, in the scripts that are loaded or in the library.
            arguments: a mapping, which it gets as one table; or a sequence, which it gets one by one.
            time_ms: how long it may take, in milliseconds; default: 2,000.
        Returns:
            What it returns: None, bool, int, float, str (bytes if not UTF-8), or lists and dicts of them.
        Raises:
            ScriptError: it failed, or was stopped. Nothing was changed.
        Source: Kyoto Tycoon's ``script``; docs/scripts.md.
        """
        if not isinstance(function, str) or not function:
            raise InvalidArgument(f"The name of a Lua function is a str, not {function!r:.80}. Nothing was changed.")
        sources = [*configured_sources(), *self._runtime.scripts.items()]
        call = self._script_call(function, arguments, sources, version, time_ms)
        return script_result((yield call))

    script, ascript = twins(_script)

    def _load_script(self, source: str, name: str = "script.lua") -> Steps[list[str]]:
        """Make the functions of a Lua source known to :meth:`script`, for this alias in this process.

        Arguments:
            source: text of Lua. It is run once, without effect on the data, to see whether it is right.
            name: what messages call it. A source of the same name is replaced.
        Returns:
            The names of the functions that it defines.
        Raises:
            ScriptSyntaxError, ScriptFailed: it is not right. Nothing was changed.
        """
        if not isinstance(source, str) or not isinstance(name, str):
            raise InvalidArgument("A script's source and its name are str. Nothing was changed.")
        # By itself first: its own functions are wanted, not those of the others.
        names = script_result((yield self._script_call("", None, [(name, source)], None, None)))
        self._runtime.scripts = {**self._runtime.scripts, name: source}
        return list(names)

    load_script, aload_script = twins(_load_script)

    def _script_call(
        self, function: str, arguments: Any, sources: Sequence[Source], version: Any, time_ms: int | None
    ) -> tuple[Any, ...]:
        if self.key_func is not default_key_func:
            raise NotSupported(
                "This alias has a KEY_FUNCTION, and for scripts a key is made by putting a prefix before it. Run scripts "
                "through an alias without one. Nothing was changed."
            )
        prefix = self._prefix_key("", version)
        return script_call(
            self._database,
            function,
            arguments,
            prefix=prefix,
            sources=sources,
            flags=self._runtime.codec.flags,
            time_ms=0 if time_ms is None else time_ms,
        )
