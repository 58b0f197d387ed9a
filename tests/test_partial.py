"""Parts of tensors: any basic index gives what NumPy gives and reads only the blocks that it needs; `select=` and path
lookups give the parts of a tree that they name. [READ-003] [READ-004] [BLK-004]"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, flipped, small_chunks, zones
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt import OMITTED
from ckptfmt.reading import fetch
from ckptfmt.testing import assert_same_tree, equal_trees
from ckptfmt.testing.strategies import arrays, basic_indices, shapes

Scratch = Callable[[], AbstractContextManager[str]]

COMPRESSIONS = (None, "zstd", "gzip", {"name": "blosc", "shuffle": "bitshuffle"})
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@contextmanager
def stored(folder: Path, tree: Any, *, verify: bool = True, **options: Any) -> Iterator[ckptfmt.Checkpoint]:
    """The tree saved, and opened."""
    path = folder / "model.ckpt"
    ckptfmt.save(path, tree, durable=False, **options)
    with ckptfmt.open(path, verify=verify) as checkpoint:
        yield checkpoint


# ---- indices


@given(data=st.data(), array=arrays(), options=st.tuples(*map(st.sampled_from, (COMPRESSIONS, LAYOUTS, (True, False)))))
def test_any_index_gives_what_numpy_gives(scratch: Scratch, data: st.DataObject, array: Any, options: Any) -> None:
    compression, layout, verify = options
    chunk = data.draw(st.sampled_from([1, 64, 1000]), label="bytes of a chunk")
    saving = {"layout": layout, "compression": compression, "verify": verify}
    with scratch() as folder, small_chunks(chunk=chunk), stored(Path(folder), array, **saving) as checkpoint:
        tensor = checkpoint.tree
        assert (tensor.shape, tensor.dtype) == (array.shape, array.dtype.newbyteorder("="))
        for _ in range(8):
            check_index(tensor, array, data.draw(basic_indices(array.shape), label="index"))


@given(data=st.data(), array=arrays(shape=shapes(max_dims=3, max_side=20)))
def test_any_index_of_many_blocks_and_spans(scratch: Scratch, data: st.DataObject, array: Any) -> None:
    saving = {"layout": data.draw(st.sampled_from(LAYOUTS)), "verify": data.draw(st.booleans(), label="verify")}
    chunk = data.draw(st.sampled_from([5000, 1 << 20]), label="bytes of a chunk")
    with scratch() as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("SPAN", "SPAN_UNVERIFIED"):
            patch.setattr(fetch, name, data.draw(st.sampled_from([100, 3000, 1 << 20]), label="bytes of a read"))
        with small_chunks(chunk=chunk), stored(Path(folder), array, **saving) as checkpoint:
            for _ in range(8):
                check_index(checkpoint.tree, array, data.draw(basic_indices(array.shape), label="index"))


def check_index(tensor: ckptfmt.Tensor, array: Any, index: Any) -> None:
    """The same value, dtype and shape, and a scalar or a 0-d array as NumPy gives it."""
    expected, found = array[index], tensor[index]
    assert type(found) is type(expected)
    assert_same_tree(np.asarray(found), np.asarray(expected))
    assert not isinstance(found, np.ndarray) or found.flags.writeable


@pytest.mark.parametrize(
    "index",
    [
        None,
        (0, None),
        True,
        np.True_,
        np.array(True),
        [0, 1],
        np.array([0, 1]),
        (slice(None), [0]),
        1.0,
        "a",
        (0, 0, 0),
        (..., 0, 0, 0),
        (..., ...),
        4,
        -5,
        (0, 3),
        10**30,
        slice(None, None, 0),
        slice("a", None),
        slice(0.0, 1.0),
        {},
    ],
    ids=repr,
)
def test_refused_indices(tmp_path: Path, index: Any) -> None:
    with stored(tmp_path, np.zeros((4, 3))) as checkpoint:
        with pytest.raises(ckptfmt.SelectionError) as caught:
            checkpoint.tree[index]
        assert caught.value.code == "bad-index"
        assert checkpoint.bytes_read == 0


def test_tensors_behave_like_sequences(tmp_path: Path) -> None:
    array = np.arange(6).reshape(3, 2)
    with stored(tmp_path, {"x": array, "scalar": np.array(1)}) as checkpoint:
        tensor = checkpoint["x"]
        assert (len(tensor), tensor.ndim, tensor.size, tensor.nbytes) == (3, 2, 6, 48)
        assert [row.tolist() for row in tensor] == array.tolist()
        assert np.array_equal(np.asarray(tensor), array)
        assert np.asarray(tensor, np.float32).dtype == np.float32
        with pytest.raises(ValueError, match="copy"):
            np.asarray(tensor, copy=False)
        with pytest.raises(TypeError):
            len(checkpoint["scalar"])
        out = np.empty((3, 2), np.int64)
        assert tensor.read(out) is out
        assert np.array_equal(out, array)
        with pytest.raises(ckptfmt.MismatchError) as caught:
            tensor.read(np.empty((3, 3), np.int64))
        assert caught.value.found == "int64 (3, 3)"


# ---- what is read

BLOCK = 4096
ROWS, WIDTH = 64, 8192  # each row is two blocks


@each_layout
def test_reads_touch_only_the_blocks_they_need(tmp_path: Path, layout: str) -> None:
    array = np.random.default_rng(1).integers(0, 256, (ROWS, WIDTH), np.uint8)
    cases: list[tuple[Any, int]] = [
        ((0, 0), 1),
        ((5, slice(0, BLOCK)), 1),
        ((5, slice(1, BLOCK + 1)), 2),
        (5, 2),
        (slice(10, 20), 20),
        ((slice(None), 0), ROWS),
        ((slice(0, 10, 5), slice(BLOCK, None)), 2),
        ((slice(None, None, -16), slice(-1, None)), 4),
        (slice(3, 3), 0),
        (slice(None), 2 * ROWS),
    ]
    with small_chunks(block=BLOCK, chunk=1 << 20), stored(tmp_path, array, layout=layout) as checkpoint:
        assert checkpoint.bytes_read == 0  # [READ-002]
        for index, blocks in cases:
            before = checkpoint.bytes_read
            check_index(checkpoint.tree, array, index)
            assert checkpoint.bytes_read - before == blocks * BLOCK, index


@each_layout
def test_unverified_reads_of_runs_are_exact(tmp_path: Path, layout: str) -> None:
    array = np.random.default_rng(2).integers(0, 1 << 16, (ROWS, WIDTH), np.uint16)
    cases: list[tuple[Any, int]] = [
        ((3, 7), 2),
        ((3, slice(5, 105)), 200),
        (slice(2, 4), 2 * 2 * WIDTH),
        ((slice(2, 9), slice(10, 20)), 7 * 20),
        ((..., 0), ROWS * 2),
        (slice(None), array.nbytes),
    ]
    with small_chunks(block=BLOCK, chunk=1 << 24), stored(tmp_path, array, layout=layout, verify=False) as checkpoint:
        for index, wanted in cases:
            before = checkpoint.bytes_read
            check_index(checkpoint.tree, array, index)
            assert checkpoint.bytes_read - before == wanted, index


def test_a_compressed_read_takes_whole_chunks(tmp_path: Path) -> None:
    array = np.random.default_rng(3).integers(0, 4, (ROWS, WIDTH), np.uint8)
    with small_chunks(chunk=8 * WIDTH), stored(tmp_path, array, compression="zstd") as checkpoint:
        tensor = checkpoint.tree
        assert (tensor.chunks, tensor.codec) == (8, "zstd")
        assert tensor.stored_bytes < tensor.nbytes == array.nbytes
        check_index(tensor, array, 0)
        assert checkpoint.bytes_read < tensor.stored_bytes / 6
        check_index(tensor, array, slice(None))


@each_layout
def test_damage_stops_only_the_reads_that_meet_it(tmp_path: Path, layout: str) -> None:
    """[BLK-005]"""
    array = np.zeros((ROWS, WIDTH), np.uint8)
    with small_chunks(block=BLOCK, chunk=1 << 24), stored(tmp_path, {"x": array}, layout=layout) as checkpoint:
        (zone,) = [zone for zone in zones(Path(checkpoint.path)) if zone.tensor == ("x",)]
        tensor = checkpoint["x"]
        with flipped(zone.file, zone.start + 7 * WIDTH, 0):
            check_index(tensor, array, slice(8, None))
            check_index(tensor, array, (slice(None), slice(BLOCK, None)))
            for index in ((7, 4095), slice(6, 9), (slice(None, None, 7), 0), slice(None)):
                with pytest.raises(ckptfmt.CorruptError) as caught:
                    tensor[index]
                error = caught.value
                assert (error.code, error.tensor, error.chunk, error.block) == ("block-digest", "x", 0, 14)
            with ckptfmt.open(checkpoint.path, verify=False) as unverified:
                assert unverified["x"][7, 0] == 1  # [BLK-006]: asked for


def test_selecting_reads_only_what_is_selected(tmp_path: Path) -> None:
    tree = {"a": np.zeros(100_000), "b": np.zeros(1000, np.uint8)}
    with stored(tmp_path, tree) as checkpoint:
        checkpoint.load(select="b")
        assert checkpoint.bytes_read == 1000


# ---- select=

TREE = {
    "model": {"layers": [{"weight": np.zeros(2)}, {"weight": np.ones(2), "bias": np.ones(1)}], "name": "m"},
    "optimizer": {"step": 3, "moments": (np.zeros(2), np.ones(2))},
    "empty": {},
}
WEIGHT = {"weight": TREE["model"]["layers"][1]["weight"]}  # type: ignore[index]
MOMENTS = TREE["optimizer"]["moments"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("optimizer/step", {"optimizer": {"step": 3}}),
        ("optimizer", {"optimizer": TREE["optimizer"]}),
        ("optimizer/**", {"optimizer": TREE["optimizer"]}),
        ("model/layers/1/weight", {"model": {"layers": [OMITTED, WEIGHT]}}),
        ("model/*", {"model": {"name": "m"}}),
        ("*/name", {"model": {"name": "m"}}),
        ("**/1", {"optimizer": {"moments": (OMITTED, MOMENTS[1])}}),
        ("**/moments/?", {"optimizer": {"moments": MOMENTS}}),
        (["optimizer/step", "model/name"], {"model": {"name": "m"}, "optimizer": {"step": 3}}),
        (("optimizer/step",), {"optimizer": {"step": 3}}),
        ("**", TREE),
        ("", TREE),
        ("empty", {"empty": {}}),
    ],
)
@each_layout
def test_select(tmp_path: Path, layout: str, select: Any, expected: Any) -> None:
    with stored(tmp_path, TREE, layout=layout) as checkpoint:
        assert_same_tree(checkpoint.load(select=select), expected)


@pytest.mark.parametrize("select", ["nothing", "model/layer", "mode", "*.weight", [], ["x", "y"], "optimizer/step/0"])
def test_select_that_matches_nothing(tmp_path: Path, select: Any) -> None:
    with stored(tmp_path, TREE) as checkpoint, pytest.raises(ckptfmt.SelectionError) as caught:
        checkpoint.load(select=select)
    assert caught.value.code == "no-match"


def test_select_treats_brackets_and_dots_as_themselves(tmp_path: Path) -> None:
    tree = {"a[0]": 1, "a0": 2, "a.b": 3, "axb": 4, "x+": 5, "line\nfeed": 6}
    with stored(tmp_path, tree) as checkpoint:
        for key in tree:
            assert checkpoint.load(select=key) == {key: tree[key]}
        assert checkpoint.load(select="line*") == {"line\nfeed": 6}


def test_omitted(tmp_path: Path) -> None:
    assert not OMITTED
    assert repr(OMITTED) == "ckptfmt.OMITTED"
    with stored(tmp_path, [1, 2]) as checkpoint:
        first, second = checkpoint.load(select="1")
        assert first is OMITTED
        assert second == 2


# ---- lookups


@each_layout
def test_lookups(tmp_path: Path, layout: str) -> None:
    with stored(tmp_path, TREE, layout=layout) as checkpoint:
        assert checkpoint["model/name"] == "m"
        assert checkpoint["model", "layers", 1, "weight"] is checkpoint["model/layers/1/weight"]
        assert equal_trees(checkpoint["optimizer/moments"][1].read(), MOMENTS[1])
        assert list(checkpoint["model"]) == ["layers", "name"]
        assert checkpoint[()] is checkpoint.tree
        assert checkpoint["empty"] == {}
        assert len(checkpoint) == 5
        assert list(checkpoint) == [
            "model/layers/0/weight",
            "model/layers/1/weight",
            "model/layers/1/bias",
            "optimizer/moments/0",
            "optimizer/moments/1",
        ]
        for path in ("model/layers/1", ("model", "layers"), "optimizer/step", "empty"):
            assert path in checkpoint
        for path in ("model/layers/2", ("model", "layers", "1"), ("model", "layers", True), "", "model/", 0):
            missing = path not in checkpoint
            assert missing or path == ""
        assert checkpoint["model", "layers", np.int64(1)] is checkpoint["model", "layers", 1]
        for path in ("nothing", ("model", 0), 7, "model/layers/-1", None, 1.0, b"model", ("model", "layers", 1.0)):
            assert path not in checkpoint
            with pytest.raises(ckptfmt.SelectionError) as caught:
                checkpoint[path]
            assert caught.value.code == "no-such-path"


def test_ambiguous_lookups(tmp_path: Path) -> None:
    tree = {"a": {"b": 1, 0: "int", "0": "str"}, "a/b": 2, "c/d": 3, 5: "five"}
    with stored(tmp_path, tree) as checkpoint:
        for text in ("a/b", "a/0"):
            assert text in checkpoint
            with pytest.raises(ckptfmt.SelectionError) as caught:
                checkpoint[text]
            assert caught.value.code == "ambiguous-path"
        assert (checkpoint["a", "b"], checkpoint[("a/b",)], checkpoint["c/d"]) == (1, 2, 3)
        assert (checkpoint["a", 0], checkpoint["a", "0"]) == ("int", "str")
        assert checkpoint[5] == checkpoint["5"] == "five"


def test_a_tree_that_is_one_leaf(tmp_path: Path) -> None:
    with stored(tmp_path, np.arange(3)) as checkpoint:
        assert isinstance(checkpoint.tree, ckptfmt.Tensor)
        assert checkpoint[""] is checkpoint[()] is checkpoint.tree
        assert list(checkpoint.tensors) == [()]
        assert checkpoint.tree.name == ""


def test_aliases_are_one_tensor(tmp_path: Path) -> None:
    tied = np.arange(3)
    with stored(tmp_path, {"a": tied, "b": [tied]}) as checkpoint:
        assert checkpoint["a"] is checkpoint["b"][0]
        assert len(checkpoint) == 1
        assert list(checkpoint) == ["a", "b/0"]
        assert checkpoint["b/0"].path == ("a",)
        loaded = checkpoint.load()
        assert loaded["a"] is loaded["b"][0]


def test_a_closed_checkpoint(tmp_path: Path) -> None:
    with stored(tmp_path, {"x": np.arange(3)}) as checkpoint:
        pass
    checkpoint.close()  # again, harmless
    assert checkpoint["x"].shape == (3,)
    with pytest.raises(ckptfmt.InputError) as caught:
        checkpoint["x"].read()
    assert caught.value.code == "bad-option"
