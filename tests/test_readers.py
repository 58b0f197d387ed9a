"""The readers of conformance/implementations, which share no code with ckptfmt, give what ckptfmt saved.

The conformance suite puts hand-made cases to them; here are trees of all sorts, as ckptfmt writes them.
"""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from javascript import node

import ckptfmt
from conformance.__main__ import command_of

Scratch = Callable[[], AbstractContextManager[str]]
PACKED = {"int4": (4, 2), "uint2": (2, 4)}  # bits, elements in a byte


class Reader:
    """A reader as a process that speaks the protocol of the conformance suite."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"id": 1, "op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply

    def value(self, path: Path, where: list[Any], **arguments: Any) -> Any:
        assert self.ask("open", file=str(path)) == {"id": 1, "ok": {}}
        op = "read_slice" if "slices" in arguments else "read"
        return self.ask(op, path=where, **arguments)["ok"]["value"]

    def damage(self, path: Path) -> Any:
        """What a whole verification finds; None from a reader that has none."""
        reply = self.ask("verify", file=str(path))
        return None if reply.get("unsupported") == "verify" else reply["ok"]["damage"]


def command(name: str) -> list[str]:
    if name == "javascript":
        node()  # or the test is skipped
    return command_of(name)


@pytest.fixture(scope="module", params=["python", "javascript"])
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    with subprocess.Popen(command(request.param), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reader(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def described(value: Any) -> Any:
    """A value as the protocol has it; arrays without the index that tells aliases."""
    match value:
        case None:
            return {"type": "none"}
        case bool():
            return {"type": "bool", "value": value}
        case int():
            return {"type": "int", "value": str(value)}
        case float():
            return {"type": "float", "bits": struct.pack(">d", value).hex()}
        case complex():
            return {"type": "complex", "bits": struct.pack(">2d", value.real, value.imag).hex()}
        case str():
            return {"type": "str", "value": value}
        case bytes():
            return {"type": "bytes", "hex": value.hex()}
        case np.ndarray():
            data = stored(value)
            found = {"hex": data.hex()} if len(data) <= 1024 else {"sha256": hashlib.sha256(data).hexdigest()}
            return {"type": "tensor", "dtype": value.dtype.name, "shape": list(value.shape), **found}
        case dict():
            keys = [key if isinstance(key, str) else {"int": str(key)} for key in value]
            return {
                "type": "dict",
                "items": [list(pair) for pair in zip(keys, map(described, value.values()), strict=True)],
            }
    return {"type": type(value).__name__, "items": [described(item) for item in value]}


def stored(array: Any) -> bytes:
    """The bytes of an array in section 3's form: elements of fewer than 8 bits packed row by row, lowest bits first."""
    if array.dtype.name not in PACKED:
        return bytes(array.tobytes())
    bits, per = PACKED[array.dtype.name]
    elements = (np.atleast_1d(array).view(np.uint8) & ((1 << bits) - 1)).astype(np.uint8)
    padded = np.pad(elements, [(0, 0)] * (elements.ndim - 1) + [(0, -elements.shape[-1] % per)])
    groups = padded.reshape(*padded.shape[:-1], padded.shape[-1] // per, per)
    return (groups << np.arange(0, 8, bits, dtype=np.uint8)).sum(-1, dtype=np.uint8).tobytes()


def without_index(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_index(item) for key, item in value.items() if key != "index"}
    return [without_index(item) for item in value] if isinstance(value, list) else value


DTYPES = [
    "bool",
    "int8",
    "uint16",
    "float32",
    "complex128",
    "bfloat16",
    "float8_e4m3fn",
    "float6_e2m3fn",
    "int4",
    "uint2",
]


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(st.integers(0, 7), max_size=4))
    name = draw(st.sampled_from(DTYPES))
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    count = int(np.prod(shape, dtype=int))
    data = np.frombuffer(draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)), np.uint8)
    limit = {"bool": 1, "float6_e2m3fn": 63, "int4": 15, "uint2": 3}.get(name, 255)
    return (data & limit).view(dtype).reshape(shape)


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.integers(-(1 << 70), 1 << 70)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 100), 1 << 100)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | arrays()
)
TREES = st.recursive(
    LEAVES,
    lambda items: (
        st.lists(items, max_size=4) | st.lists(items, max_size=4).map(tuple) | st.dictionaries(KEYS, items, max_size=4)
    ),
    max_leaves=12,
)
OPTIONS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["file", "loose"]),
        "digest": st.sampled_from(["xxh3-128", "sha256"]),
        "compression": st.sampled_from([None, "gzip"]),
    }
)


