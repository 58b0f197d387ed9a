"""The reader in JavaScript gives the arrays that NumPy has: every dtype, layout and codec, and slices of all sorts."""

from __future__ import annotations

import base64
import json
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
from ckptfmt.format.dtypes import DTYPES

Scratch = Callable[[], AbstractContextManager[str]]
NAMES = sorted(set(DTYPES) - {"complex32", "bcomplex32", "int1", "uint1"})  # those that NumPy and ml_dtypes have
WIDE = {"int64": "BigInt64Array", "uint64": "BigUint64Array", "complex64": "Float32Array", "complex128": "Float64Array"}
SAME = {"bool": "Uint8Array", "float32": "Float32Array", "float64": "Float64Array"}
SMALL_INTS = {"int2": "Int8Array", "int4": "Int8Array", "uint2": "Uint8Array", "uint4": "Uint8Array"}


class Reader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read(self, path: Path, where: Any, selection: Any = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"file": str(path), "path": where, "selection": selection or []}) + "\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    words = [node(), str(Path(__file__).with_name("js_reader.mjs"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reader(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def natural(array: Any) -> tuple[str, bytes]:
    """The array of JavaScript for an array of NumPy, and its bytes."""
    name = array.dtype.name
    if kind := SMALL_INTS.get(name):
        return kind, array.astype(np.int8).tobytes()
    if kind := WIDE.get(name) or SAME.get(name):
        return kind, array.tobytes()
    if array.dtype.kind in "iu":
        return f"{name.capitalize()}Array", array.tobytes()
    return "Float32Array", array.astype(np.float32).tobytes()


def assert_same(found: dict[str, Any], expected: Any) -> None:
    kind, data = natural(expected)
    given_ = base64.b64decode(found["data"])
    assert (found["dtype"], found["shape"], found["array"]) == (expected.dtype.name, list(expected.shape), kind)
    if kind == "Float32Array":  # NaNs are equal, whatever their bits: a table has one
        np.testing.assert_array_equal(np.frombuffer(given_, np.float32), np.frombuffer(data, np.float32))
    else:
        assert given_ == data


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(st.integers(1, 9), max_size=4))
    dtype = dtype_of(draw(st.sampled_from(NAMES)))
    count = int(np.prod(shape, dtype=int)) * dtype.itemsize
    data = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    limit = {"bool": 1, "float4_e2m1fn": 15, "int4": 15, "uint4": 15, "int2": 3, "uint2": 3}.get(dtype.name, 255)
    limit = 63 if dtype.name.startswith("float6") else limit
    return (data & limit).view(dtype).reshape(shape)


@st.composite
def selections(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[list[Any], tuple[Any, ...]]:
    """What JavaScript and what NumPy is asked for."""
    asked: list[Any] = []
    index: list[Any] = []
    for side in shape[: draw(st.integers(0, len(shape)))]:
        match draw(st.sampled_from(["int", "slice", "all"])):
            case "int":
                at = draw(st.integers(-side, side - 1))
                asked.append(at)
                index.append(at)
            case "slice":
                bound = st.integers(-side - 1, side + 1)
                start, stop, step = draw(bound), draw(bound), draw(st.integers(1, 4))
                asked.append({"start": start, "stop": stop, "step": step})
                index.append(slice(start, stop, step))
            case "all":
                asked.append(None)
                index.append(slice(None))
    return asked, tuple(index)


OPTIONS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["file", "loose", "packed"]),
        "digest": st.sampled_from(["xxh3-128", "sha256", "blake3"]),
        "compression": st.sampled_from([None, "gzip", "zstd", "blosc"]),
    }
)


@given(array=arrays(), options=OPTIONS, data=st.data())
def test_every_slice_of_every_dtype(
    reader: Reader, scratch: Scratch, array: Any, options: dict[str, Any], data: st.DataObject
) -> None:
    asked, index = data.draw(selections(array.shape))
    with scratch() as folder:
        path = Path(folder) / "x.ckpt"
        ckptfmt.save(path, {"layers": [array]}, durable=False, **options)
        assert_same(reader.read(path, "layers/0", asked), np.asarray(array[index]))
        assert_same(reader.read(path, ["layers", 0]), array)


