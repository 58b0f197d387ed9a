"""Values of Python's and NumPy's own classes that the tree has no nodes for, as tags say them (SPEC.md section 13):
which param and child each has, and what makes the value of them.

What a value is made of is checked before, to the last number: a generator of random numbers believes what it is given.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np

from .limits import table
from .node import Accepts, Node, Restore

# by what a defaultdict may make its values; a name that is not here gives a dict
FACTORIES: Mapping[str, Callable[[], Any]] = {
    **{kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)},
    "collections.Counter": Counter,
    "collections.deque": deque,
}
_UNHASHABLE = {"list", "dict", "tensor"}
_DIGITS = 4096  # most digits of a fraction's numbers, whose arithmetic takes quadratic time
_ENTROPY, _SEEDS = 1 << 1024, 1024  # a bound of the numbers that seed a generator, and of how many there are


# ---- nodes of plain values


def integer(node: Node) -> int | None:
    """The int of a node; None for any other."""
    if type(node) is int:
        return node
    match node:
        case ["int", raw]:
            return int.from_bytes(raw, "big", signed=True)
    return None


def _integers(nodes: Iterable[Node], bound: int) -> bool:
    """Whether nodes are ints from 0 to below a bound."""
    return all((number := integer(node)) is not None and 0 <= number < bound for node in nodes)


def _items(node: Node) -> dict[Any, Node] | None:
    """The nodes in a dict whose keys are strings."""
    match node:
        case ["dict", keys, items] if all(type(key) is str for key in keys):
            return dict(zip(keys, items, strict=True))
    return None


def _is_hashable(node: Node) -> bool:
    match node:
        case ["tuple", items]:
            return all(map(_is_hashable, items))
        case ["tag", "python.frozenset", _, _]:
            return True  # whose own form says so
        case ["tag", _, _, child]:
            return _is_hashable(child)
        case [kind, *_]:
            return kind not in _UNHASHABLE
    return True


# ---- values that are text: a text stands for a value if it is how that is written


def text(parse: Callable[[str], Any], written: Callable[[Any], str] = str) -> tuple[Accepts, Restore]:
    def accepts(param: Node, child: Node, _: Sequence[str]) -> bool:
        return param is None and type(child) is str and _is_written(child, parse, written)

    return accepts, lambda _, child: parse(child)


def _is_written(child: str, parse: Callable[[str], Any], written: Callable[[Any], str]) -> bool:
    try:
        return written(parse(child)) == child
    except (ValueError, ArithmeticError, RecursionError):
        return False


def _decimal(child: str) -> Any:
    from decimal import Decimal  # here, as most programs need none

    return Decimal(child)


def _fraction(child: str) -> Any:
    from fractions import Fraction

    numerator, _, denominator = child.partition("/")
    if max(len(numerator), len(denominator)) > _DIGITS:
        raise ValueError("a fraction of too many digits")
    return Fraction(int(numerator), int(denominator))


def ratio(value: Any) -> str:
    """How a Fraction is written."""
    return f"{value.numerator}/{value.denominator}"


def _uuid(child: str) -> Any:
    from uuid import UUID

    return UUID(child)


def offset_of(zone: datetime.tzinfo) -> str:
    """How the offset of a time zone that has only one is written: "+01:00"."""
    return datetime.time(tzinfo=zone).isoformat()[8:]


def _zone(child: str) -> datetime.tzinfo:
    # by itself, as Python takes an offset of microseconds alone for none
    offset, zero = datetime.datetime.fromisoformat(f"0001-01-01T{child[1:]}"), datetime.datetime(1, 1, 1)
    if child[:1] not in ("+", "-") or offset.tzinfo is not None:
        raise ValueError("no offset")
    return datetime.timezone(offset - zero if child[0] == "+" else zero - offset)


def _from_iso(kind: type[Any], child: str) -> Any:
    """A moment or time of day, as `isoformat` wrote it."""
    found = kind.fromisoformat(child)
    start = max(child.rfind("+"), child.rfind("-"))
    return found if found.tzinfo is None else found.replace(tzinfo=_zone(child[start:]))


def _named(zone: datetime.tzinfo, name: str | None) -> datetime.tzinfo:
    offset = zone.utcoffset(None)
    assert offset is not None  # it is a `datetime.timezone`
    return zone if name is None else datetime.timezone(offset, name)


def _is_zone(param: Node, child: Node, _: Sequence[str]) -> bool:
    named = param is None or type(param) is str
    return named and type(child) is str and _is_written(child, _zone, offset_of)


def _timed(kind: type[datetime.time] | type[datetime.datetime]) -> tuple[Accepts, Restore]:
    """Times of day and moments. The param says what ISO 8601 does not: `fold`, and the name of the time zone."""

    parse = partial(_from_iso, kind)

    def accepts(param: Node, child: Node, _: Sequence[str]) -> bool:
        if type(child) is not str or not _is_written(child, parse, lambda value: value.isoformat()):
            return False
        more = {} if param is None else _items(param)
        if more is None or (param is not None and not more) or not more.keys() <= {"fold", "zone"}:
            return False
        zone = more.get("zone", "")
        is_zoned = parse(child).tzinfo is not None
        return more.get("fold", 1) in (1,) and type(zone) is str and ("zone" not in more or is_zoned)

    def restore(param: Any, child: str) -> Any:
        value, more = parse(child), param or {}
        if "zone" in more and value.tzinfo is not None:
            value = value.replace(tzinfo=_named(value.tzinfo, more["zone"]))
        return value.replace(fold=more.get("fold", 0))

    return accepts, restore


def _is_span(param: Node, child: Node, _: Sequence[str]) -> bool:
    count = integer(child)
    try:
        return param is None and count is not None and datetime.timedelta(microseconds=count) is not None
    except OverflowError:
        return False


_PATHS: Mapping[str, type[PurePath]] = {"posix": PurePosixPath, "windows": PureWindowsPath}


def _is_path(param: Node, child: Node, _: Sequence[str]) -> bool:
    return type(param) is str and param in _PATHS and type(child) is str and _is_written(child, _PATHS[param], str)


def _path(param: str, child: str) -> PurePath:
    """A path of this system where it is one of its kind, else one that only says what it is."""
    here = Path(child)
    return here if isinstance(here, _PATHS[param]) else _PATHS[param](child)


# ---- containers


def _is_mapping(param: Node, child: Node, _: Sequence[str]) -> bool:
    return param is None and type(child) is list and child[0] == "dict"


def _is_default(param: Node, child: Node, dtypes: Sequence[str]) -> bool:
    return (param is None or type(param) is str) and _is_mapping(None, child, dtypes)


def _default(param: str | None, child: Any) -> Any:
    if param is not None and param not in FACTORIES:
        return NotImplemented
    return defaultdict(None if param is None else FACTORIES[param], child)


def _is_queue(param: Node, child: Node, _: Sequence[str]) -> bool:
    if type(child) is not list or child[0] != "list":
        return False
    return param is None or (type(param) is int and len(child[1]) <= param < 1 << 63)


def _is_namespace(param: Node, child: Node, _: Sequence[str]) -> bool:
    return param is None and _items(child) is not None


def _namespace(kind: Callable[[], Any]) -> Restore:
    def restore(_: Any, child: Any) -> Any:
        made = kind()
        vars(made).update(child)
        return made

    return restore


def _argparse() -> Any:
    from argparse import Namespace

    return Namespace()


def _is_set(param: Node, child: Node, _: Sequence[str]) -> bool:
    return param is None and type(child) is list and child[0] == "list" and all(map(_is_hashable, child[1]))


def _set(kind: type) -> Restore:
    def restore(_: Any, child: Any) -> Any:
        try:
            return kind(table((item, None) for item in child))
        except TypeError:  # a member whose class was registered, and has no hash
            return NotImplemented

    return restore


def _triple(is_item: Callable[[Node], bool]) -> Accepts:
    def accepts(param: Node, child: Node, _: Sequence[str]) -> bool:
        match child:
            case ["tuple", [*items]] if len(items) == 3:
                return param is None and all(map(is_item, items))
        return False

    return accepts


_is_slice = _triple(lambda node: node is None or integer(node) is not None)


def _is_range(param: Node, child: Node, dtypes: Sequence[str]) -> bool:
    return _triple(lambda node: integer(node) is not None)(param, child, dtypes) and integer(child[1][2]) != 0


# ---- generators of random numbers: an int is the bound of one, a pair how many of them there are and their bound

_WORD = {"has_uint32": 2, "uinteger": 1 << 32}
_PCG = {"state": {"state": 1 << 128, "inc": 1 << 128}, **_WORD}
_STATES: Mapping[str, Mapping[str, Any]] = {
    "PCG64": _PCG,
    "PCG64DXSM": _PCG,
    "MT19937": {"state": {"key": (624, 1 << 32), "pos": 625}},
    "Philox": {
        "state": {"counter": (4, 1 << 64), "key": (2, 1 << 64)},
        "buffer": (4, 1 << 64),
        "buffer_pos": 5,
        **_WORD,
    },
    "SFC64": {"state": {"state": (4, 1 << 64)}, **_WORD},
}
_GAUSS = {"has_gauss": 2, "gauss": float}
BIT_GENERATORS = frozenset(_STATES)


def _fits(node: Node, form: Any) -> bool:
    if form is float:
        return type(node) is float
    if isinstance(form, int):
        return _integers([node], form)
    if isinstance(form, tuple):
        count, bound = form
        return type(node) is list and node[0] == "list" and len(node[1]) == count and _integers(node[1], bound)
    items = _items(node)
    return items is not None and items.keys() == form.keys() and all(_fits(items[key], form[key]) for key in form)


def _is_state(child: Node, more: Mapping[str, Any]) -> bool:
    """Whether a node is the state of one of NumPy's bit generators."""
    items = _items(child) or {}
    name = items.pop("bit_generator", None)
    if type(name) is not str or name not in _STATES:
        return False
    return _fits(["dict", list(items), list(items.values())], {**_STATES[name], **more})