@given(tree=TREES, options=OPTIONS)
def test_every_value_is_read(reader: Reader, scratch: Scratch, tree: Any, options: dict[str, Any]) -> None:
    with scratch() as folder:
        path = Path(folder) / "x.ckpt"
        ckptfmt.save(path, tree, durable=False, **options)
        assert without_index(reader.value(path, [])) == described(tree)
        assert reader.damage(path) in ([], None)


@given(array=arrays(), data=st.data(), verify=st.booleans())
def test_every_slice_is_read(reader: Reader, scratch: Scratch, array: Any, data: st.DataObject, verify: bool) -> None:
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in array.shape]
    slices = [(start, stop, data.draw(st.integers(1, 4))) for start, stop in bounds]
    with scratch() as folder:
        ckptfmt.save(Path(folder) / "x.ckpt", {"x": array}, durable=False)
        found = reader.value(Path(folder) / "x.ckpt", ["x"], slices=slices, verify=verify)
    assert found == described(np.ascontiguousarray(array[tuple(slice(*one) for one in slices)]).reshape(found["shape"]))


@pytest.mark.parametrize("layout", ["file", "loose"])
def test_slices_across_chunks(reader: Reader, tmp_path: Path, layout: str) -> None:
    array = np.arange(9 << 20, dtype=np.uint32).reshape(9, 1 << 10, 1 << 10) >> 7  # three chunks of 16 MiB
    ckptfmt.save(tmp_path / "x.ckpt", {"x": array}, layout=layout, compression="gzip", durable=False)
    slices = [(1, 9, 3), (0, 1 << 10, 100), (5, 1 << 10, 50)]
    expected = described(np.ascontiguousarray(array[1::3, ::100, 5::50]))
    assert reader.value(tmp_path / "x.ckpt", ["x"], slices=slices) == expected


def test_a_flipped_bit_is_named(reader: Reader, tmp_path: Path) -> None:
    array = np.arange(3 << 20, dtype=np.uint32)  # blocks of 4 MiB
    ckptfmt.save(tmp_path / "x.ckpt", {"x": array, "y": np.zeros(3)}, layout="loose", durable=False)
    chunk = tmp_path / "x.ckpt" / "tensors" / "x" / "c" / "0"
    data = bytearray(chunk.read_bytes())
    data[(4 << 20) + 5] ^= 1
    chunk.write_bytes(data)
    assert reader.ask("open", file=str(tmp_path / "x.ckpt")) == {"id": 1, "ok": {}}
    error = reader.ask("read", path=["x"])["error"]
    place = {"code": "block-digest", "tensor": "x", "chunk": 0, "block": 1, "offset": 4 << 20}
    assert {key: error[key] for key in place} == place
    intact = reader.value(tmp_path / "x.ckpt", ["x"], slices=[(2 << 20, 3 << 20, 1)])
    assert intact == described(array[2 << 20 :])
    if (damage := reader.damage(tmp_path / "x.ckpt")) is not None:
        assert [(one["code"], one["tensor"], one["block"]) for one in damage] == [("block-digest", "x", 1)]


def test_the_deepest_tree_is_read(reader: Reader, tmp_path: Path) -> None:
    tree: Any = 1
    for _ in range(256):
        tree = {"k": tree}
    ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False)
    assert reader.value(tmp_path / "x.ckpt", ["k"] * 256) == {"type": "int", "value": "1"}
    assert "ok" in reader.ask("list")


def test_aliases_are_one_tensor(reader: Reader, tmp_path: Path) -> None:
    array = np.arange(4)
    ckptfmt.save(tmp_path / "x.ckpt", [array, {"a": array}, array.copy()], durable=False)
    one, two, three = reader.value(tmp_path / "x.ckpt", [])["items"]
    assert one["index"] == two["items"][0][1]["index"] != three["index"]