@pytest.mark.parametrize("name", [name for name in NAMES if DTYPES[name].bits <= 16])
def test_every_code_of_a_dtype(reader: Reader, tmp_path: Path, name: str) -> None:
    dtype = dtype_of(name)
    codes = np.arange(1 << 8 * dtype.itemsize, dtype=np.uint16 if dtype.itemsize == 2 else np.uint8)
    bits = 1 if name == "bool" else DTYPES[name].bits
    array = (codes & ((1 << bits) - 1)).astype(codes.dtype).view(dtype)
    ckptfmt.save(tmp_path / "x.ckpt", {"x": array}, durable=False)
    assert_same(reader.read(tmp_path / "x.ckpt", "x"), array)


@pytest.mark.parametrize("layout", ["file", "loose", "packed"])
@pytest.mark.parametrize("compression", [None, "gzip", "zstd", "blosc"])
def test_slices_across_chunks_and_blocks(reader: Reader, tmp_path: Path, layout: str, compression: str | None) -> None:
    array = np.arange(9 << 20, dtype=np.uint32).reshape(9, 1 << 10, 1 << 10) >> 7  # 36 MiB: chunks of 16, blocks of 4
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {"x": array}, layout=layout, compression=compression, durable=False)
    steps = [{"start": 1, "step": 3}, {"step": 100}, {"start": 5, "step": 50}]
    assert_same(reader.read(path, "x", steps), array[1::3, ::100, 5::50])
    assert_same(reader.read(path, "x", [None, 700, {"start": 1000}]), array[:, 700, 1000:])


def test_pages(reader: Reader, tmp_path: Path) -> None:
    tree = {"layers": [{"w": np.full((2, i % 3), i, np.int32), "b": np.float16(i)} for i in range(5000)]}
    tree["layers"].append(tree["layers"][7])
    ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False)
    for number in (0, 7, 4999):
        assert_same(reader.read(tmp_path / "x.ckpt", f"layers/{number}/w"), tree["layers"][number]["w"])
    alias = reader.read(tmp_path / "x.ckpt", "layers/5000/w")  # which has no name of its own
    assert_same(alias, tree["layers"][7]["w"])
    assert reader.read(tmp_path / "x.ckpt", "layers/5001/w")["code"] == "no-such-path"


def test_paths_that_are_ambiguous(reader: Reader, tmp_path: Path) -> None:
    tree = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}, 0: np.zeros(2), "0": np.ones(2), "c": {"d/e": np.ones(3)}}
    ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False)
    assert reader.read(tmp_path / "x.ckpt", "a/b")["code"] == "ambiguous-path"
    assert reader.read(tmp_path / "x.ckpt", "0")["code"] == "ambiguous-path"
    assert_same(reader.read(tmp_path / "x.ckpt", ["a/b"]), tree["a/b"])
    assert_same(reader.read(tmp_path / "x.ckpt", ["a", "b"]), tree["a"]["b"])
    assert_same(reader.read(tmp_path / "x.ckpt", [0]), tree[0])
    assert_same(reader.read(tmp_path / "x.ckpt", ["0"]), tree["0"])
    assert_same(reader.read(tmp_path / "x.ckpt", "c/d/e"), tree["c"]["d/e"])
    assert reader.read(tmp_path / "x.ckpt", "c")["code"] == "no-such-path"
    assert reader.read(tmp_path / "x.ckpt", "a", [0])["code"] == "no-such-path"


def test_a_selection_that_does_not_fit(reader: Reader, tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"x": np.zeros((2, 3))}, durable=False)
    for wrong in ([2], [0, 0, 0], [{"step": 0}], [0.5]):
        assert reader.read(tmp_path / "x.ckpt", "x", wrong)["code"] == "bad-index"
