"""Hypothesis strategies for everything that a checkpoint holds: trees, arrays of every dtype and memory layout, and
basic indices.

Requires the package hypothesis. Floats are drawn as bit patterns, so that signed zeros, infinities and NaN payloads are
common.
"""

from __future__ import annotations

import struct
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import timedelta, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..format.dtypes import DTYPES, Array
from ..format.tree import Tree
from ..packages import required_by

with required_by("ckptfmt.testing.strategies"):
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import array_shapes

Strategy = st.SearchStrategy[Any]

TIME_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "25s", "7D")
MEMORY_LAYOUTS = ("plain", "transposed", "strided", "reversed", "broadcast", "unaligned", "read-only")
ODD_KEYS = (
    "",
    "0",
    "-1",
    "-0",
    "007",
    "a/b",
    "a",
    "zarr.json",
    "__x",
    "_",
    ".",
    "..",
    "...",
    "dot.",
    "~",
    "~2E",
    "c",
    "ü",
)


# ---- dtypes and arrays


def dtypes() -> Strategy:
    """NumPy dtypes of every kind that a tensor can have, big-endian and datetime64 ones included."""
    core = [row.numpy for row in DTYPES.values() if row.is_core]
    times = [np.dtype(f"{kind}8[{unit}]") for kind in "mM" for unit in TIME_UNITS] + [np.dtype("m8")]
    extended = [row.numpy for row in DTYPES.values() if not row.is_core]
    swapped = [dtype.newbyteorder(">") for dtype in (*core, *times[:3])]
    return st.sampled_from(core) | st.sampled_from(extended) | st.sampled_from(swapped) | st.sampled_from(times)


