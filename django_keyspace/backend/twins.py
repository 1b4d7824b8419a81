"""Each method of the cache is written once, as steps; here they become a sync and an async method.

Steps are a generator that yields operations (``(name, *arguments)``) and receives their answers:

    def _touch(self, key, timeout=DEFAULT_TIMEOUT, version=None):
        return (yield "touch", self._database, self._key(key, version), self._expire(timeout))

    touch, atouch = twins(_touch)

The sync method carries the operations out in the calling thread, the async one on the running loop; an error of an operation
is raised at the ``yield``. A batch runs the same steps, with the answers that come at its end.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from django_keyspace.exceptions import CannotSerialize, KeyspaceError
from django_keyspace.operations import Call

P = ParamSpec("P")
R = TypeVar("R")
Self_ = TypeVar("Self_", bound="Steppable")

Steps = Generator[Call, Any, R]
"""Steps that end with a result of type ``R``."""


class Steppable:
    """What steps run on: a class with an engine that may also turn outages into answers."""

    _thrown: ClassVar[tuple[type[BaseException], ...]] = (KeyspaceError,)
    """What is raised at the ``yield``. Anything else ends the steps from outside."""

    def _execute(self, call: Call) -> Any:
        raise NotImplementedError

    async def _aexecute(self, call: Call) -> Any:
        raise NotImplementedError

    def _run(self, steps: Steps[R]) -> R:
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._execute(call)
                except self._thrown as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result

    async def _arun(self, steps: Steps[R]) -> R:
        try:
            call = next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result
        return await self._arun_from(call, steps)

    async def _arun_from(self, call: Call, steps: Steps[R]) -> R:
        """Go on with steps whose first operation is known."""
        try:
            while True:
                try:
                    answer = await self._aexecute(call)
                except self._thrown as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as stop:
            result: R = stop.value
            return result


def twins(
    steps: Callable[Concatenate[Self_, P], Steps[R]],
) -> tuple[Callable[Concatenate[Self_, P], R], Callable[Concatenate[Self_, P], Coroutine[Any, Any, R]]]:
    """The sync and the async method of some steps.

    Arguments:
        steps: a method that is a generator of operations; its name begins with an underscore.
    Returns:
        ``(method, amethod)`` with the names, arguments and docstring of ``steps``.
    """

    @functools.wraps(steps)
    def method(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(steps(self, *args, **kwargs))

    @functools.wraps(steps)
    async def amethod(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._arun(steps(self, *args, **kwargs))
        except CannotSerialize as error:
            if not isinstance(error.__cause__, SynchronousOnlyOperation):
                raise
        # The value asks the database while it is pickled (a lazy queryset), which a loop's thread must not do. Values are
        # encoded before the first operation, so nothing was done yet: run that part again, in a thread.
        again = steps(self, *args, **kwargs)
        return await self._arun_from(await sync_to_async(next)(again), again)

    signature = inspect.signature(steps)
    answer = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    both: tuple[Any, ...] = (method, amethod)
    for twin in both:  # what help() shows: the answer, not the steps to it
        twin.__signature__ = signature.replace(return_annotation=answer)
    name = steps.__name__.removeprefix("_")
    method.__name__, amethod.__name__ = name, f"a{name}"
    owner = steps.__qualname__.rpartition(".")[0]
    method.__qualname__, amethod.__qualname__ = f"{owner}.{name}", f"{owner}.a{name}"
    return method, amethod
