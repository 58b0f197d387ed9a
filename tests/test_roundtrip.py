"""Save, then load: any tree comes back the same, in every layout and with every compression and digest."""

from __future__ import annotations

import functools
import struct
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from damage import small_chunks
from hypothesis import given
from hypothesis import strategies as st
from inside import inside

import ckptfmt
from ckptfmt.format import manifest
from ckptfmt.format.dtypes import DTYPES, DType
from ckptfmt.testing import assert_same_tree, equal_trees, first_difference
from ckptfmt.testing.strategies import arrays, filled, trees

Scratch = Callable[[], AbstractContextManager[str]]

LAYOUTS = ("file", "packed", "loose")
COMPRESSIONS = (None, "zstd", "gzip", "blosc", {"name": "blosc", "cname": "lz4", "shuffle": "bitshuffle"})
DIGESTS = ("xxh3-128", "sha256", "blake3")

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def item_of(container: Any, key: Any) -> Any:
    return vars(container)[key] if isinstance(container, SimpleNamespace | Namespace) else container[key]


@each_layout
@given(trees(), trees(tensors=False), st.sampled_from(COMPRESSIONS), st.sampled_from(DIGESTS))
def test_any_tree(scratch: Scratch, layout: str, tree: Any, metadata: Any, compression: Any, digest: str) -> None:
    options = {"layout": layout, "compression": compression, "digest": digest, "metadata": metadata, "durable": False}
    with scratch() as folder:
        path = Path(folder) / "model.ckpt"
        report = ckptfmt.save(path, tree, **options)
        assert_same_tree(ckptfmt.load(path), tree)
        assert_same_tree(ckptfmt.load(path, verify=False), tree)
        assert_same_tree(ckptfmt.load(path, mmap=True), tree)
        with ckptfmt.open(path) as checkpoint:
            assert_same_tree(checkpoint.metadata, metadata)
            assert len(checkpoint) == report.tensors
            for place, tensor in checkpoint.tensors.items():
                assert checkpoint[place] is tensor
                assert_same_tree(tensor.read(), functools.reduce(item_of, place, tree))
            raw = inside(checkpoint).located.manifest
            assert manifest.decode(raw).encode() == raw  # [MAN-004]
            assert checkpoint.verify().ok


@given(trees(), st.sampled_from(LAYOUTS), st.sampled_from(COMPRESSIONS), st.sampled_from([1, 40, 1000]))
def test_any_tree_in_many_chunks(scratch: Scratch, tree: Any, layout: str, compression: Any, chunk: int) -> None:
    with scratch() as folder, small_chunks(chunk=chunk):
        path = Path(folder) / "model.ckpt"
        ckptfmt.save(path, tree, layout=layout, compression=compression, durable=False)
        assert_same_tree(ckptfmt.load(path), tree)
        assert ckptfmt.verify(path).ok


@given(arrays(), st.sampled_from(LAYOUTS))
def test_a_tree_that_is_one_array(scratch: Scratch, array: Any, layout: str) -> None:  # [NAME-005]
    with scratch() as folder:
        path = Path(folder) / "model.ckpt"
        ckptfmt.save(path, array, layout=layout, durable=False)
        assert_same_tree(ckptfmt.load(path), array)


@each_layout
@pytest.mark.parametrize("row", DTYPES.values(), ids=DTYPES)
def test_every_bit_pattern_of_small_dtypes(tmp_path: Path, layout: str, row: DType) -> None:  # [DTYPE-002]
    """All patterns up to 16 bits; of wider types, many."""
    count = 2 if row.name == "bool" else 1 << min(row.bits, 16)
    array = np.arange(count, dtype=np.uint16).astype(f"u{min(2, row.numpy.itemsize)}").view(np.uint8)
    patterns = filled(row.numpy, (1 << 12,), 7) if row.bits > 16 else array.view(row.numpy)
    ckptfmt.save(tmp_path / "a", {"x": patterns}, layout=layout, durable=False)
    assert ckptfmt.load(tmp_path / "a")["x"].tobytes() == patterns.tobytes()


@each_layout
def test_an_example(tmp_path: Path, layout: str) -> None:
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)
    tree = {
        "model": {"wte": weights, "head": weights, 0: [weights.T, ()], "0": (None, True)},
        "optimizer": OrderedDict(step=1 << 127, betas=(0.9, -0.0), eps=np.float32(1e-8)),
        "": {"a/b": b"\x00", "..": "ü", -1: 1j, "when": np.datetime64("2020-02-02"), "nat": np.datetime64("NaT", "s")},
        "empty": [{}, [], (), OrderedDict(), np.zeros((0, 2), ml_dtypes.int4)],
    }
    ckptfmt.save(tmp_path / "a", tree, layout=layout, durable=False)
    loaded = ckptfmt.load(tmp_path / "a")
    assert_same_tree(loaded, tree)
    assert loaded["model"]["wte"] is loaded["model"]["head"]  # [TREE-010]
    assert list(loaded) == list(tree)
    assert loaded["model"][0][0].flags.c_contiguous
    assert all(array.flags.writeable for array in (loaded["model"]["wte"], loaded["model"][0][0]))


