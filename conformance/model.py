"""What a case describes: trees, tensors and dtypes, as nodes of a manifest and as values of the protocol.

Written from SPEC.md sections 2 to 4, apart from the package `ckptfmt`, so that neither can hide a fault of the other.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Shape = tuple[int, ...]
Value = dict[str, Any]  # of the protocol
HEX_LIMIT = 1024  # bytes of a tensor that are given as hex


class DType(NamedTuple):
    """A row of the dtype table: bits that mean something, storage type, its size in bytes, elements in one, and the
    version of the format that brought it."""

    bits: int
    storage: str
    size: int
    per: int = 1
    since: tuple[int, int] = (1, 0)


DTYPES: dict[str, DType] = {
    "bool": DType(8, "bool", 1),
    **{
        f"{kind}{bits}": DType(bits, f"{kind}{bits}", bits // 8) for kind in ("int", "uint") for bits in (8, 16, 32, 64)
    },
    **{f"float{bits}": DType(bits, f"float{bits}", bits // 8) for bits in (16, 32, 64)},
    **{f"complex{bits}": DType(bits, f"complex{bits}", bits // 8) for bits in (64, 128)},
    "bfloat16": DType(16, "uint16", 2),
    "complex32": DType(32, "uint32", 4),
    "bcomplex32": DType(32, "uint32", 4),
    **{
        f"float8_{kind}": DType(8, "uint8", 1)
        for kind in ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
    },
    "float6_e2m3fn": DType(6, "uint8", 1),
    "float6_e3m2fn": DType(6, "uint8", 1),
    "float4_e2m1fn": DType(4, "uint8", 1, 2),
    "int4": DType(4, "uint8", 1, 2),
    "uint4": DType(4, "uint8", 1, 2),
    "int2": DType(2, "uint8", 1, 4),
    "uint2": DType(2, "uint8", 1, 4),
    "int1": DType(1, "uint8", 1, 8),
    "uint1": DType(1, "uint8", 1, 8),
    "float8_e5m3fnu": DType(8, "uint8", 1, since=(1, 2)),
}
FIRST = {name: row for name, row in DTYPES.items() if row.since == (1, 0)}  # of cases that do not change


def storage_shape(dtype: DType, shape: Shape) -> Shape:
    """[DTYPE-003]"""
    return shape if dtype.per == 1 or not shape else (*shape[:-1], -(-shape[-1] // dtype.per))


def meaning(name: str, shape: Shape, data: bytes) -> bytes:
    """Stored elements with every bit that means nothing set to 0. [DTYPE-004]"""
    dtype = DTYPES[name]
    if dtype.per == 1:
        return bytes(byte & 0x3F for byte in data) if dtype.bits == 6 else data
    row = storage_shape(dtype, shape)[-1] if shape else 1
    used = (shape[-1] - 1) % dtype.per + 1 if shape and shape[-1] else 1
    mask = (1 << used * dtype.bits) - 1
    out = bytearray(data)
    for at in range(row - 1, len(out), max(1, row)) if out else ():
        out[at] &= mask
    return bytes(out)


def pattern(size: int, seed: str = "") -> bytes:
    """Bytes that look random and are always the same."""
    return b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() for i in range(size // 32 + 1))[:size]


# ---- trees


@dataclass(eq=False, slots=True)
class Tensor:
    """A tensor: `data` holds its storage elements in C order. `grid` is the chunk shape (default: one chunk); `chain`
    the codec after `bytes`, as in a node document; `stored` the bytes of each compressed chunk by its position;
    `padding` fills what lies outside the array."""

    dtype: str
    shape: Shape
    data: bytes
    grid: Shape | None = None
    chain: dict[str, Any] | None = None
    stored: dict[Shape, bytes] | None = None
    padding: int = 0

    @property
    def row(self) -> DType:
        return DTYPES[self.dtype]

    @property
    def storage_shape(self) -> Shape:
        return storage_shape(self.row, self.shape)

    @property
    def chunk_shape(self) -> Shape:
        return tuple(max(1, n) for n in self.storage_shape) if self.grid is None else self.grid

    def chunk_keys(self) -> list[Shape]:
        """Positions in the grid, in C order. [ZARR-003]"""
        if 0 in self.shape:
            return []
        counts = [-(-n // side) for n, side in zip(self.storage_shape, self.chunk_shape, strict=True)]
        return list(_positions(counts))

    def chunk(self, position: Shape) -> bytes:
        """The stored bytes of a chunk. [ZARR-004]"""
        return self.raw_chunk(position) if self.stored is None else self.stored[position]

    def raw_chunk(self, position: Shape) -> bytes:
        """The bytes of a chunk before compression."""
        grid, shape, size = self.chunk_shape, self.storage_shape, self.row.size
        if grid == shape or not shape:
            return self.data
        rows = []
        for cell in _positions(grid[:-1]):
            index = [p * side + i for p, side, i in zip(position[:-1], grid[:-1], cell, strict=True)]
            first = position[-1] * grid[-1]
            width = max(0, min(grid[-1], shape[-1] - first))
            row = b""
            if all(i < n for i, n in zip(index, shape[:-1], strict=True)):
                start = 0
                for i, n in zip([*index, first], shape, strict=True):
                    start = start * n + i
                row = self.data[start * size : (start + width) * size]
            rows.append(row + bytes([self.padding]) * (grid[-1] * size - len(row)))
        return b"".join(rows)

    def value(self, index: int | None) -> Value:
        data = meaning(self.dtype, self.shape, self.data)
        found: Value = {"type": "tensor", "dtype": self.dtype, "shape": list(self.shape), **bytes_form(data)}
        return found if index is None else {**found, "index": index}


def bytes_form(data: bytes) -> dict[str, str]:
    return {"hex": data.hex()} if len(data) <= HEX_LIMIT else {"sha256": hashlib.sha256(data).hexdigest()}


def _positions(counts: Any) -> Iterator[Shape]:
    if not counts:
        yield ()
        return
    for i in range(counts[0]):
        for rest in _positions(counts[1:]):
            yield (i, *rest)


def tensor(dtype: str, shape: Shape, seed: str = "", **options: Any) -> Tensor:
    """A tensor of a fixed pattern."""
    row = DTYPES[dtype]
    data = pattern(math.prod(storage_shape(row, shape)) * row.size, f"{dtype}{seed}")
    if dtype == "bool":
        data = bytes(byte & 1 for byte in data)
    return Tensor(dtype, shape, meaning(dtype, shape, data), **options)


class Scalar(NamedTuple):
    dtype: str
    data: bytes


class Tag(NamedTuple):
    name: str
    param: Any
    child: Any


class Form(NamedTuple):
    """A node written out by hand, and the value that it stands for."""

    node: Any
    tree: Any


def earliest(value: Any) -> tuple[int, int]:
    """The version that has the dtypes of all tensors and scalars in a tree, in a node that is written out, or in a
    value of the protocol."""
    match value:
        case Tensor(dtype) | Scalar(dtype):
            return DTYPES[dtype].since
        case ["scalar", str(dtype), bytes()] if dtype in DTYPES:
            return DTYPES[dtype].since
        case {"type": "tensor" | "scalar", "dtype": str(dtype)} if dtype in DTYPES:
            return DTYPES[dtype].since
        case dict():
            return max(map(earliest, value.values()), default=(1, 0))
        case list() | tuple():  # tags and forms, too
            return max(map(earliest, value), default=(1, 0))
    return (1, 0)


@dataclass
class Encoder:
    """Turns a tree into a node and a protocol value; `tensors` are numbered in the order of a depth-first walk
    [TREE-016], or as given."""

    tensors: list[Tensor] = field(default_factory=list)
    paths: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    known: dict[Tensor, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known |= {tensor: index for index, tensor in enumerate(self.tensors)}

    def index(self, leaf: Tensor, path: tuple[Any, ...]) -> int:
        at = self.known.setdefault(leaf, len(self.tensors))
        if at == len(self.tensors):
            self.tensors.append(leaf)
        self.paths.setdefault(at, path)
        return at

    def encode(self, tree: Any, path: tuple[Any, ...] = ()) -> tuple[Any, Value]:
        """(node, value) of a tree."""
        match tree:
            case Form(node, meant):
                return node, self.encode(meant, path)[1]
            case Tensor():
                at = self.index(tree, path)
                return ["tensor", at], tree.value(at)
            case Tag(name, param, child):
                (param_node, param_value), (node, value) = Encoder().encode(param), self.encode(child, path)
                return ["tag", name, param_node, node], {
                    "type": "tag",
                    "name": name,
                    "param": param_value,
                    "child": value,
                }
            case Scalar(dtype, data):
                shown = meaning(dtype, (), data).hex()
                return ["scalar", dtype, data], {"type": "scalar", "dtype": dtype, "hex": shown}
            case dict():
                items = [self.encode(item, (*path, key)) for key, item in tree.items()]
                keys = [key.node if isinstance(key, FormKey) else integer(key) for key in tree]
                pairs = [[key_value(key), value] for key, (_, value) in zip(tree, items, strict=True)]
                return ["dict", keys, [node for node, _ in items]], {"type": "dict", "items": pairs}
            case list() | tuple():
                items = [self.encode(item, (*path, i)) for i, item in enumerate(tree)]
                kind = type(tree).__name__
                return [kind, [node for node, _ in items]], {"type": kind, "items": [value for _, value in items]}
        return leaf(tree)


@dataclass(frozen=True, eq=False)
class FormKey:
    """A dict key written out by hand, and the key that it stands for."""

    node: Any
    key: Any


def leaf(value: Any) -> tuple[Any, Value]:
    match value:
        case None:
            return None, {"type": "none"}
        case bool():
            return value, {"type": "bool", "value": value}
        case int():
            return integer(value), {"type": "int", "value": str(value)}
        case float():
            return value, {"type": "float", "bits": struct.pack(">d", value).hex()}
        case complex():
            node = ["complex", struct.pack("<dd", value.real, value.imag)]
            return node, {"type": "complex", "bits": struct.pack(">dd", value.real, value.imag).hex()}
        case str():
            return value, {"type": "str", "value": value}
        case bytes():
            return value, {"type": "bytes", "hex": value.hex()}
    raise TypeError(f"a tree cannot hold a {type(value).__name__}")


def integer(value: Any) -> Any:
    """[TREE-002]"""
    if isinstance(value, str) or -(1 << 63) <= value < 1 << 64:
        return value
    magnitude = value if value >= 0 else ~value
    return ["int", value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)]


def key_value(key: Any) -> Any:
    """A key as the protocol has it."""
    key = key.key if isinstance(key, FormKey) else key
    return key if isinstance(key, str) else {"int": str(key)}


def path_value(path: tuple[Any, ...] | list[Any]) -> list[Any]:
    return [key_value(key) for key in path]


def path_text(path: list[Any]) -> str:
    """The path text of a protocol path."""
    return "/".join(key if isinstance(key, str) else key["int"] for key in path)


# ---- names


def escape(key: Any) -> str:
    """[NAME-001] to [NAME-004]"""
    if not isinstance(key, str):
        return str(key)
    if not key:
        return "~"
    raw = key.encode()
    plain = re.compile(rb"[A-Za-z0-9_.-]")
    out = [chr(byte) if plain.match(bytes([byte])) else f"~{byte:02X}" for byte in raw]
    if re.fullmatch(rb"-?[0-9]+", raw) or raw.startswith(b"__") or raw == b"zarr.json":
        out[0] = f"~{raw[0]:02X}"
    if raw.endswith(b"."):
        out[-1] = "~2E"
    return "".join(out)


def name_of(path: tuple[Any, ...]) -> str:
    return "/".join(escape(key.key if isinstance(key, FormKey) else key) for key in path)


# ---- comparing values


def same(found: Any, expected: Any, unknown_tags: frozenset[str] = frozenset()) -> str:
    """Where two protocol values differ, "" if nowhere. Indices of tensors are compared as a pairing."""
    return _Comparison(unknown_tags).difference(found, expected, "")


@dataclass
class _Comparison:
    unknown_tags: frozenset[str]
    pairing: dict[Any, Any] = field(default_factory=dict)

    def difference(self, found: Any, expected: Any, at: str) -> str:
        if expected["type"] == "tag" and expected["name"] in self.unknown_tags:
            return self.difference(found, expected["child"], at)
        if not isinstance(found, dict) or found.get("type") != expected["type"]:
            kind = found.get("type") if isinstance(found, dict) else found
            return f"at {at or 'the root'}: {kind!r} instead of {expected['type']!r}"
        match expected["type"]:
            case "dict":
                return self.items(found, expected, at)
            case "list" | "tuple":
                got, want = found.get("items"), expected["items"]
                if not isinstance(got, list) or len(got) != len(want):
                    return f"at {at or 'the root'}: not {len(want)} items"
                return self.first(zip(got, want, map(str, range(len(want))), strict=True), at)
            case "tag":
                if found.get("name") != expected["name"]:
                    return f"at {at or 'the root'}: tag {found.get('name')!r} instead of {expected['name']!r}"
                pairs = [(found.get(key), expected[key], key) for key in ("param", "child")]
                return self.first(iter(pairs), at)
            case "tensor":
                return self.tensor(found, expected, at)
        if {key: found.get(key) for key in expected} != expected:
            return f"at {at or 'the root'}: {found} instead of {expected}"
        return ""

    def first(self, pairs: Iterator[tuple[Any, Any, str]], at: str) -> str:
        return next((text for f, e, name in pairs if (text := self.difference(f, e, f"{at}/{name}"))), "")

    def items(self, found: Value, expected: Value, at: str) -> str:
        got, want = found.get("items"), expected["items"]
        if not isinstance(got, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in got):
            return f"at {at or 'the root'}: items are no pairs"
        if [key for key, _ in got] != [key for key, _ in want]:
            return f"at {at or 'the root'}: keys {[k for k, _ in got]} instead of {[k for k, _ in want]}"
        return self.first(((g, w, path_text([key])) for (_, g), (key, w) in zip(got, want, strict=True)), at)

    def tensor(self, found: Value, expected: Value, at: str) -> str:
        where = at or "the root"
        for key in ("dtype", "shape"):
            if found.get(key) != expected[key]:
                return f"at {where}: {key} {found.get(key)} instead of {expected[key]}"
        if "index" in expected and "index" in found:
            pair = self.pairing.setdefault(("found", found["index"]), expected["index"])
            back = self.pairing.setdefault(("expected", expected["index"]), found["index"])
            if (pair, back) != (expected["index"], found["index"]):
                return f"at {where}: aliases are not those of the checkpoint"
        if "hex" not in expected and "sha256" not in expected:
            return ""
        got, want = digest_of_value(found), digest_of_value(expected)
        shown = f" ({str(found.get('hex'))[:64]} instead of {expected['hex'][:64]})" if "hex" in expected else ""
        return "" if got == want else f"at {where}: other bytes{shown}"


def digest_of_value(value: Value) -> str:
    """The sha256 of a tensor value's bytes, "" if it has none."""
    if isinstance(value.get("hex"), str):
        try:
            return hashlib.sha256(bytes.fromhex(value["hex"])).hexdigest()
        except ValueError:
            return ""
    return str(value.get("sha256", ""))


