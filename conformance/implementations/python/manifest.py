"""Tensors, chunks and the manifest that has them: SPEC.md sections 3 to 7."""

import hashlib
import itertools
import math
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
import xxhash

from .faults import Fault, need

if TYPE_CHECKING:
    from .reader import Storage

# ---- section 3: dtypes


class Dtype(NamedTuple):
    size: int  # bytes of a storage element
    per: int  # elements in it
    bits: int  # of an element


WIDTHS = {
    Dtype(1, 1, 8): "bool int8 uint8 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz"
    " float8_e5m2 float8_e5m2fnuz float8_e5m3fnu float8_e8m0fnu",
    Dtype(2, 1, 16): "int16 uint16 float16 bfloat16",
    Dtype(4, 1, 32): "int32 uint32 float32 complex32 bcomplex32",
    Dtype(8, 1, 64): "int64 uint64 float64 complex64",
    Dtype(16, 1, 128): "complex128",
    Dtype(1, 1, 6): "float6_e2m3fn float6_e3m2fn",
    Dtype(1, 2, 4): "float4_e2m1fn int4 uint4",
    Dtype(1, 4, 2): "int2 uint2",
    Dtype(1, 8, 1): "int1 uint1",
}
DTYPES = {name: dtype for dtype, names in WIDTHS.items() for name in names.split()}

# ---- sections 4 and 5: names and tensors

SEGMENT = r"(?!\.+(/|\Z))(?!zarr\.json(/|\Z))(?!__)[A-Za-z0-9_.~-]+"  # [NAME-006]
BLOSC, SHUFFLES = {"zstd", "lz4", "lz4hc", "blosclz", "zlib", "snappy"}, {"noshuffle", "shuffle", "bitshuffle"}
CODECS: dict[str, dict[str, Any]] = {  # [ZARR-006], as forms of section 7
    "zstd": {"checksum": bool, "level": int},
    "gzip": {"level": range(10)},
    "blosc": {"blocksize": int, "clevel": range(10), "cname": BLOSC, "shuffle": SHUFFLES, "typesize": int},
}


class Tensor(NamedTuple):
    number: int  # in the columns of the manifest
    name: str
    dtype: str
    shape: list[int]
    stored: list[int]  # its shape in storage elements [DTYPE-003]
    grid: list[int]  # that of a chunk
    counts: list[int]  # of chunks along each axis; an axis of length 0 has none [ZARR-003]
    codec: str | None
    root: str = "tensors"  # the hierarchy of its node; of a patch there are two, and tensors in none [PATCH-010]

    @property
    def chunk_size(self) -> int:  # bytes of a raw chunk [ZARR-007]
        return math.prod(self.grid) * DTYPES[self.dtype].size


def codec_of(chain: Any) -> str | None:
    """The codec of a chain after `bytes`, None if there is none."""
    items: list[Any] = chain if type(chain) is list and chain else [None]
    first, *rest = items
    good = first == {"name": "bytes", "configuration": {"endian": "little"}} and len(rest) <= 1
    for codec in rest:
        good = good and fits(codec, {"name": set(CODECS), "configuration": dict}) and len(codec) == 2
        form, found = (CODECS[codec["name"]], codec["configuration"]) if good else ({}, {})
        good = good and fits(found, form) and len(found) == len(form)
    need(good, f"codec chain {chain!r} [ZARR-006]", "unknown-codec")
    return rest[0]["name"] if rest else None


def is_name(name: str) -> bool:
    return len(name) <= 65_000 and re.fullmatch(f"{SEGMENT}(/{SEGMENT})*", name) is not None


