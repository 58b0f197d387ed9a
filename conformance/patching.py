"""Patches, from SPEC.md section 7.4 alone: a checkpoint whose tree describes the result, stored beside a base."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .model import Tensor

if TYPE_CHECKING:
    from .build import Checkpoint

WHOLE, SAME, XOR = range(3)
NO_SOURCE = 0xFFFFFFFF
Encode = Callable[[bytes], bytes]


class Made(NamedTuple):
    """How a tensor of a patch is made: its form, the name of its source, and the codec and grid of what is stored."""

    form: int
    source: str = ""
    chain: dict[str, Any] | None = None
    encode: Encode | None = None
    grid: tuple[int, ...] | None = None


class Patching(NamedTuple):
    """The base, how tensors are made, by name (whole, if a name is not there), and what else is said."""

    base: Checkpoint
    made: dict[str, Made]
    result: bytes | None = None
    generator: str = "of the result"


def flipped(source: Tensor, at: Iterable[int] = (0,)) -> Tensor:
    """The same tensor, with one bit of some bytes changed."""
    data = bytearray(source.data)
    for place in at:
        data[place] ^= 1
    return replace(source, data=bytes(data), grid=None, chain=None, stored=None)


def manifest_sha256(checkpoint: Checkpoint) -> bytes:
    """What a patch names its base by, in layout `file`."""
    pieces = checkpoint.build()[""]
    line = b"".join(piece for piece in pieces if isinstance(piece, bytes))[-255:]
    return bytes.fromhex(re.findall(rb"sha256=([0-9a-f]{64})", line)[-1].decode())


def stored(tensor: Tensor, made: Made, base: dict[str, Tensor]) -> Tensor:
    """What a patch has of a tensor of the result."""
    if made.form == WHOLE:
        return tensor
    if made.form == SAME:
        return replace(tensor, grid=None, chain=None, stored=None)
    pairs = zip(tensor.data, base[made.source].data, strict=True)
    found = replace(tensor, data=bytes(a ^ b for a, b in pairs), grid=made.grid, chain=made.chain, stored=None)
    if made.encode is None:
        return found
    return replace(found, stored={at: made.encode(found.raw_chunk(at)) for at in found.chunk_keys()})


def columns(names: list[str], patching: Patching, sources: list[str]) -> dict[str, Any]:
    """The key `patch`."""
    made = [patching.made.get(name, Made(WHOLE)) for name in names]
    numbers = [NO_SOURCE if one.form == WHOLE else sources.index(one.source) for one in made]
    return {
        "base": manifest_sha256(patching.base),
        "result": patching.result,
        "generator": patching.generator,
        "form": bytes(one.form for one in made),
        "source": struct.pack(f"<{len(numbers)}I", *numbers),
    }


def as_bits(text: bytes, tensor: Tensor) -> bytes:
    """A node document of an array as that of its differences. [PATCH-010]"""
    document = json.loads(text)
    if tensor.row.size <= 8:
        document["data_type"], document["fill_value"] = f"uint{8 * tensor.row.size}", 0
    document["attributes"] = {"ckptfmt": {"dtype": tensor.dtype, "shape": list(tensor.shape)}}
    return json.dumps(document, separators=(",", ":")).encode()
