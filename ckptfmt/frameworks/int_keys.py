"""Text keys of a checkpoint that stand for ints: flax's msgpack and Orbax write int keys as text, flax the indices of
sequences too, and a template says where they were ints. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain

from ..format.names import Key, Path, is_int_text


def as_asked(stored: Collection[Path], asked: Collection[Path]) -> Callable[[Path], Path]:
    """What gives a path of a checkpoint as a template has it: with an int for the text of one, where the template has
    the int and not the text, and the checkpoint has not both. `stored` and `asked` are the paths of all leaves."""
    if all(path in asked for path in stored):
        return lambda path: path
    wanted, there = _keys(asked), _keys(stored)

    def given(path: Path) -> Path:
        place: Path = ()
        for end, key in enumerate(path):
            keys = wanted.get(place, set())
            if isinstance(key, str) and key not in keys and is_int_text(key):
                number = int(key)
                key = number if number in keys and number not in there[path[:end]] else key
            place = (*place, key)
        return place

    return given


def _keys(paths: Collection[Path]) -> dict[Path, set[Key]]:
    """The keys of every container."""
    keys: dict[Path, set[Key]] = {}
    for above, key in chain.from_iterable(((path[:end], key) for end, key in enumerate(path)) for path in paths):
        keys.setdefault(above, set()).add(key)
    return keys
