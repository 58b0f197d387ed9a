"""Plain Zarr groups and arrays of format 2 and 3, in a directory, read through zarr-python.

There is nothing to write: `tensors/` of a checkpoint in layout `loose` is such a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import fault
from ..format.names import Path, path_label, path_text
from ..format.tree import MAX_DEPTH, Tree
from ..storage import COMMIT
from .probe import Probe
from .source import LazyArray, Source, parsing

ATTRIBUTES = "zarr.attributes"  # metadata: attributes by path text


CODECS = {"bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes"}
CODECS |= {"blosc", "bz2", "gzip", "lz4", "lzma", "pcodec", "zfpy", "zlib", "zstd"}
CODECS |= {"adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"}
CODECS |= {"astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle"}


def looks_like(probe: Probe) -> bool:
    return bool(probe.entries & {"zarr.json", ".zgroup", ".zarray"}) and COMMIT not in probe.entries


def read(path: str) -> Source:
    import zarr

    attributes: dict[str, Tree] = {}
    with parsing(path):
        tree = _tree(zarr.open(path, mode="r"), (), attributes, path)
    return Source(tree, {ATTRIBUTES: attributes} if attributes else None)


def _tree(node: Any, path: Path, attributes: dict[str, Tree], file: str) -> Any:
    import zarr

    if len(path) > MAX_DEPTH:
        raise fault("too-deep", f"groups nested deeper than {MAX_DEPTH}")
    if len(node.attrs):
        attributes[path_text(path)] = node.attrs.asdict()
    if isinstance(node, zarr.Group):
        return {name: _tree(item, (*path, name), attributes, file) for name, item in sorted(node.members())}
    where = path_label(path)
    for codec in _codecs({**node.metadata.to_dict(), "attributes": None}):
        if codec.removeprefix("numcodecs.") not in CODECS:  # among the others is pickle, which runs code
            raise fault("unsafe-source", f"{where!r} has the codec {codec!r}", tensor=where)

    def part(index: tuple[slice, ...]) -> Any:
        with parsing(file):
            return np.asarray(node[index if node.shape else ()])

    return LazyArray(node.shape, node.dtype, part, node.chunks[0] if node.chunks else 1)


def _codecs(document: Any) -> Iterator[str]:
    """The names of all codecs in the metadata of an array, of shards and their indices too."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("codecs", "index_codecs", "filters", "compressor"):
                for codec in value if isinstance(value, list | tuple) else (value,):
                    if codec is not None:
                        yield str(codec.get("id", codec.get("name")))
            yield from _codecs(value)
    elif isinstance(document, list | tuple):
        for item in document:
            yield from _codecs(item)
