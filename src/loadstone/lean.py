"""`NamedTuple` and `Protocol` for the modules of the run path, at a tenth of the price of `typing`'s.

Depends on nothing. `typing.NamedTuple` compiles a constructor for each class, 0.2 ms; forty of them would be a tenth of
what it costs to run `/bin/true`. Type checkers see the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

__all__ = ["NamedTuple", "Protocol"]

if TYPE_CHECKING:
    from typing import NamedTuple, Protocol
else:
    from _collections import _tuplegetter  # what collections.namedtuple reads its fields with

    Protocol = object

    class _Meta(type):
        """Makes a class body's annotations the fields of a tuple."""

        def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            fields = tuple(body.get("__annotations__", ()))
            defaults = body["_field_defaults"] = {field: body[field] for field in fields if field in body}
            body["_last_defaults"] = tuple(defaults.values())
            for index, field in enumerate(fields):
                body[field] = _tuplegetter(index, "")
            body["_fields"] = body["__match_args__"] = fields
            body["__slots__"] = ()
            return super().__new__(mcs, name, bases, body)

    class NamedTuple(tuple, metaclass=_Meta):
        """A tuple with named fields, as `typing.NamedTuple`."""

        def __new__(cls, *values: Any, **named: Any) -> NamedTuple:
            """Fields in order, by name, or left to their defaults."""
            if named or len(values) != len(cls._fields):
                values = _complete(cls, values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _make(cls, values: Any) -> NamedTuple:
            return cls(*values)

        def _replace(self, **changes: Any) -> NamedTuple:
            values = self._asdict()
            unknown = changes.keys() - values.keys()
            if unknown:
                raise ValueError(f"{type(self).__name__} has no field {sorted(unknown)[0]!r}")
            values.update(changes)
            return tuple.__new__(type(self), values.values())

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({fields})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    def _complete(cls: type, values: tuple[Any, ...], named: dict[str, Any]) -> Sequence[Any]:
        """All fields of a new tuple, of which some came by name and some not at all."""
        fields = cls._fields
        missing = len(fields) - len(values)
        if not named and 0 < missing <= len(cls._last_defaults):  # the fields with defaults are the last ones
            return values + cls._last_defaults[-missing:]
        if not values and len(named) == len(fields):
            try:
                return list(map(named.__getitem__, fields))
            except KeyError:
                pass  # one is unknown and one missing: told below
        given = dict(zip(fields, values))  # noqa: B905 - too many are told below
        if missing < 0 or not named.keys() <= set(fields[len(values) :]):
            doubled, unknown = given.keys() & named.keys(), named.keys() - set(fields)
            what = f"{len(values)} values for {len(fields)} fields"
            raise TypeError(f"{cls.__name__}: {sorted(doubled | unknown) if doubled | unknown else what}")
        given = {**cls._field_defaults, **given, **named}
        try:
            return list(map(given.__getitem__, fields))
        except KeyError as missing_field:
            raise TypeError(f"{cls.__name__}: no value for {missing_field}") from None
