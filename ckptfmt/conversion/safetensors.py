"""safetensors: one file, or several with `model.safetensors.index.json`. Read and written here, without the library.

    file    := u64 length of the header, header, data
    header  := a JSON object, padded with spaces: name -> {"dtype", "shape", "data_offsets": [begin, end]}, and
               "__metadata__" -> {str: str}
    data    := the tensors, little-endian in C order, one after another without holes

Read as strictly as the format is meant: no name twice, offsets without holes or overlaps up to the end of the file.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array, unpack
from ..format.tree import Tree
from . import shards
from .copying import write_tensors
from .fit import Holds, dtype_name
from .probe import Probe
from .source import Advance, LazyArray, Source, Tensor, array_over, mapped_file, nbytes

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes
METADATA = "__metadata__"
ALIGNMENT = 8  # of the data

NAMES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "BF16": "bfloat16",
    "C64": "complex64",
    **{
        f"{letter}{bits}": f"{kind}{bits}" for letter, kind in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
_WRITTEN = {name: code for code, name in NAMES.items() if code != "F4"}


def _is_strings(metadata: Tree) -> bool:
    """Whether metadata are a map of strings, or none."""
    if metadata is None:
        return True
    return type(metadata) is dict and all(type(text) is str for pair in metadata.items() for text in pair)


HOLDS = Holds(dtypes=frozenset(_WRITTEN), metadata=_is_strings)


def looks_like(probe: Probe) -> bool:
    if probe.is_directory:
        return shards.index_of(probe, INDEX) is not None
    length = int.from_bytes(probe.head[:8], "little")
    return probe.path.endswith(INDEX) or (probe.head[8:9] == b"{" and 2 <= length <= min(probe.size - 8, MAX_HEADER))


def read(path: str) -> Source:
    index = shards.index_of(Probe.of(path), INDEX)
    if index is not None:
        return shards.read(index, read)
    data = mapped_file(path)
    length = int.from_bytes(bytes(data[:8]), "little")
    if length > min(MAX_HEADER, data.size - 8):
        raise ValueError(f"the header would have {length:,} bytes; the file has {data.size:,}")
    raw = bytes(data[8 : 8 + length])
    if not raw.startswith(b"{"):
        raise ValueError("the header does not begin with {")
    header = json.loads(raw.decode("utf-8"), object_pairs_hook=_distinct)
    metadata = header.pop(METADATA, None)
    if metadata is not None and not _is_strings(metadata):
        raise ValueError(f"{METADATA} is not a map of strings")
    return Source(_tensors(header, data, 8 + length), metadata)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the header has a name twice")
    return found


def _tensors(header: dict[str, Any], data: Array, start: int) -> dict[str, Tensor]:
    """The tensors in the order of the header; where they lie is checked in the order of the file."""
    end = 0
    tensors: dict[str, Tensor] = {}
    for name, entry in sorted(header.items(), key=lambda item: tuple(item[1]["data_offsets"])):
        if entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name!r} is described by {sorted(entry)}")
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if any(type(n) is not int or n < 0 for n in (first, last, *shape)):
            raise ValueError(f"tensor {name!r} has lengths or offsets that are no counts")
        if first != end:
            raise ValueError(f"tensor {name!r} begins at {first}, where {end} is due: a hole or an overlap")
        tensors[name] = _tensor(name, entry["dtype"], shape, last - first, data, start + first)
        end = last
    if start + end != data.size:
        raise ValueError(f"the tensors end at byte {start + end:,}, the file at {data.size:,}")
    return {name: tensors[name] for name in header}


def _tensor(name: str, code: str, shape: tuple[int, ...], size: int, data: Array, at: int) -> Tensor:
    if code not in NAMES:
        raise fault("unsupported-source", f"tensor {name!r} has the dtype {code}", tensor=name)
    row = DTYPES[NAMES[code]]
    if 8 * size != prod(shape) * row.bits:
        raise ValueError(f"tensor {name!r} has {size} bytes, which is wrong for {code} of shape {list(shape)}")
    if row.per == 1:
        return array_over(data, at, row.numpy.newbyteorder("<"), shape)
    octets = array_over(data, at, np.dtype(np.uint8), (size,))
    return LazyArray(shape, row.numpy, lambda index: unpack(octets, row, prod(shape)).reshape(shape)[index], shape[0])


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write a flat dict of tensors. Those of wider elements come first, so that all are aligned."""
    header: dict[str, Any] = {} if metadata is None else {METADATA: metadata}
    order = sorted(tree, key=lambda name: (-tree[name].dtype.itemsize, name))
    end = 0
    for name in order:
        tensor = tree[name]
        code = _WRITTEN[dtype_name(tensor.dtype)]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [end, end + nbytes(tensor)]}
        end += nbytes(tensor)
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % ALIGNMENT)
    if len(raw) > MAX_HEADER:
        raise fault("limit-exceeded", f"the header would have {len(raw):,} bytes, more than safetensors allows")
    with open(path, "r+b") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        write_tensors(file, [tree[name] for name in order], advance)
