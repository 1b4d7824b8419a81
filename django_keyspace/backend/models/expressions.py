"""Changes that are worked out where the object is stored: ``update(visits=F("visits") + 1)``.

An expression is evaluated with the values that the record has at the moment of the write. The write happens only if the
record has not changed since then, and is worked out again otherwise, so that no update is lost.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from django_keyspace.exceptions import InvalidArgument

_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}


class Expression:
    """What a field is to become, in terms of the object's values. Expressions join with ``+ - * / // % **``."""

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The result.

        Arguments:
            values: the object's values by the names of its fields.
        Raises:
            InvalidArgument: the values cannot be joined so: a text and a number, a division by zero.
        """
        raise NotImplementedError

    def names(self) -> Iterator[str]:
        """Names of the fields that it reads."""
        return iter(())

    def __add__(self, other: Any) -> Expression:
        return Combined(self, "+", other)

    def __radd__(self, other: Any) -> Expression:
        return Combined(other, "+", self)

    def __sub__(self, other: Any) -> Expression:
        return Combined(self, "-", other)

    def __rsub__(self, other: Any) -> Expression:
        return Combined(other, "-", self)

    def __mul__(self, other: Any) -> Expression:
        return Combined(self, "*", other)

    def __rmul__(self, other: Any) -> Expression:
        return Combined(other, "*", self)

    def __truediv__(self, other: Any) -> Expression:
        return Combined(self, "/", other)

    def __rtruediv__(self, other: Any) -> Expression:
        return Combined(other, "/", self)

    def __floordiv__(self, other: Any) -> Expression:
        return Combined(self, "//", other)

    def __rfloordiv__(self, other: Any) -> Expression:
        return Combined(other, "//", self)

    def __mod__(self, other: Any) -> Expression:
        return Combined(self, "%", other)

    def __rmod__(self, other: Any) -> Expression:
        return Combined(other, "%", self)

    def __pow__(self, other: Any) -> Expression:
        return Combined(self, "**", other)

    def __rpow__(self, other: Any) -> Expression:
        return Combined(other, "**", self)

    def __neg__(self) -> Expression:
        return Combined(0, "-", self)


class F(Expression):
    """The value of a field.

    Arguments:
        name: the field's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The field's value."""
        try:
            return values[self.name]
        except KeyError:
            raise InvalidArgument(
                f"F({self.name!r}): there is no such field. There are: {', '.join(sorted(values))}. Nothing was changed."
            ) from None

    def names(self) -> Iterator[str]:
        """The field's name."""
        yield self.name

    def __repr__(self) -> str:
        return f"F({self.name!r})"


class Value(Expression):
    """A value that is an expression, for symmetry: ``Value(1) + F("visits")``. Plain values will do as well."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value."""
        return self.value

    def __repr__(self) -> str:
        return repr(self.value)


class Combined(Expression):
    """Two sides and an operator between them. If one side is None, so is the result, as in SQL.

    Arguments:
        left: an expression or a value.
        sign: one of ``+ - * / // % **``.
        right: an expression or a value.
    """

    def __init__(self, left: Any, sign: str, right: Any) -> None:
        self.left = left if isinstance(left, Expression) else Value(left)
        self.sign = sign
        self.right = right if isinstance(right, Expression) else Value(right)

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The result of the operator."""
        left, right = self.left.evaluate(values), self.right.evaluate(values)
        if left is None or right is None:
            return None
        try:
            return _OPERATORS[self.sign](left, right)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InvalidArgument(
                f"{self!r} cannot be worked out for {left!r:.60} and {right!r:.60}: {error}. Nothing was changed."
            ) from error

    def names(self) -> Iterator[str]:
        """Names of the fields of both sides."""
        yield from self.left.names()
        yield from self.right.names()

    def __repr__(self) -> str:
        return f"({self.left!r} {self.sign} {self.right!r})"
