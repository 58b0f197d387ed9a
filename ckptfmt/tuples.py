"""NamedTuples that cost little to define, for the modules that opening a checkpoint imports. `typing.NamedTuple`
compiles each annotation and a constructor when its module is imported: for those modules, longer than a slice takes.
To type checkers, and to programs that look at such a class, these are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

new = tuple.__new__
# what makes a tuple of so many fields, of which it gets the names
_CONSTRUCTORS: tuple[Any, ...] = (
    lambda _: new(_, ()),
    lambda _, a: new(_, (a,)),
    lambda _, a, b: new(_, (a, b)),
    lambda _, a, b, c: new(_, (a, b, c)),
    lambda _, a, b, c, d: new(_, (a, b, c, d)),
    lambda _, a, b, c, d, e: new(_, (a, b, c, d, e)),
    lambda _, a, b, c, d, e, f: new(_, (a, b, c, d, e, f)),
    lambda _, a, b, c, d, e, f, g: new(_, (a, b, c, d, e, f, g)),
    lambda _, a, b, c, d, e, f, g, h: new(_, (a, b, c, d, e, f, g, h)),
    lambda _, a, b, c, d, e, f, g, h, i: new(_, (a, b, c, d, e, f, g, h, i)),
    lambda _, a, b, c, d, e, f, g, h, i, j: new(_, (a, b, c, d, e, f, g, h, i, j)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k: new(_, (a, b, c, d, e, f, g, h, i, j, k)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k, m: new(_, (a, b, c, d, e, f, g, h, i, j, k, m)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k, m, n: new(_, (a, b, c, d, e, f, g, h, i, j, k, m, n)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k, m, n, o: new(_, (a, b, c, d, e, f, g, h, i, j, k, m, n, o)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p: new(_, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p)),
    lambda _, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q: new(_, (a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q)),
)

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from types import FunctionType

    try:
        from collections import _tuplegetter
    except ImportError:  # without it fields are read more slowly
        from operator import itemgetter

        def _tuplegetter(place, text):
            return property(itemgetter(place), doc=text)

    class _Defining(type):
        """Makes a plain subclass of tuple of a class that is defined over `NamedTuple`."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = tuple(body.get("__annotations__", ()))
            defaults = {field: body[field] for field in fields if field in body}
            if fields[len(fields) - len(defaults) :] != tuple(defaults):
                raise TypeError(f"in {name} a field without a default comes after one with a default")
            code = _CONSTRUCTORS[len(fields)].__code__.replace(
                co_name="__new__", co_qualname=f"{name}.__new__", co_varnames=("_cls", *fields)
            )
            made = FunctionType(code, globals(), "__new__", tuple(defaults.values()))
            made.__annotations__ = dict(body.get("__annotations__", ()))
            getters = {
                field: _tuplegetter(place, f"Alias for field number {place}") for place, field in enumerate(fields)
            }
            own = {"__new__": made, "_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            return type(name, (tuple,), {"__slots__": (), **_METHODS, **body, **own, **getters})

    class NamedTuple(metaclass=_Defining):
        """The base of the classes; as that of `typing`."""

        @classmethod
        def _make(cls, values):
            made = new(cls, values)
            if len(made) != len(cls._fields):
                raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
            return made

        def _replace(self, /, **changes):
            made = self._make(map(changes.pop, self._fields, self))
            if changes:
                raise TypeError(f"Got unexpected field names: {list(changes)!r}")
            return made

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self):
            return tuple(self)

        def __repr__(self):
            values = ", ".join(f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({values})"

    _METHODS = {
        name: NamedTuple.__dict__[name] for name in ("_make", "_replace", "_asdict", "__getnewargs__", "__repr__")
    } | {"__replace__": NamedTuple._replace}