def shapes(max_dims: int = 5, max_side: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of up to `max_dims` axes, of zero length too."""
    return array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side)


@st.composite
def arrays(draw: st.DrawFn, dtype: Strategy | None = None, shape: Strategy | None = None) -> Array:
    """Arrays of any dtype, bit pattern and memory layout."""
    kind = draw(dtypes() if dtype is None else dtype)
    size = draw(shapes() if shape is None else shape)
    layout = draw(st.sampled_from(MEMORY_LAYOUTS))
    seed = draw(st.integers(0, 2**32 - 1))
    return _laid_out(kind, size, layout, seed)


def _laid_out(dtype: np.dtype[Any], shape: tuple[int, ...], layout: str, seed: int) -> Array:
    array: Array
    match layout:
        case "transposed":
            return filled(dtype, shape[::-1], seed).T
        case "strided":
            array = filled(dtype, tuple(2 * n for n in shape), seed)[_every(2, len(shape))]
            return array
        case "reversed":
            array = filled(dtype, shape, seed)[_every(-1, len(shape))]
            return array
        case "broadcast":
            return np.broadcast_to(filled(dtype, (*shape[:-1], 1) if shape else (), seed), shape)
        case "unaligned":
            return np.ndarray(shape, dtype, bytearray(b"\0" + filled(dtype, shape, seed).tobytes()), 1)
    array = filled(dtype, shape, seed)
    array.flags.writeable = layout != "read-only"
    return array


def _every(step: int, dims: int) -> tuple[Any, ...]:
    """An index of every `step`-th element along each axis; with the Ellipsis that keeps a 0-d array an array."""
    return (..., *[slice(None, None, step)] * dims)


def filled(dtype: np.dtype[Any], shape: tuple[int, ...], seed: int) -> Array:
    """A C-contiguous array of bit patterns drawn with `seed`; zeros for seed 0."""
    count = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 256, (count, dtype.itemsize), np.uint8)
    mood = rng.integers(0, 4, count)
    bits[mood == 0] &= np.uint8(0x80 if seed % 2 else 0)  # zeros, some of them with their sign
    bits[mood == 1, -2:] |= np.frombuffer(b"\xf0\x7f", np.uint8)[-dtype.itemsize :]  # infinities and NaNs with payloads
    row = next((row for row in DTYPES.values() if row.numpy == dtype), None)
    if row is not None and (row.bits < 8 or row.name == "bool"):
        bits &= np.uint8(1 if row.name == "bool" else (1 << row.bits) - 1)
    if seed == 0:
        bits[...] = 0
    native = bits.view(dtype.newbyteorder("=")).reshape(shape)
    return native.astype(dtype) if dtype.byteorder == ">" else native


# ---- plain values and trees


def integers() -> st.SearchStrategy[int]:
    """Ints of any size, often at the borders of machine integers."""
    borders = [
        sign * (1 << bits) + step for bits in (7, 31, 32, 63, 64, 127, 128) for sign in (-1, 1) for step in (-1, 0, 1)
    ]
    return st.integers() | st.sampled_from(borders) | st.integers(-(1 << 200), 1 << 200)


def floats() -> st.SearchStrategy[float]:
    """Floats of any bit pattern."""
    odd = st.sampled_from([0x8000_0000_0000_0000, 0x7FF0_0000_0000_0000, 0x7FF0_0000_0000_0001, 0xFFF8_0000_DEAD_BEEF])
    bits = st.integers(0, (1 << 64) - 1) | odd
    return bits.map(lambda value: struct.unpack("<d", value.to_bytes(8, "little"))[0])


def scalars() -> Strategy:
    """NumPy scalars of every dtype, `str_` and `bytes_` among them."""
    texts = st.text(max_size=8).map(np.str_) | st.binary(max_size=8).map(np.bytes_)
    return st.builds(filled, dtypes(), st.just((1,)), st.integers(0, 2**32 - 1)).map(lambda array: array[0]) | texts


def plain_leaves() -> Strategy:
    """Leaves that are no tensors."""
    numbers = st.none() | st.booleans() | integers() | floats() | st.builds(complex, floats(), floats())
    return numbers | st.text(max_size=8) | st.binary(max_size=8) | scalars()


def values(*, large: bool = True) -> Strategy:
    """Values of other classes of Python and NumPy that are one leaf: sets, dates, numbers, paths, generators; with
    `large` also those generators whose state is hundreds of numbers."""
    zones = st.none() | st.timedeltas(-timedelta(hours=23), timedelta(hours=23)).map(timezone)
    named = st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23)), st.text(max_size=4))
    zones |= named
    words = st.text("abü .:", max_size=8)
    members = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=4) | st.dates(),
        lambda below: st.lists(below, max_size=3).map(tuple) | st.frozensets(below, max_size=3),
        max_leaves=6,
    )
    step = integers().filter(bool)
    border = st.none() | integers()
    return st.one_of(
        st.sets(members, max_size=4),
        st.frozensets(members, max_size=4),
        st.binary(max_size=8).map(bytearray),
        st.builds(range, integers(), integers(), step),
        st.builds(slice, border, border, border),
        st.dates(),
        st.times(timezones=zones),
        st.datetimes(timezones=zones),
        st.timedeltas(),
        st.builds(timezone, st.timedeltas(-timedelta(hours=23), timedelta(hours=23))) | named,
        st.decimals(),
        st.fractions(),
        st.uuids(),
        words.map(PurePosixPath) | words.map(PureWindowsPath) | words.map(Path),
        st.builds(_generator, st.sampled_from(BIT_GENERATORS), st.integers(0, 1 << 200), st.integers(0, 9)),
        *(_large_generators() if large else ()),
    )


def _large_generators() -> list[Strategy]:
    seeds = st.integers(0, 2**32 - 1)
    return [
        seeds.map(Random),
        seeds.map(np.random.RandomState),
        st.builds(_generator, st.just("MT19937"), seeds, seeds),
    ]


BIT_GENERATORS = ("PCG64", "PCG64DXSM", "Philox", "SFC64")


def _generator(name: str, seed: int, used: int) -> np.random.Generator:
    made = np.random.Generator(getattr(np.random, name)(seed))
    made.integers(0, 9, used % 9, dtype=np.uint32)
    made.spawn(used % 3)
    return made


def keys() -> st.SearchStrategy[str | int]:
    """Dict keys: strings that names must escape, any other strings, and ints of any size."""
    return st.sampled_from(ODD_KEYS) | st.text(max_size=6) | integers()


@st.composite
def trees(draw: st.DrawFn, *, tensors: bool = True, max_leaves: int = 12) -> Tree:
    """Trees of every kind of value; with `tensors`, arrays, and aliases of arrays. Without, they fit `metadata=`."""
    leaves = plain_leaves() | values(large=False)
    if tensors:
        shared = draw(st.lists(arrays(), max_size=2))
        # by number, as hypothesis prints strategies, and NumPy cannot print every datetime64
        aliases = st.integers(0, len(shared) - 1).map(lambda number: shared[number]) if shared else st.nothing()
        leaves = leaves | arrays() | aliases
    return draw(st.recursive(leaves, _containers, max_leaves=max_leaves))


def _containers(children: Strategy) -> Strategy:
    items = st.lists(children, max_size=4)
    dicts = st.dictionaries(keys(), children, max_size=4)
    named = st.dictionaries(st.text(max_size=6), children, max_size=4)
    queues = st.builds(lambda found, more: deque(found, len(found) + more), items, st.integers(0, 3))
    counters = st.dictionaries(keys(), st.integers(), max_size=4).map(Counter)
    defaults: Strategy = st.builds(defaultdict, st.sampled_from([None, int, list, dict, set, Counter, deque]), dicts)
    namespaces = st.builds(_namespace, st.sampled_from([SimpleNamespace, Namespace]), named)
    others = counters | defaults | items.map(deque) | queues | namespaces
    return items | items.map(tuple) | dicts | dicts.map(OrderedDict) | others


def _namespace(kind: Any, attributes: dict[str, Any]) -> Any:
    made = kind()
    vars(made).update(attributes)
    return made


# ---- indices


def slices(length: int) -> st.SearchStrategy[slice]:
    """Slices for an axis, with borders in and out of range, steps of either sign, and empty ones."""
    border = st.none() | st.integers(-length - 2, length + 2)
    step = st.none() | st.integers(1, length + 2) | st.integers(-length - 2, -1)
    return st.builds(slice, border, border, step)


@st.composite
def basic_indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Indices of ints, slices and at most one Ellipsis that NumPy allows for `shape`."""
    items: list[Any] = []
    for length in shape:
        one = st.integers(-length, length - 1) if length else st.nothing()
        items.append(draw(slices(length) | one | one.map(np.int64)))
    low, high = sorted(draw(st.tuples(st.integers(0, len(shape)), st.integers(0, len(shape)))))
    match draw(st.sampled_from(["all", "ellipsis", "first", "bare"])):
        case "ellipsis":
            items[low:high] = [Ellipsis]
        case "first":
            del items[high:]
        case "bare":
            return items[0] if items else Ellipsis
    return tuple(items)
