"""Statistics as a manifest has them (SPEC.md section 7.3): columns of figures, which a writer claims. Pure.

`of` binds them to what they are of, so that a program that does not know them, and keeps them with other tensors, does
no harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import ArraySpec
from .digests import sha256
from .dtypes import Array, DType
from .manifest import Manifest, Part, PartReference, fingerprint
from .summary import Summary

COUNTS = ("nan", "positive_inf", "negative_inf", "zeros", "subnormals", "saturated")
REALS = ("mean", "std")
EXACT = ("min", "max")


def binding(names: Sequence[str], specs: Sequence[ArraySpec], proofs: Iterable[bytes]) -> bytes:
    """What statistics say that they are of: names, dtypes and shapes, and the digests of all bytes. [STAT-002]"""
    return sha256(b"".join([fingerprint(names, specs), *proofs]))


def proofs_of(parts: Iterable[Part]) -> list[bytes]:
    """The digests of the blocks of each part, or that of its part manifest."""
    chunks = [part.chunks for part in parts]
    return [one.sha256 if isinstance(one, PartReference) else one.digest for one in chunks]


def binding_of(manifest: Manifest) -> bytes:
    """That of a manifest without pages."""
    return binding(manifest.names, manifest.specs, proofs_of(manifest.parts))


# ---- written


def encode_statistics(found: Sequence[Summary | None], specs: Sequence[ArraySpec], of: bytes) -> dict[str, Any]:
    """The map of the columns, of those tensors that have a summary. [STAT-001] [STAT-003]"""
    there = [number for number, one in enumerate(found) if one is not None]
    rows = [one for one in found if one is not None]
    counts = {name: _count_column([getattr(one, name) for one in rows]) for name in COUNTS}
    dtypes = [specs[number].dtype for number in there]
    least = [_eight(dtype, one.least) for dtype, one in zip(dtypes, rows, strict=True)]
    greatest = [_eight(dtype, one.greatest) for dtype, one in zip(dtypes, rows, strict=True)]
    means = [float(one.mean) if one.finite else math.nan for one in rows]
    stds = [one.std if one.finite else math.nan for one in rows]
    return {
        "of": of,
        "tensor": None if len(rows) == len(found) else np.array(there, "<u4").tobytes(),
        **counts,
        "bits": bytes(one.bits for one in rows),
        "min": b"".join(least),
        "max": b"".join(greatest),
        "mean": np.array(means, "<f8").tobytes(),
        "std": np.array(stds, "<f8").tobytes(),
    }


def _count_column(counts: list[int]) -> bytes | None:
    return np.array(counts, "<u8").tobytes() if any(counts) else None


def _kind(dtype: DType) -> np.dtype[Any]:
    """How the least and the greatest element of a dtype stand there: in eight bytes, exactly."""
    if dtype.range is None or dtype.range.exponent:
        return np.dtype("<f8")
    return np.dtype("<i8" if dtype.range.least < 0 else "<u8")


def _eight(dtype: DType, value: float | int | None) -> bytes:
    kind = _kind(dtype)
    if value is None:
        value = math.nan if kind.kind == "f" else 0
    return np.array(value, kind).tobytes()


# ---- read


def decode_statistics(document: Any, specs: Sequence[ArraySpec], of: bytes) -> list[Summary | None] | None:
    """What they say of each tensor; None where they are of others, or break a rule: then there are none. [STAT-004]"""
    try:
        return _decoded(document, specs, of)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _decoded(document: Any, specs: Sequence[ArraySpec], of: bytes) -> list[Summary | None] | None:
    if not isinstance(document, Mapping) or document["of"] != of:
        return None
    numbers = range(len(specs)) if document["tensor"] is None else _numbers(document["tensor"], len(specs))
    count = len(numbers)
    counts = [_column(document[name], "<u8", count, or_nil=True).tolist() for name in COUNTS]
    bits = _column(document["bits"], "u1", count).tolist()
    reals = [_column(document[name], "<f8", count).tolist() for name in REALS]
    ends = [_column(document[name], "V8", count) for name in EXACT]
    found: list[Summary | None] = [None] * len(specs)
    for row, number in enumerate(numbers):
        spec = specs[number]
        least, greatest = (end[row : row + 1].view(_kind(spec.dtype))[0].item() for end in ends)
        figures = (bits[row], least, greatest, *(real[row] for real in reals))
        found[number] = _checked(spec, [column[row] for column in counts], *figures)
    return found


def _numbers(raw: Any, tensors: int) -> list[int]:
    numbers: list[int] = np.frombuffer(_bytes(raw), "<u4").tolist()
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= tensors):
        raise ValueError("tensors out of order, or that are not there")
    return numbers


def _bytes(raw: Any) -> bytes:
    if not isinstance(raw, bytes):
        raise TypeError("a column of another type")
    return raw


def _column(raw: Any, dtype: str, count: int, *, or_nil: bool = False) -> Array:
    if raw is None and or_nil:
        return np.zeros(count, dtype)
    found = np.frombuffer(_bytes(raw), dtype)
    if len(found) != count:
        raise ValueError("a column of another length")
    return found


def _checked(
    spec: ArraySpec, counts: list[int], bits: int, least: Any, greatest: Any, mean: float, std: float
) -> Summary:
    """A row that can be of a tensor of that dtype and shape; raises ValueError. [STAT-004]"""
    elements = math.prod(spec.shape)
    nan, positive, negative, zeros, subnormals, saturated = counts
    finite = elements - nan - positive - negative
    is_float = _kind(spec.dtype).kind == "f"
    is_odd = nan or positive or negative or subnormals or saturated
    if finite < 0 or zeros + subnormals > finite or saturated > finite or bits > 64 or (is_odd and not is_float):
        raise ValueError("more than there are elements")
    if not finite:
        if not all(map(math.isnan, (mean, std))) or (math.isnan(least) and math.isnan(greatest)) is not is_float:
            raise ValueError("a figure of no elements")
        return Summary(elements, *counts)
    if not (math.isfinite(mean) and math.isfinite(std) and std >= 0 and math.isfinite(least) and least <= greatest):
        raise ValueError("a figure that no elements have")
    if not math.isfinite(greatest) or not _is_between(mean, least, greatest):
        raise ValueError("a mean beyond the elements")
    return Summary._make((elements, *counts, bits, least, greatest, mean, std))


def _is_between(mean: float, least: Any, greatest: Any) -> bool:
    slack = max(abs(float(least)), abs(float(greatest))) * 1e-9
    return float(least) - slack <= mean <= float(greatest) + slack