def test_arrays_come_back_in_native_byte_order(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a", {"x": np.array([1, 2], ">i4"), "t": np.array([3], ">M8[s]")}, durable=False)
    loaded = ckptfmt.load(tmp_path / "a")
    assert loaded["x"].dtype.isnative
    assert loaded["x"].tolist() == [1, 2]
    assert loaded["t"].dtype == np.dtype("M8[s]")
    assert loaded["t"].view("i8").tolist() == [3]


def test_memory_mapped_arrays_come_back_as_arrays(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "data", np.int16, "w+", shape=(4,))
    mapped[:] = [1, 2, 3, 4]
    ckptfmt.save(tmp_path / "a", {"x": mapped}, durable=False)
    assert_same_tree(ckptfmt.load(tmp_path / "a"), {"x": np.array([1, 2, 3, 4], np.int16)})


@each_layout
def test_the_deepest_tree(tmp_path: Path, layout: str) -> None:  # [TREE-012]
    tree: Any = np.arange(3)
    for _ in range(256):
        tree = {"k": tree}
    ckptfmt.save(tmp_path / "a", tree, layout=layout, durable=False)
    assert_same_tree(ckptfmt.load(tmp_path / "a"), tree)


def test_bools_of_any_memory_can_be_loaded_again(tmp_path: Path) -> None:  # [DTYPE-005]
    ckptfmt.save(tmp_path / "a", {"x": np.array([0, 1, 2], np.uint8).view(bool)}, durable=False)
    assert ckptfmt.load(tmp_path / "a")["x"].tolist() == [False, True, True]


def test_the_largest_time_unit_can_be_loaded_again(tmp_path: Path) -> None:  # [TAG-003]
    tree = {"x": np.arange(3).view("M8[2147483647s]")}
    ckptfmt.save(tmp_path / "a", tree, durable=False)
    assert_same_tree(ckptfmt.load(tmp_path / "a"), tree)


def test_shapes_that_numpy_allows_can_be_loaded_again(tmp_path: Path) -> None:  # [LIM-004]
    """Or are refused when they are saved."""
    shapes: list[tuple[int, ...]] = [(0, 1 << 61), (0, 1 << 62), (1,) * 64]
    for number, shape in enumerate(shapes):
        tree = {"x": np.zeros(shape, np.int8), "y": [np.zeros(shape, ml_dtypes.int4) for _ in range(5)]}
        try:
            ckptfmt.save(tmp_path / str(number), tree, durable=False)
        except ckptfmt.InputError:
            continue
        assert_same_tree(ckptfmt.load(tmp_path / str(number)), tree)


# ---- equality itself: what would hide a fault must differ

NAN, OTHER_NAN = (struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000000 + payload))[0] for payload in (0, 1))
X = np.arange(3)


@dataclass
class Pair:
    one: Any
    other: Any


DIFFERENT = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (NAN, OTHER_NAN),
    (complex(0, 0.0), complex(0, -0.0)),
    ([1], (1,)),
    ([], ()),
    ({}, OrderedDict()),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({0: 1}, {"0": 1}),
    ([1, 2], [1]),
    ("a", b"a"),
    ("a", np.str_("a")),
    (1.0, np.float64(1.0)),
    (np.float32(0.0), np.float32(-0.0)),
    (np.int32(1), np.int64(1)),
    (np.float64(1), np.array(1.0)),
    (X, X.astype("u8")),
    (X, X[:2]),
    (X, X.reshape(1, 3)),
    (np.array([0.0]), np.array([-0.0])),
    (np.array([NAN]), np.array([OTHER_NAN])),
    (np.zeros(1, "M8[s]"), np.zeros(1, "M8[ms]")),
    (np.zeros(1, "M8[60s]"), np.zeros(1, "M8[m]")),
    (np.zeros(1, ml_dtypes.int4), np.zeros(1, ml_dtypes.uint4)),
    (np.zeros(1, ml_dtypes.float8_e5m2), np.zeros(1, ml_dtypes.float8_e4m3fn)),
    ([X, X], [X, X.copy()]),
    ([X, X.copy()], [X, X]),
    ([X, X.copy(), X], [X, X, X.copy()]),
    (Pair(X, 1), Pair(X, 2)),
    (Pair(X, 1), Pair(X + 1, 1)),
    (Pair(X, [X]), Pair(X, [X.copy()])),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_different_trees(one: Any, other: Any) -> None:
    for found, expected in ((one, other), ({"k": [one]}, {"k": [other]})):
        assert not equal_trees(found, expected)
        assert not equal_trees(expected, found)
        with pytest.raises(AssertionError):
            assert_same_tree(found, expected)
    assert equal_trees(one, one)


def test_differences_are_named() -> None:
    assert first_difference({"a": [1, 2.5]}, {"a": [1, -2.5]}) == "'a/1': 2.5, not -2.5"
    assert first_difference([X, X], [X, X.copy()]) == "'1': an alias of '0', not of '1'"


def test_byte_order_and_strides_make_no_difference() -> None:
    assert equal_trees([X.astype(">i8"), X], [X, X[::-1].copy()[::-1]])
    assert equal_trees(np.array([0xF1], np.uint8).view(ml_dtypes.int4), np.array([1], ml_dtypes.int4))


@given(trees())
def test_any_tree_is_the_same_as_itself(tree: Any) -> None:
    assert_same_tree(tree, tree)