def tensors_of(columns: dict[str, list[Any]], codecs: list[str | None]) -> list[Tensor]:
    tensors = []
    rows = [columns[key] for key in ("name", "dtype", "shape", "grid", "codec")]
    need(len(set(map(len, rows))) == 1, "columns of other lengths [MAN-007]")
    names = set(rows[0])
    need(len(names) == len(rows[0]) and ("" not in names or len(names) == 1), "a name is repeated [NAME-006]")
    for index, (name, dtype, shape, grid, codec) in enumerate(zip(*rows, strict=True)):
        need(name == "" or is_name(name), f"the name {name[:100]!r} [NAME-006]")
        above = itertools.accumulate(name.split("/")[:-1], "{}/{}".format)
        need(names.isdisjoint(above), f"{name!r} lies beneath another name [NAME-006]")
        need(dtype in DTYPES, f"dtype {dtype!r} [DTYPE-001]", "unknown-dtype")
        need(len(shape) <= 64, f"{name!r} has rank {len(shape)} [LIM-002]", "limit-exceeded")
        need(len(grid) == len(shape), f"{name!r} has rank {len(shape)} and a grid of rank {len(grid)} [MAN-008]")
        need(all(side < 1 << 63 for side in shape), f"{name!r} has a side of 2⁶³ or more [LIM-002]")
        need(codec < len(codecs), f"{name!r} has codec {codec} of {len(codecs)} [MAN-002]")
        stored = [*shape[:-1], *(-(-side // DTYPES[dtype].per) for side in shape[-1:])]
        fine = all(1 <= step <= max(1, side) for step, side in zip(grid, stored, strict=True))
        need(fine, f"{name!r} has the grid {grid} [ZARR-002]")
        size = max(math.prod(grid), math.prod(stored)) * DTYPES[dtype].size
        need(0 in shape or size < 1 << 62, f"{name!r} has 2⁶² bytes or more [LIM-004]")
        counts = [-(-side // step) for side, step in zip(stored, grid, strict=True)]
        tensors.append(Tensor(index, name, dtype, shape, stored, grid, counts, codecs[codec]))
    return tensors


# ---- section 6: blocks and digests

DIGEST_SIZES = {"xxh3-128": 16, "sha256": 32, "blake3": 32}  # [BLK-002]
DIGESTS = {"xxh3-128": xxhash.xxh3_128_digest, "sha256": lambda data: hashlib.sha256(data).digest()}


class Chunk(NamedTuple):
    """A chunk's place, from a checkpoint of that `digest` and `block` size."""

    storage: "Storage"
    tensor: Tensor
    number: int  # in C order of the grid
    object: str
    offset: int
    length: int
    digests: bytes  # of its blocks, one after another
    digest: str
    block: int

    def checked(self, number: int) -> bytes:
        """A block whose digest is right [BLK-001] [BLK-004]."""
        need(self.digest in DIGESTS, f"digest {self.digest!r}, which this reader lacks", "unknown-digest")
        begin, size = number * self.block, DIGEST_SIZES[self.digest]
        data = self.fetch(begin, min(begin + self.block, self.length))
        if DIGESTS[self.digest](data) != self.digests[number * size : (number + 1) * size]:
            message = f"block {number} of {self.object!r} has another digest"
            raise self.fault("block-digest", message, block=number, offset=self.offset + begin)
        return data

    def fetch(self, begin: int, end: int) -> bytes:
        """Stored bytes as they are."""
        try:
            data = self.storage.read(self.object, self.offset + begin, end - begin)
        except Fault as fault:
            raise self.fault(fault.code, str(fault)) from fault
        if len(data) != end - begin:
            raise self.fault("short-object", f"{self.object!r} ends before the chunk does [READ-005]")
        return data

    def decoded(self, data: bytes) -> bytes:
        """The raw chunk that all stored bytes decode to."""
        need(self.tensor.codec == "gzip", f"codec {self.tensor.codec!r}, which this reader lacks", "unknown-codec")
        stream, size = zlib.decompressobj(wbits=31), self.tensor.chunk_size
        try:
            data = stream.decompress(data, size + 1)  # and no more [ZARR-011]
        except zlib.error as error:
            raise self.fault("bad-chunk", str(error)) from error
        if not stream.eof or stream.unused_data or len(data) != size:
            raise self.fault("bad-chunk", f"not one gzip member of {size} bytes [ZARR-016]")
        return data

    def fault(self, code: str, message: str, **where: int) -> Fault:
        named: dict[str, int | str] = {"tensor": self.tensor.name, "chunk": self.number, "object": self.object}
        return Fault(code, f"tensor {self.tensor.name!r}, chunk {self.number}: {message}", **named, **where)


# ---- section 7: the manifest. A form is a type, UINT, ANY, a set or range of values, a tuple of alternatives, [form of
# every item] or {key: form}; further keys of maps are ignored [MAN-003]

UINT, ANY = range(1 << 64), object()
TABLE = {"tensor": None, "chunk": None, "offset": (bytes, None), "length": bytes, "digest": bytes}
HEAD = {"format": [UINT], "layout": str, "requires": [str]}
MANIFEST = {
    **{"generator": str, "digest": str, "block": UINT, "metadata": ANY, "tree": ANY, "codecs": [ANY]},
    "schema": (None, {"id": str, "version": str, "fingerprint": bytes}),
    "tensors": {"name": [str], "dtype": [str], "shape": [[UINT]], "grid": [[UINT]], "codec": [UINT]},
    "parts": [{"object": (str, None), "size": None, "frame": None, "chunks": TABLE}],
}
PAGED = {  # [PAGE-001]
    **MANIFEST,
    "tensors": {"first": [str], "count": bytes, "chunks": bytes},
    "parts": [()],
    "pages": {"offset": UINT, "length": bytes, "sha256": bytes},
    "plain_keys": bool,
}


def fits(value: Any, form: Any) -> bool:
    match form:
        case tuple():
            return any(fits(value, alternative) for alternative in form)
        case list():
            return type(value) is list and all(fits(item, form[0]) for item in value)
        case dict():
            return type(value) is dict and all(key in value and fits(value[key], form[key]) for key in form)
        case range() | set():
            return type(value) is (int if type(form) is range else str) and value in form
    return form is ANY or value is form or type(value) is form


def required(data: bytes) -> list[str]:
    """What a manifest requires, whatever rules its other keys break [MAN-006]."""
    try:
        found = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError):
        return []
    return list(found["requires"]) if fits(found, {"requires": [str]}) else []


def decode(data: bytes) -> dict[str, Any]:
    """One msgpack map with nothing after it [MAN-001]."""
    value = item(data)
    need(type(value) is dict, "not a map [MAN-001]")
    return dict(value)


def item(data: bytes) -> Any:
    """One msgpack item with nothing after it, no repeated key and no extension type anywhere [MAN-001]."""

    def items(values: list[Any]) -> list[Any]:
        need({msgpack.Timestamp, msgpack.ExtType}.isdisjoint(map(type, values)), "an extension type [MAN-001]")
        return values

    def pairs(entries: list[tuple[Any, Any]]) -> dict[str, Any]:
        items([value for _, value in entries])
        need(all(type(key) is str for key, _ in entries), "a map has a key that is no string [MAN-001]")
        need(len(dict(entries)) == len(entries), "a map repeats a key [MAN-001]")
        return dict(entries)

    try:
        return msgpack.unpackb(data, strict_map_key=False, object_pairs_hook=pairs, list_hook=items)
    except ValueError as error:  # also of strings that are no UTF-8
        raise Fault("bad-manifest", f"not one msgpack value: {error!r} [MAN-001]") from error


def chunks_of(storage: "Storage", manifest: dict[str, Any], tensors: list[Tensor]) -> list[list[Chunk]]:
    """The chunks of each tensor."""
    need(len(manifest["parts"]) == 1, "not one part [CHK-002]")
    part = manifest["parts"][0]
    need("path" not in part["chunks"], "a reference to a part manifest [CHK-009]")
    need(part["object"] == ("" if manifest["layout"] == "file" else None), "`object` does not fit the layout [MAN-002]")
    return chunks_in(part["chunks"], storage, manifest, tensors, storage.start)


def chunked(tensor: Tensor) -> bool:
    """Whether chunks of a tensor are stored."""
    return bool(tensor.root) and 0 not in tensor.counts


def chunks_in(
    table: dict[str, Any], storage: "Storage", manifest: dict[str, Any], tensors: list[Tensor], end: int
) -> list[list[Chunk]]:
    """The chunks of each tensor, from the one table that lists all of them in order [CHK-002]. Those of a file lie
    before byte `end`."""
    digest, block = manifest["digest"], manifest["block"]
    is_file, count = manifest["layout"] == "file", sum(math.prod(tensor.counts) for tensor in tensors if tensor.root)
    need((table["offset"] is not None) == is_file, "`offset` does not fit the layout [MAN-002]")
    columns = [table["length"], table["offset"] if is_file else bytes(len(table["length"]))]
    need(all(len(column) == 8 * count for column in columns), f"not {count} rows [CHK-001] [CHK-002]")
    lengths, offsets = (struct.unpack(f"<{count}Q", column) for column in columns)
    ends = [0, *itertools.accumulate(-(-length // block) * DIGEST_SIZES[digest] for length in lengths)]
    need(ends[-1] == len(table["digest"]), "not one digest for each block [CHK-001]")
    found, rows = [list[Chunk]() for _ in tensors], zip(offsets, lengths, itertools.pairwise(ends), strict=True)
    for own, tensor in ((own, tensor) for own, tensor in zip(found, tensors, strict=True) if chunked(tensor)):
        for number, at in enumerate(itertools.product(*map(range, tensor.counts))):
            offset, length, blocks = next(rows)
            inside = length and (not is_file or offset + length <= end)
            need(inside, f"a chunk of {tensor.name!r} lies outside its object [CHK-005]", "bad-extent")
            fine = tensor.codec or length == tensor.chunk_size
            need(fine, f"a raw chunk of {tensor.name!r} has {length} bytes [ZARR-007]", "bad-extent")
            key = "/".join([tensor.root, *filter(None, [tensor.name]), "c", *map(str, at)])  # [ZARR-003] [LAY-003]
            place = storage, tensor, number, "" if is_file else key, offset, length
            own.append(Chunk(*place, table["digest"][slice(*blocks)], digest, block))
    extents = sorted(zip(offsets, lengths, strict=True)) if is_file else []
    apart = all(offset + length <= after for (offset, length), (after, _) in itertools.pairwise(extents))
    need(apart, "two chunks overlap [CHK-005]", "bad-extent")
    return found