def _is_seed(node: Node) -> bool:
    """Whether a node is what a SeedSequence says of itself."""
    items = _items(node)
    if items is None or items.keys() != {"entropy", "spawn_key", "pool_size", "n_children_spawned"}:
        return False
    match items["entropy"], items["spawn_key"]:
        case entropy, ["list", [*keys]] if len(keys) <= _SEEDS and _integers(keys, 1 << 32):
            match entropy:
                case ["list", [*numbers]]:
                    is_entropy = len(numbers) <= _SEEDS and _integers(numbers, _ENTROPY)
                case _:
                    is_entropy = _integers([entropy], _ENTROPY)
            pool, children = items["pool_size"], items["n_children_spawned"]
            return is_entropy and _integers([pool], _SEEDS) and pool >= 4 and _integers([children], 1 << 32)
    return False


def _is_generator(param: Node, child: Node, _: Sequence[str]) -> bool:
    return (param is None or _is_seed(param)) and _is_state(child, {})


def _nothing_to_spawn() -> Any:
    """For generators that came without a SeedSequence: they have none to spawn others from."""

    class Unseeded(np.random.bit_generator.ISeedSequence):
        def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Any:
            return np.zeros(n_words, dtype)

    return Unseeded()


def _bits(state: Mapping[str, Any], seed: Any = 0) -> Any:
    """A bit generator of NumPy in a state that has been checked."""
    words = "uint32" if state["bit_generator"] == "MT19937" else "uint64"

    def arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: arrays(item) for key, item in value.items()}
        return np.array(value, words) if isinstance(value, list) else value

    made = getattr(np.random, state["bit_generator"])(seed)
    made.state = arrays(state)
    return made


