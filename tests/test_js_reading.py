"""The reader in JavaScript gives the arrays that NumPy has: every dtype, layout and codec, and slices of all sorts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from javascript import Reader, assert_same
from javascript import reader as reader

import ckptfmt
from ckptfmt.format.dtypes import DTYPES

Scratch = Callable[[], AbstractContextManager[str]]
NAMES = sorted(set(DTYPES) - {"complex32", "bcomplex32", "int1", "uint1"})  # those that NumPy and ml_dtypes have


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


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


@st.composite
def compressible(draw: st.DrawFn) -> Any:
    """Arrays of up to 300 KB, with runs and repetitions, near and far, and with what is random."""
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "int64", "complex128"]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    pieces = [np.zeros(0, np.uint8)]
    for length in draw(st.lists(st.integers(1, 60_000), min_size=1, max_size=5)):
        match draw(st.sampled_from(["random", "run", "counting", "few", "before"])):
            case "random":
                pieces.append(random.integers(0, 256, length, np.uint8))
            case "run":
                pieces.append(np.full(length, random.integers(256), np.uint8))
            case "counting":
                pieces.append(np.arange(length, dtype=np.float32).view(np.uint8)[:length])
            case "few":
                pieces.append(random.integers(0, 3, length, np.uint8))
            case "before":
                pieces.append(np.concatenate(pieces)[:length])
    data = np.concatenate(pieces)
    itemsize = np.dtype(dtype).itemsize
    return data[: len(data) // itemsize * itemsize].view(dtype)


BLOSC = st.fixed_dictionaries(
    {
        "cname": st.sampled_from(["blosclz", "lz4", "lz4hc", "zlib", "zstd"]),
        "clevel": st.integers(0, 9),
        "shuffle": st.sampled_from(["noshuffle", "shuffle", "bitshuffle"]),
        "blocksize": st.sampled_from([0, 128, 1000, 4096, 65536]),
    }
)


@given(array=compressible(), options=BLOSC)
def test_every_way_of_blosc(reader: Reader, scratch: Scratch, array: Any, options: dict[str, Any]) -> None:
    with scratch() as folder:
        path = Path(folder) / "x.ckpt"
        ckptfmt.save(path, {"x": array}, compression={"name": "blosc", **options}, durable=False)
        assert_same(reader.read(path, "x"), array)


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
