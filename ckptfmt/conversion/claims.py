"""What bytes of a source claim, believed only as far as they reach: numbers, shapes, JSON, and how values are shown.

Pure. Errors that are no `CkptError` mean that the bytes break their format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod
from typing import Any

import numpy as np

from ..errors import fault
from ..format.grid import Shape
from ..format.limits import FACTOR, VALUES
from ..format.names import label

MAX_AXES = 64  # as in NumPy
MAX_SIDE = 1 << 63
SHOWN = 60  # most characters of a value in a message

Pairs = Callable[[list[tuple[str, Any]]], Any]


def count(value: Any, what: str = "a count") -> int:
    """An int that counts something, from 0 on and below 2^63; raises ValueError for all else, bool and float too."""
    if type(value) is not int or not 0 <= value < MAX_SIDE:
        raise ValueError(f"{what} is {shown(value)}, which is no count")
    return value


def shape_of(values: Iterable[Any]) -> Shape:
    """A shape that an array can have; raises ValueError."""
    shape = tuple(values)
    if len(shape) > MAX_AXES:
        raise ValueError(f"a shape of {len(shape):,} axes, of at most {MAX_AXES}")
    return tuple(count(side, "a side of a shape") for side in shape)


def size_of(shape: Shape, itemsize: int) -> int:
    """Bytes of an array."""
    return prod(shape) * itemsize


def shown(value: Any, depth: int = 2) -> str:
    """A value for a message, in bounded time, whatever it holds."""
    if isinstance(value, str | bytes):
        return repr(value[:SHOWN]) + ("..." if len(value) > SHOWN else "")
    if type(value) is int:
        return label(value)[:SHOWN]
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if type(value) in (list, tuple, dict) and depth:
        items = [shown(item, depth - 1) for _, item in zip(range(4), value, strict=False)]
        return f"{type(value).__name__}({', '.join(items)}{', ...' if len(value) > 4 else ''})"
    return f"a {type(value).__name__}"


# ---- what is decoded

EXPANSION = 2048  # most bytes of tensors for a byte of the source, unless asked for; DEFLATE reaches 1032
AT_ONCE = 7 << 20  # bytes that any source may have decoded at once, of which libraries make up to six copies, ...
SHARE = 768  # ... and for each of its bytes this part of what its tensors may have in all
_expansion: ContextVar[int] = ContextVar("max_expansion", default=EXPANSION)


@contextmanager
def allowing(max_expansion: int) -> Iterator[None]:
    """Sources that are opened meanwhile may have `max_expansion` bytes of tensors for each of theirs."""
    token = _expansion.set(max_expansion)
    try:
        yield
    finally:
        _expansion.reset(token)


def patience() -> int:
    """How many times the usual memory the values of a source may take: as `max_expansion` is more than usual."""
    return max(1, _expansion.get() // EXPANSION)


def allowing_values() -> str:
    """What a caller who trusts a source of very many values can do."""
    return allowing_more(8 * patience() * EXPANSION)


_ratio: ContextVar[int] = ContextVar("ratio", default=1)


@contextmanager
def unpacked_by(ratio: int) -> Iterator[None]:
    """What is read meanwhile was unpacked, and is `ratio` times as large as the source."""
    token = _ratio.set(max(1, ratio))
    try:
        yield
    finally:
        _ratio.reset(token)


def factor() -> int:
    """Bytes of memory that values may take for each byte that they are read from."""
    return max(1, FACTOR // _ratio.get())


def expanded(size: int) -> int:
    """Bytes that a source of `size` bytes may have in all when it is decompressed."""
    return size * _expansion.get()


def at_once(size: int) -> int:
    """Bytes that a source of `size` bytes may have decoded at once."""
    return AT_ONCE + size * _expansion.get() // SHARE // _ratio.get()


def check_at_once(found: int, size: int, what: str) -> None:
    """Refuse to decode `found` bytes at once; raises `limit-exceeded`."""
    if found > at_once(size):
        message = f"{what} would be decoded to {found:,} bytes at once, far more than the source has"
        needed = -(-(found - AT_ONCE) * SHARE // max(1, size))
        raise fault("limit-exceeded", f"{message}; {allowing_more(needed)}", expected=at_once(size))


def allowing_more(needed: int) -> str:
    """What a caller who trusts a source can do."""
    return f"max_expansion={needed} allows it"


# ---- JSON

# bytes of memory for the values that a character of JSON may begin or end, beside those of strings' own characters
_JSON_COSTS = {"[": 64, "{": 180, ",": 32, ":": 64, '"': 12}
_TEXT = 3  # bytes of memory for each character


def json_document(raw: bytes, pairs: Pairs | None = None) -> Any:
    """The value of a JSON document in UTF-8; `pairs` makes the dicts. Raises `limit-exceeded` where its values would
    take far more memory than it has bytes, and ValueError."""
    costs = np.zeros(256, np.int64)
    costs[[ord(character) for character in _JSON_COSTS]] = list(_JSON_COSTS.values())
    cost = _TEXT * len(raw)
    data = np.frombuffer(raw, np.uint8)
    for start in range(0, data.size, 1 << 20):
        cost += int(np.bincount(data[start : start + (1 << 20)], minlength=256) @ costs)
    if cost > (room := max(0, factor() - _TEXT) * len(raw) + VALUES):
        message = f"the values of a JSON document of {len(raw):,} bytes take too much memory"
        raise fault("limit-exceeded", message, found=f"up to {cost}", expected=f"at most {room}")
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=pairs)
    except RecursionError as error:
        raise ValueError("the JSON document is nested too deeply") from error


# ---- what is read into memory


class MemoryRoom:
    """Memory for the names and values of a source of `size` bytes, counted before they are made, as the gate counts
    them once more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = patience() * (VALUES + factor() * size)

    def take(self, more: int) -> None:
        """Count some bytes; raises `limit-exceeded`."""
        self._left -= more
        if self._left < 0:
            message = f"what is in {self._size:,} bytes takes far more memory than that"
            raise fault("limit-exceeded", f"{message}; {allowing_values()}")
