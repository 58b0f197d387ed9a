"""The manifest but for its tree and chunk tables: sections 3 to 5, 7 and 14."""

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
from faults import Fault, need

DIGEST_SIZE = {"xxh3-128": 16, "sha256": 32, "blake3": 32}  # [BLK-002]


class Dtype(NamedTuple):
    """A row of section 3: bytes of a storage element, logical elements in it, meaningful bits of each."""

    size: int
    packed: int
    bits: int


_WIDTHS = {
    Dtype(1, 1, 8): "bool int8 uint8 float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz"
    " float8_e5m2 float8_e5m2fnuz float8_e8m0fnu",
    Dtype(2, 1, 16): "int16 uint16 float16 bfloat16",
    Dtype(4, 1, 32): "int32 uint32 float32 complex32 bcomplex32",
    Dtype(8, 1, 64): "int64 uint64 float64 complex64",
    Dtype(16, 1, 128): "complex128",
    Dtype(1, 1, 6): "float6_e2m3fn float6_e3m2fn",
    Dtype(1, 2, 4): "float4_e2m1fn int4 uint4",
    Dtype(1, 4, 2): "int2 uint2",
    Dtype(1, 8, 1): "int1 uint1",
}
DTYPES = {name: dtype for dtype, names in _WIDTHS.items() for name in names.split()}


