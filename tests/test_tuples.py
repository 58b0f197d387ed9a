"""NamedTuples of the package do what those of `typing` do."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from functools import cached_property
from typing import Any

import pytest

from ckptfmt.tuples import NamedTuple


class Ours(NamedTuple):
    """A place."""

    x: int
    y: int = 2
    name: str | None = None

    @property
    def sum(self) -> int:
        return self.x + self.y

    @classmethod
    def origin(cls) -> Ours:
        return cls(0, 0)


class Theirs(typing.NamedTuple):
    """A place."""

    x: int
    y: int = 2
    name: str | None = None


class Grown(Ours):
    """With what is found once."""

    @cached_property
    def product(self) -> int:
        return self.x * self.y


BOTH = pytest.mark.parametrize("kind", [Ours, Theirs, Grown])


@BOTH
def test_it_is_a_tuple_with_names(kind: Any) -> None:
    one = kind(1, name="a")
    assert one == (1, 2, "a") == tuple(one)
    assert (one.x, one.y, one.name) == (1, 2, "a")
    assert hash(one) == hash((1, 2, "a"))
    assert repr(one) == f"{kind.__name__}(x=1, y=2, name='a')"
    assert kind(y=5, x=4) == kind(4, 5) == kind._make([4, 5, None])
    assert one._replace(y=3) == kind(1, 3, "a")
    assert type(one._replace(y=3)) is kind
    assert one._asdict() == {"x": 1, "y": 2, "name": "a"}
    assert kind._fields == kind.__match_args__ == ("x", "y", "name")
    assert kind._field_defaults == {"y": 2, "name": None}
    match one:
        case kind(x, y):
            assert (x, y) == (1, 2)


@BOTH
def test_it_is_copied_and_pickled(kind: Any) -> None:
    one = kind(1, name="a")
    for again in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert again == one
        assert type(again) is kind


@BOTH
def test_what_is_wrong_is_an_error(kind: Any) -> None:
    for arguments, options in (((), {}), ((1, 2, "a", 4), {}), ((1,), {"z": 3}), ((1,), {"x": 3})):
        with pytest.raises(TypeError):
            kind(*arguments, **options)
    with pytest.raises(TypeError, match="Expected 3 arguments, got 2"):
        kind._make([1, 2])
    with pytest.raises((TypeError, ValueError), match="Got unexpected field names"):
        kind(1)._replace(z=3)
    with pytest.raises(AttributeError):
        kind(1).x = 2


def test_a_class_is_plain() -> None:
    """As other libraries look for it: a direct subclass of tuple with names of fields."""
    assert Ours.__bases__ == Theirs.__bases__ == (tuple,)
    assert type(Ours) is type
    assert not hasattr(Ours(1), "__dict__")
    assert list(inspect.signature(Ours).parameters) == list(inspect.signature(Theirs).parameters)
    assert inspect.signature(Ours).parameters["y"].default == 2
    assert Ours.__doc__ == "A place."
    assert (Ours(1).sum, Ours.origin(), Grown(2, 3).product) == (3, (0, 0, None), 6)


def test_any_number_of_fields_has_a_constructor() -> None:
    for count in range(17):
        fields = [f"f{number}" for number in range(count)]
        kind: Any = type(NamedTuple)("Many", (NamedTuple,), {"__annotations__": dict.fromkeys(fields, "int")})
        assert kind(*range(count)) == tuple(range(count)) == kind(**{name: i for i, name in enumerate(fields)})


def test_defaults_come_last() -> None:
    with pytest.raises(TypeError, match="without a default"):
        type(NamedTuple)("Wrong", (NamedTuple,), {"__annotations__": {"a": "int", "b": "int"}, "a": 1})
