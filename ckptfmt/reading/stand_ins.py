"""Dtypes that stand in for those which a framework lacks, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import UnknownTagWarning
from ..format.dtypes import DType
from ..format.names import Path, path_label
from ..warning import warn

SHOWN = 8  # most places that are named

# what may stand in for a dtype that a framework lacks, with the bits of the values that it keeps, narrowest first
_STAND_INS = {
    "bool": (("uint8", 8),),
    "complex": (("complex64", 64), ("complex128", 128)),
    "uint": (
        ("uint8", 8),
        ("int16", 15),
        ("uint16", 16),
        ("int32", 31),
        ("uint32", 32),
        ("int64", 63),
        ("uint64", 64),
    ),
    "int": (("int8", 8), ("int16", 16), ("int32", 32), ("int64", 64)),
    "float": (("float32", 32), ("float64", 64)),
}


def stand_in(dtype: DType, supports: Callable[[str], bool]) -> np.dtype[Any]:
    """The dtype for a cast from one that a framework lacks: the narrowest of its kind that loses nothing, else the
    widest."""
    kind = next(kind for kind in _STAND_INS if kind in dtype.name)
    names = [(name, bits) for name, bits in _STAND_INS[kind] if supports(name)]
    return np.dtype(next((name for name, bits in names if bits >= dtype.bits), names[-1][0]))


def warn_of_times(places: Mapping[Path, str]) -> None:
    """Say once where times of NumPy came as the numbers that they are made of, as the framework has none."""
    if not places:
        return
    names = ", ".join(path_label(path) or "the root" for path in list(places)[:SHOWN])
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    text = f"{next(iter(places.values()))} has no datetime64 and timedelta64: read as int64: {names}{more}"
    warn(f"{text}. A load as NumPy keeps them; select= leaves them out [TAG-001]", UnknownTagWarning)