def dtype_of(name: str) -> Dtype:
    if name not in DTYPES:
        raise Fault("unknown-dtype", f"dtype {name!r} [DTYPE-001]")
    return DTYPES[name]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the columns of `tensors`. A 0-d tensor is treated as one of shape [1], but for its chunk's key."""

    index: int
    name: str
    dtype: str
    shape: list[int]
    grid: list[int]  # chunk shape, in storage elements
    chain: list[dict[str, Any]]

    @property
    def storage_shape(self) -> list[int]:
        """[DTYPE-003]"""
        return [*self.shape[:-1], -(-self.shape[-1] // DTYPES[self.dtype].packed)] if self.shape else []

    @property
    def chunk_counts(self) -> list[int]:
        """Chunks along each axis; an axis of length 0 has none [ZARR-003]."""
        return [-(-side // step) for side, step in zip(self.storage_shape, self.grid, strict=True)]

    @property
    def chunk_size(self) -> int:
        """Bytes of a chunk before compression [ZARR-007]."""
        return math.prod(self.grid) * DTYPES[self.dtype].size

    def chunk_key(self, at: tuple[int, ...]) -> str:
        """[ZARR-003]"""
        return "/".join(["c", *map(str, at)])


# ---- the form of the tables of section 7: a type, UINT, ANY, a set of alternatives, [item], or {key: form}

UINT, ANY = object(), object()
TABLE = {
    "tensor": (bytes, None),
    "chunk": (bytes, None),
    "offset": (bytes, None),
    "length": bytes,
    "digest": bytes,
}
REFERENCE = {"path": str, "length": UINT, "sha256": bytes}
PLACEMENT = {"tensor": bytes, "chunk": bytes, "count": bytes, "part": bytes, "step": bytes}
HEAD = {"format": [UINT], "layout": str, "requires": [str]}
MANIFEST = {
    **HEAD,
    "generator": str,
    "digest": str,
    "block": UINT,
    "schema": (None, {"id": str, "version": str, "fingerprint": bytes}),
    "metadata": ANY,
    "tree": ANY,
    "codecs": [ANY],
    "tensors": {"name": [str], "dtype": [str], "shape": [[UINT]], "grid": [[UINT]], "codec": [UINT]},
    "parts": [{"object": (str, None), "size": (UINT, None), "frame": (bytes, None), "chunks": (REFERENCE, TABLE)}],
}


def fits(value: Any, form: Any) -> bool:
    """Whether a decoded value has a form; further keys of maps are ignored [MAN-003]."""
    if form is ANY or form is None:
        return form is ANY or value is None
    if form is UINT:
        return type(value) is int and value >= 0
    if isinstance(form, tuple):
        return any(fits(value, alternative) for alternative in form)
    if isinstance(form, list):
        return type(value) is list and all(fits(item, form[0]) for item in value)
    if isinstance(form, dict):
        return type(value) is dict and all(key in value and fits(value[key], form[key]) for key in form)
    return type(value) is form


def decode(data: bytes) -> dict[str, Any]:
    """One msgpack map with nothing after it, no repeated key and no extension type anywhere [MAN-001]."""

    def items(values: list[Any]) -> list[Any]:
        need(not any(type(value) is msgpack.Timestamp for value in values), "MAN-001", "an extension type")
        return values

    def pairs(entries: list[tuple[Any, Any]]) -> dict[str, Any]:
        items([value for _, value in entries])
        need(all(type(key) is str for key, _ in entries), "MAN-001", "a map has a key that is no string")
        need(len({key for key, _ in entries}) == len(entries), "MAN-001", "a map repeats a key")
        return dict(entries)

    def extension(code: int, _: bytes) -> None:
        need(False, "MAN-001", f"extension type {code}")

    try:
        value = msgpack.unpackb(
            data, strict_map_key=False, object_pairs_hook=pairs, list_hook=items, ext_hook=extension
        )
    except ValueError as error:
        raise Fault("bad-manifest", f"not one msgpack map with valid strings: {error!r} [MAN-001]") from error
    need(type(value) is dict, "MAN-001", "not a map")
    return dict(value)


# ---- what stands in it


def check_head(manifest: dict[str, Any], version: list[int], layout: str) -> None:
    """What a reader looks at before anything else [MAN-006]."""
    need(fits(manifest, HEAD), "MAN-002", "format, layout or requires are missing or of another type")
    need(manifest["format"] == version, "MAN-005", f"format {manifest['format']}, but {version} in the commit record")
    need(manifest["layout"] == layout, "LAY-006", f"layout {manifest['layout']!r}, but {layout!r} in the commit record")
    for feature in manifest["requires"]:
        need(False, "MAN-006", f"it requires {feature!r}, which this reader does not know", "unknown-feature")


def check_body(manifest: dict[str, Any], frame: bytes) -> None:
    """Forms of all items, and digest and block size."""
    for key, form in MANIFEST.items():
        need(key in manifest and fits(manifest[key], form), "MAN-002", f"`{key}` is missing or of another type")
    packed = manifest["layout"] == "packed"
    right = fits(manifest.get("placement"), PLACEMENT) if packed else "placement" not in manifest
    need(right, "MAN-002", "`placement` is in layout `packed` only, and there a map of five columns")
    need(manifest["digest"] in DIGEST_SIZE, "BLK-002", f"digest {manifest['digest']!r}", "unknown-digest")
    right = len(frame) == DIGEST_SIZE[manifest["digest"]]
    need(right, "COM-001", f"a frame digest of {len(frame)} bytes for {manifest['digest']}")
    right = 4096 <= manifest["block"] <= 1 << 30 and manifest["block"] % 4096 == 0
    need(right, "BLK-003", f"block {manifest['block']}")


CODECS: dict[str, dict[str, Any]] = {  # the configuration keys of each, with the values or the type allowed
    "bytes": {"endian": ["little"]},
    "zstd": {"checksum": bool, "level": int},
    "gzip": {"level": range(10)},
    "blosc": {
        "blocksize": int,
        "clevel": range(10),
        "cname": ["zstd", "lz4", "lz4hc", "blosclz", "zlib", "snappy"],
        "shuffle": ["noshuffle", "shuffle", "bitshuffle"],
        "typesize": int,
    },
}


def is_codec(codec: Any) -> bool:
    if not fits(codec, {"name": str, "configuration": dict}) or len(codec) != 2 or codec["name"] not in CODECS:
        return False
    found, allowed = codec["configuration"], CODECS[codec["name"]]
    return found.keys() == allowed.keys() and all(
        type(found[key]) is values
        if isinstance(values, type)
        else type(found[key]) is type(values[0]) and found[key] in values
        for key, values in allowed.items()
    )


def check_chain(chain: Any) -> list[dict[str, Any]]:
    good = type(chain) is list and 1 <= len(chain) <= 2 and all(map(is_codec, chain))
    good = good and [codec["name"] == "bytes" for codec in chain] == [True, False][: len(chain)]
    need(good, "ZARR-006", f"codec chain {chain!r}", "unknown-codec")
    return list(chain)


def tensors_of(manifest: dict[str, Any]) -> list[Tensor]:
    chains = [check_chain(chain) for chain in manifest["codecs"]]
    columns = [manifest["tensors"][key] for key in ("name", "dtype", "shape", "grid", "codec")]
    need(len({len(column) for column in columns}) == 1, "MAN-007", "the columns of `tensors` differ in length")
    check_names(columns[0])
    tensors = []
    for index, (name, dtype, shape, grid, codec) in enumerate(zip(*columns, strict=True)):
        dtype_of(dtype)
        need(len(shape) <= 64, "LIM-002", f"{name!r} has rank {len(shape)}", "limit-exceeded")
        need(all(side < 1 << 63 for side in shape), "LIM-002", f"{name!r} has a side of 2⁶³ or more")
        need(len(grid) == len(shape), "MAN-008", f"{name!r} has rank {len(shape)} and a grid of rank {len(grid)}")
        need(codec < len(chains), "MAN-002", f"{name!r} has codec {codec} of {len(chains)}")
        tensor = Tensor(index, name, dtype, shape, grid, chains[codec])
        sides = zip(grid, tensor.storage_shape, strict=True)
        need(all(1 <= step <= max(1, side) for step, side in sides), "ZARR-002", f"{name!r} has the grid {grid}")
        size = max(tensor.chunk_size, math.prod(tensor.storage_shape) * DTYPES[dtype].size)
        need(0 in shape or size < 1 << 62, "LIM-004", f"{name!r} has 2⁶² bytes or more")
        tensors.append(tensor)
    return tensors


def check_names(names: list[str]) -> None:
    """[NAME-006]"""
    whole = set(names)
    need(len(whole) == len(names), "NAME-006", "two tensors have one name")
    need("" not in whole or len(names) == 1, "NAME-006", "the empty name is not the only one")
    for name in names:
        need(name == "" or is_path(name), "NAME-006", f"the name {name[:100]!r}")
        slashes = (match.start() for match in re.finditer("/", name))
        need(not any(name[:at] in whole for at in slashes), "NAME-006", f"{name!r} lies beneath another name")


def is_path(name: str) -> bool:
    """Whether a name is made of segments as NAME-006 wants them."""
    segment = r"(?!\.+(/|\Z))(?!zarr\.json(/|\Z))(?!__)[A-Za-z0-9_.~-]+"
    return len(name) <= 65_000 and re.fullmatch(f"{segment}(/{segment})*", name) is not None


def check_schema(schema: dict[str, Any] | None, tensors: list[Tensor]) -> None:
    if schema is not None:
        need(schema["id"] and schema["version"], "SCH-001", "schema id or version is empty")
        rows = sorted([tensor.name, tensor.dtype, tensor.shape] for tensor in tensors)  # names are ASCII and distinct
        right = hashlib.sha256(msgpack.packb(rows)).digest() == schema["fingerprint"]
        need(right, "SCH-002", "the schema's fingerprint is another")
