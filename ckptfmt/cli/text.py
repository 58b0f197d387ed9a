"""Keys, values and sizes as text for people.

Whatever comes from a checkpoint may be hostile: what is not printable (control characters, terminal escapes, characters
that turn the direction of text) is shown as an escape, as in a Python literal. With a `limit` text is cut there.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import numpy as np

from .. import OMITTED, Tensor
from ..errors import visible as visible
from ..format import names
from ..format.dtypes import Array
from ..format.names import Key, Path
from .tensors import Foreign, is_tensor

KEY = 100  # most characters shown of a key
BIG = 1 << 12  # bits from which an int is shown in hexadecimal, as decimal digits take quadratic time
CUT = "..."


def integer(value: int, limit: int | None = None) -> str:
    """An int in decimal, or in hexadecimal if it is huge."""
    text = str(value) if value.bit_length() < BIG else hex(value)
    return text if limit is None or len(text) <= limit else f"{text[:limit]}{CUT} ({value.bit_length():,} bits)"


def label(key: Key) -> str:
    """The label of a key, cut where it is long."""
    if isinstance(key, int):
        return integer(key, KEY)
    return names.label(key) if len(key) <= KEY else quoted(key, KEY)


def path_label(path: Path) -> str:
    """A path for people: labels joined with `/`."""
    return "/".join(map(label, path)) or "(root)"


def quoted(text: str | bytes, limit: int | None) -> str:
    """A str or bytes literal; when cut, it has no quote at its end."""
    if limit is None or len(text) <= limit:
        return repr(text)
    return f"{repr(text[:limit])[:limit]}{CUT} ({len(text):,} {'characters' if isinstance(text, str) else 'bytes'})"


def scalar(value: Any, limit: int | None = None) -> str:
    """A plain value that is no container, as a Python literal."""
    if value is OMITTED:
        return CUT
    if isinstance(value, np.str_ | np.bytes_):
        return f"{type(value).__name__}({quoted(value.item(), limit)})"
    if isinstance(value, np.generic):
        return f"{value.dtype.name}({printable(np.asarray(value))[()]!s})"
    if isinstance(value, str | bytes):
        return quoted(value, limit)
    if type(value) is int:
        return integer(value, limit)
    if value is None or isinstance(value, bool | float | complex):
        return repr(value)
    return visible(_other(value, limit))


def _other(value: Any, limit: int | None) -> str:
    """A value of another class as an expression, as far as it says one."""
    is_numpy = isinstance(value, np.random.Generator | np.random.RandomState)  # whose repr says where it lies
    text = str(value) if is_numpy else f"Random({CUT})" if isinstance(value, Random) else repr(value)
    return text if limit is None or len(text) <= limit else f"{text[:limit]}{CUT}"


def is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


def is_flat(value: Any) -> bool:
    """Whether a value is a list or tuple of scalars."""
    return isinstance(value, list | tuple) and not any(is_container(item) or is_tensor(item) for item in value)


def inline(value: Any, limit: int | None = None) -> str | None:
    """A plain value on one line, or None if it takes more than `limit` characters or has tensors in it."""
    if is_tensor(value):
        return None
    if not is_container(value):
        if limit is not None and isinstance(value, str | bytes) and len(value) > limit:
            return None
        text = scalar(value)
        return text if limit is None or len(text) <= limit else None
    if limit is not None and 3 * len(value) > limit:
        return None
    parts: list[str] = []
    room = limit
    for key, item in _entries(value):
        head = "" if key is None else f"{quoted(key, None) if isinstance(key, str) else integer(key)}: "
        text_or_none = inline(item, room)
        if text_or_none is None:
            return None
        parts.append(head + text_or_none)
        if room is not None:
            room -= len(parts[-1]) + 2
            if room < 0:
                return None
    return bracketed(value, ", ".join(parts))


def _entries(value: Any) -> Iterable[tuple[Key | None, Any]]:
    return value.items() if isinstance(value, dict) else ((None, item) for item in value)


def bracketed(container: Any, body: str) -> str:
    """The text of items in the brackets of their container."""
    if isinstance(container, list):
        return f"[{body}]"
    if isinstance(container, tuple):
        return f"({body},)" if len(container) == 1 else f"({body})"
    return f"{{{body}}}" if type(container) is dict else f"{type(container).__name__}({f'{{{body}}}' if body else ''})"


def first_items(values: list[Any] | tuple[Any, ...], limit: int) -> str:
    """The first items of a long list of scalars, and how many there are."""
    parts: list[str] = []
    for item in values:
        parts.append(scalar(item, limit // 2))
        if sum(map(len, parts)) + 2 * len(parts) > limit:
            break
    more = "" if len(parts) == len(values) else f", {CUT}"
    return f"{bracketed([], ', '.join(parts) + more)} ({count(len(values), 'item')})"


def count(number: int, noun: str) -> str:
    """ "1 tensor", "2,000 tensors"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def time(seconds: float | None) -> str:
    """A moment, in seconds since the epoch, in the time of here."""
    return "" if seconds is None else datetime.datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def metrics(values: Mapping[str, float]) -> str:
    return " ".join(f"{visible(name)}={value:.6g}" for name, value in values.items())


def size(number: int) -> str:
    """A number of bytes in binary units: "512 B", "147.2 MiB"."""
    if number < 1024:
        return f"{number} B"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = next((power for power in range(1, len(units)) if number < 1023.95 * 1024**power), len(units))
    return f"{number / 1024**power:,.1f} {units[power - 1]}"


def shape(tensor: Tensor | Foreign) -> str:
    return f"[{', '.join(map(str, tensor.shape))}]"


def dtype(tensor: Tensor | Foreign) -> str:
    """The logical dtype, or what NumPy reads it as: datetime64 and timedelta64 are stored as int64. Others are not
    looked at, as ml_dtypes takes long to import."""
    name = tensor.dtype_name
    return str(tensor.dtype) if name == "int64" and tensor.dtype.kind in "mM" else name


def printable(values: Array) -> Array:
    """An array that NumPy can print: `datetime64` without a unit, or of so many units that their number overflows, as
    the numbers that are stored. NumPy raises for them, or, before 2.5, prints another date."""
    if values.dtype.kind != "M":
        return values
    unit, count = np.datetime_data(values.dtype)
    most = -1 if unit == "generic" else np.iinfo(np.int64).max // count
    numbers = values.astype(np.int64)
    has_date = np.isnat(values) | ((numbers >= -most) & (numbers <= most))
    return values if has_date.all() else numbers