def _generator(param: Any, child: Any) -> Any:
    seed = _nothing_to_spawn() if param is None else np.random.SeedSequence(**param)
    return np.random.Generator(_bits(child, seed))


def _random_state(_: Any, child: Any) -> Any:
    gauss = {key: child[key] for key in ("has_gauss", "gauss")}
    made = np.random.RandomState(_bits({key: value for key, value in child.items() if key not in gauss}))
    made.set_state({**made.get_state(legacy=False), **gauss})
    return made


def _is_random(param: Node, child: Node, _: Sequence[str]) -> bool:
    """As `random.Random.getstate()` gives it: its version, the 624 numbers and the place in them, and a number that is
    to come or None."""
    match child:
        case ["tuple", [3, ["tuple", [*numbers, place]], gauss]]:
            is_gauss = gauss is None or type(gauss) is float
            numbers_fit = len(numbers) == 624 and _integers(numbers, 1 << 32)
            return param is None and is_gauss and numbers_fit and _integers([place], 625)
    return False


def _random(_: Any, child: Any) -> Any:
    from random import Random

    made = Random(0)
    made.setstate(child)
    return made


# ---- the tables

CONTAINERS: Mapping[str, tuple[Accepts, Restore]] = {
    "collections.Counter": (_is_mapping, lambda _, child: Counter(child)),
    "collections.defaultdict": (_is_default, _default),
    "collections.deque": (_is_queue, lambda param, child: deque(child, param)),
    "types.SimpleNamespace": (_is_namespace, _namespace(SimpleNamespace)),
    "argparse.Namespace": (_is_namespace, _namespace(_argparse)),
}
ATOMS: Mapping[str, tuple[Accepts, Restore]] = {
    "python.bytearray": (
        lambda param, child, _: param is None and type(child) is bytes,
        lambda _, child: bytearray(child),
    ),
    "python.set": (_is_set, _set(set)),
    "python.frozenset": (_is_set, _set(frozenset)),
    "python.range": (_is_range, lambda _, child: range(*child)),
    "python.slice": (_is_slice, lambda _, child: slice(*child)),
    "datetime.date": text(datetime.date.fromisoformat, lambda value: str(value.isoformat())),
    "datetime.time": _timed(datetime.time),
    "datetime.datetime": _timed(datetime.datetime),
    "datetime.timedelta": (_is_span, lambda _, count: datetime.timedelta(microseconds=count)),
    "datetime.timezone": (_is_zone, lambda name, child: _named(_zone(child), name)),
    "decimal.Decimal": text(_decimal),
    "fractions.Fraction": text(_fraction, ratio),
    "uuid.UUID": text(_uuid),
    "pathlib.PurePath": (_is_path, lambda param, child: _PATHS[param](child)),
    "pathlib.Path": (_is_path, _path),
    "random.Random": (_is_random, _random),
    "numpy.random.Generator": (_is_generator, _generator),
    "numpy.random.RandomState": (lambda param, child, _: param is None and _is_state(child, _GAUSS), _random_state),
}