def without_bytes(value: Value) -> Value:
    """A tree value as `list` gives it."""
    match value["type"]:
        case "dict":
            return {**value, "items": [[key, without_bytes(item)] for key, item in value["items"]]}
        case "list" | "tuple":
            return {**value, "items": [without_bytes(item) for item in value["items"]]}
        case "tag":
            return {**value, "child": without_bytes(value["child"])}
        case "tensor":
            return {key: item for key, item in value.items() if key not in ("hex", "sha256")}
    return value


def in_key_order(value: Any) -> Any:
    """A value whose dicts are in the order of their keys."""
    match value:
        case {"type": "dict", "items": list(items)}:
            return {
                **value,
                "items": sorted(([key, in_key_order(item)] for key, item in items), key=lambda i: repr(i[0])),
            }
        case {"type": "list" | "tuple", "items": list(items)}:
            return {**value, "items": [in_key_order(item) for item in items]}
        case {"type": "tag", "child": child}:
            return {**value, "child": in_key_order(child)}
    return value


def lookup(value: Value, path: list[Any]) -> Value:
    """The value at a protocol path."""
    for key in path:
        while value["type"] == "tag":
            value = value["child"]
        if value["type"] == "dict":
            value = next(item for k, item in value["items"] if k == key)
        else:
            value = value["items"][int(key["int"])]
    return value
