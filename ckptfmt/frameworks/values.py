"""Values of Python's and NumPy's own classes, as tags say them: the way there; `format.values` is the way back.

Classes are known by their names, and only what has been imported is looked at: a program that needs no fractions
imports none.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..format.values import BIT_GENERATORS, FACTORIES, offset_of, ratio


class Lowered(NamedTuple):
    """What becomes of a value: the tag, its param, and its child, which are plain values or trees."""

    tag: str
    param: Any
    child: Any


Lower = Callable[[Any], Lowered | None]


def parts_of(value: Any) -> Lowered | None:
    """The tag of a value, its param and child; None for a value that has none, or none that says all of it."""
    lower: Lower | None = _lowering(type(value))  # type: ignore[arg-type]  # a class has a hash
    return None if lower is None else lower(value)


@lru_cache(1024)
def _lowering(kind: type) -> Lower | None:
    if issubclass(kind, enum.Enum):
        return _enum
    name = f"{kind.__module__}.{kind.__qualname__}"
    tag, lower = _CLASSES.get(name, (name, None))
    if lower is None or getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
        return None
    return lambda value: lower(tag, value)


def _plain(child: Callable[[Any], Any]) -> Callable[[str, Any], Lowered]:
    return lambda tag, value: Lowered(tag, None, child(value))


def _default(tag: str, value: Any) -> Lowered | None:
    factory = value.default_factory
    name = next((name for name, known in FACTORIES.items() if known is factory), None)
    return Lowered(tag, name, dict(value)) if name is not None or factory is None else None


def _enum(value: enum.Enum) -> Lowered:
    kind = type(value)
    return Lowered("python.enum", f"{kind.__module__}.{kind.__qualname__}", value.value)


def _timed(tag: str, value: Any) -> Lowered | None:
    """Moments and times of day, in no time zone or one of a fixed offset."""
    zone = value.tzinfo
    more: dict[str, Any] = {}
    if zone is not None:
        if _name_of(zone) != "datetime.timezone":
            return None
        name = zone.__getinitargs__()[1:]
        more |= {"zone": name[0]} if name else {}
    more |= {"fold": value.fold} if value.fold else {}
    return Lowered(tag, more or None, value.isoformat())


def _zone(tag: str, value: Any) -> Lowered:
    _, *name = value.__getinitargs__()
    return Lowered(tag, name[0] if name else None, offset_of(value))


def _microseconds(value: Any) -> int:
    return int((value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds)


def _path(system: str) -> Callable[[str, Any], Lowered]:
    return lambda tag, value: Lowered(tag, system, os.fspath(value))


def _in_order(values: Any) -> list[Any]:
    """The items of a set in an order that does not depend on their hashes."""
    return sorted(values, key=order)


def order(value: Any) -> tuple[Any, ...]:
    """By which the items of a set are sorted: equal types by what they hold, what cannot be compared by its text."""
    kind = _name_of(value)
    if type(value) in (bool, int, str, bytes):
        return kind, value
    if type(value) is tuple:
        return kind, tuple(map(order, value))
    if type(value) is frozenset:
        return kind, tuple(sorted(map(order, value)))
    return kind, repr(value)


def _plain_state(state: Any) -> Any:
    """The state of a bit generator with lists for its arrays."""
    if isinstance(state, dict):
        return {key: _plain_state(item) for key, item in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _seed(seed: Any) -> dict[str, Any] | None:
    """What a SeedSequence says of itself; None for one of another class, or one that was never asked for."""
    if type(seed) is not np.random.SeedSequence:
        return None
    said: dict[str, Any] = dict(seed.state)
    for key in ("entropy", "spawn_key"):
        numbers = said[key]
        said[key] = numbers if isinstance(numbers, int) else [int(number) for number in numbers]
    return said


def _generator(tag: str, value: Any) -> Lowered | None:
    bits = value.bit_generator
    known = type(bits).__name__ in BIT_GENERATORS and getattr(np.random, type(bits).__name__) is type(bits)
    return Lowered(tag, _seed(bits.seed_seq), _plain_state(bits.state)) if known else None


def _random_state(tag: str, value: Any) -> Lowered | None:
    state = _plain_state(value.get_state(legacy=False))
    return Lowered(tag, None, state) if state["bit_generator"] in BIT_GENERATORS else None


def _name_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


# by the name of a class: the tag, and what gives the parts
_CLASSES: Mapping[str, tuple[str, Callable[[str, Any], Lowered | None]]] = {
    "collections.Counter": ("collections.Counter", _plain(dict)),
    "collections.defaultdict": ("collections.defaultdict", _default),
    "collections.deque": ("collections.deque", lambda tag, value: Lowered(tag, value.maxlen, list(value))),
    "types.SimpleNamespace": ("types.SimpleNamespace", _plain(lambda value: dict(vars(value)))),
    "argparse.Namespace": ("argparse.Namespace", _plain(lambda value: dict(vars(value)))),
    "builtins.bytearray": ("python.bytearray", _plain(bytes)),
    "builtins.set": ("python.set", _plain(_in_order)),
    "builtins.frozenset": ("python.frozenset", _plain(_in_order)),
    "builtins.range": ("python.range", _plain(lambda value: (value.start, value.stop, value.step))),
    "builtins.slice": ("python.slice", _plain(lambda value: (value.start, value.stop, value.step))),
    "datetime.date": ("datetime.date", _plain(lambda value: value.isoformat())),
    "datetime.time": ("datetime.time", _timed),
    "datetime.datetime": ("datetime.datetime", _timed),
    "datetime.timedelta": ("datetime.timedelta", _plain(_microseconds)),
    "datetime.timezone": ("datetime.timezone", _zone),
    "decimal.Decimal": ("decimal.Decimal", _plain(str)),
    "fractions.Fraction": ("fractions.Fraction", _plain(ratio)),
    "uuid.UUID": ("uuid.UUID", _plain(str)),
    **{
        f"{module}.{name}": (f"pathlib.{tag}", _path(system))
        for module in ("pathlib", "pathlib._local")
        for name, tag, system in (
            ("PurePosixPath", "PurePath", "posix"),
            ("PureWindowsPath", "PurePath", "windows"),
            ("PosixPath", "Path", "posix"),
            ("WindowsPath", "Path", "windows"),
        )
    },
    "random.Random": ("random.Random", _plain(lambda value: value.getstate())),
    "numpy.random._generator.Generator": ("numpy.random.Generator", _generator),
    "numpy.random.mtrand.RandomState": ("numpy.random.RandomState", _random_state),
}
