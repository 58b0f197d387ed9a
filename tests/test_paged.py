"""Paged manifests and stacks (SPEC.md sections 7.1 and 7.2): equal to plain ones, opened at the cost of what is
touched."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from inside import inside

import ckptfmt
from ckptfmt import CorruptError, SelectionError, UnsupportedError
from ckptfmt.format import manifest as manifests
from ckptfmt.format import tree_pages
from ckptfmt.format.limits import Budget
from ckptfmt.format.names import escape, unescape
from ckptfmt.format.paged_manifest import LEAST_TENSORS
from ckptfmt.format.tree import has_plain_keys
from ckptfmt.format.tree_pages import Cutter, TreePages
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import trees

MANY = {"layers": [{"w": np.full((2, 3), i, np.float32), "b": np.float64([i])} for i in range(5000)], "step": 7}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paged") / "many.ckpt"
    ckptfmt.save(path, MANY, durable=False)
    return path


@given(tree=trees())
def test_a_paged_checkpoint_gives_the_same_tree(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    path = tmp_path_factory.mktemp("p") / "t.ckpt"
    ckptfmt.save(path, tree, paged=True, durable=False)
    assert_same_tree(ckptfmt.load(path), tree)
    assert ckptfmt.verify(path).ok
    with ckptfmt.open(path) as paged:
        assert paged.format == (1, 1)
        for key, tensor in paged.tensors.items():
            assert tensor.path in paged
            assert_same_tree(paged[key].read(), tensor.read())


@pytest.mark.parametrize("count", [LEAST_TENSORS - 1, LEAST_TENSORS])
def test_large_manifests_are_paged_and_others_are_as_before(tmp_path: Path, count: int) -> None:
    ckptfmt.save(tmp_path / "a", {str(i): np.int8(i % 100).reshape(()) for i in range(count)} | dict.fromkeys("xy", 1))
    ckptfmt.save(tmp_path / "b", [np.zeros((), np.int8) for _ in range(count)], durable=False)
    with ckptfmt.open(tmp_path / "b") as checkpoint:
        assert checkpoint.format == ((1, 1) if count >= LEAST_TENSORS else (1, 0))  # [PAGE-010]


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_what_paged_takes(tmp_path: Path, layout: str) -> None:
    for number, paged in enumerate((True, np.True_, False, np.False_)):
        ckptfmt.save(path := tmp_path / str(number), {"w": np.arange(3)}, layout=layout, paged=paged, durable=False)
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.format == ((1, 1) if paged else (1, 0))
            assert checkpoint["w"][:].tolist() == [0, 1, 2]
    for paged in (1, 0, "yes", "", np.int8(1)):
        with pytest.raises(ckptfmt.InputError, match=r"paged= \(found .*, expected True, False or None\)") as caught:
            ckptfmt.save(tmp_path / "x", {"w": np.arange(3)}, layout=layout, paged=paged, durable=False)
        assert caught.value.code == "bad-option"
        assert not (tmp_path / "x").exists()


def test_a_large_tree_of_plain_values_is_paged(tmp_path: Path) -> None:
    tree = {"history": [{"loss": i * 0.5, "step": i} for i in range(40_000)], "seed": 3, "log": "x" * 100_000}
    ckptfmt.save(tmp_path / "h.ckpt", tree, durable=False)
    with ckptfmt.open(tmp_path / "h.ckpt") as checkpoint:
        assert checkpoint.format == (1, 1)
        reads = _pages_read(checkpoint)
        assert checkpoint["history/20001/step"] == 20_001
        assert checkpoint["seed"] == 3
        assert checkpoint["log"] == tree["log"]
        assert "history/40000/step" not in checkpoint
        assert len(reads) < 30
    assert ckptfmt.load(tmp_path / "h.ckpt") == tree


def _pages_read(checkpoint: ckptfmt.Checkpoint) -> list[int]:
    """The pages of an open checkpoint that are read from now on."""
    reads: list[int] = []
    pages = inside(checkpoint).manifest.pages
    assert pages is not None
    some = pages._pages.some

    def counted(numbers: range) -> Any:
        reads.extend(numbers)
        return some(numbers)

    pages._pages.some = counted  # type: ignore[method-assign]
    return reads


def test_a_slice_of_one_tensor_reads_one_page(many: Path) -> None:
    with ckptfmt.open(many) as checkpoint:
        reads = _pages_read(checkpoint)
        assert inside(checkpoint).located.record.length < 4096
        assert len(checkpoint) == 10_000
        assert reads == []
        assert checkpoint["layers/4321/w"][1, 1:].tolist() == [4321, 4321]
        assert checkpoint[("layers", 4321, "w")].shape == (2, 3)
        assert len(reads) == 1
        assert checkpoint.bytes_read == 24
        assert checkpoint["step"] == 7  # stands in the manifest itself, and is no tensor of the page it would be in
        assert len(reads) == 2


def test_what_is_not_there_is_said_as_ever(many: Path) -> None:
    with ckptfmt.open(many) as checkpoint:
        assert "layers/0/x" not in checkpoint
        assert ("layers", "0", "w") not in checkpoint
        assert checkpoint.get("layers/9999/w") is None
        with pytest.raises(SelectionError, match="layers/0/w"):
            checkpoint["layers/0/v"]
        assert set(checkpoint["layers/3"]) == {"w", "b"}


@pytest.mark.parametrize("key", ["a/b", "", "0", "-7"])
def test_a_text_that_fits_two_values_is_looked_up_in_all_of_the_tree(tmp_path: Path, key: str) -> None:
    """[PAGE-008]"""
    tree = {key: np.zeros(2), "a": {"b": np.ones(2), "": 1}, 0: np.ones(3), -7: 5, "t": np.arange(3)}
    ckptfmt.save(tmp_path / "k.ckpt", tree, paged=True, durable=False)
    with ckptfmt.open(tmp_path / "k.ckpt") as checkpoint:
        assert checkpoint[(key,)].read().tolist() == [0, 0]
        if key:
            with pytest.raises(SelectionError, match="fits 2 paths"):
                checkpoint[key]
        assert checkpoint["t"][1] == 1


def test_stock_zarr_readers_find_small_tensors_as_rows(many: Path) -> None:
    """[STACK-002] [STACK-003]"""
    with zarr.storage.ZipStore(many, mode="r") as store:
        stack = zarr.open_group(store, path="stacks", mode="r")["float32-2x3"]
        assert isinstance(stack, zarr.Array)
        assert stack.shape == (5000, 2, 3)
        names: Any = stack.attrs["ckptfmt"]
        row = names["names"].index("layers/77/w")
        assert np.asarray(stack[row]).tolist() == [[77.0] * 3] * 2
        assert list(zarr.open_group(store, path="tensors", mode="r").members()) == []
    with zipfile.ZipFile(many) as file:
        assert file.testzip() is None


def test_bytes_of_a_small_tensor(tmp_path: Path) -> None:
    tree = {f"layers.{i}.weight": np.full(128, i, np.float32) for i in range(10_000)}
    report = ckptfmt.save(tmp_path / "s.ckpt", tree, durable=False)
    assert report.bytes < 10_000 * (512 + 110)


def test_a_damaged_page_is_damage_of_its_tensors(many: Path, tmp_path: Path) -> None:
    with ckptfmt.open(many) as checkpoint:
        pages = inside(checkpoint).manifest.pages
        assert pages is not None
        offset = pages.extent[0] + 50
    raw = bytearray(many.read_bytes())
    raw[offset] ^= 1
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(raw)
    with ckptfmt.open(bad) as checkpoint:
        assert checkpoint["layers/999/w"][0, 0] == 999  # of the last page
        with pytest.raises(CorruptError) as caught:
            checkpoint["layers/0/b"]
        assert caught.value.code == "manifest-digest"


def test_readers_of_1_0_refuse_it_by_name(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "KNOWN_FEATURES", frozenset())
    with pytest.raises(UnsupportedError, match="pages") as caught:
        ckptfmt.open(many)
    assert caught.value.code == "unknown-feature"


def test_it_is_migrated_repaired_and_converted_as_any_other(many: Path, tmp_path: Path) -> None:
    assert ckptfmt.repair(many, tmp_path / "again.ckpt").ok
    assert (tmp_path / "again.ckpt").stat().st_size >= many.stat().st_size
    with ckptfmt.open(tmp_path / "again.ckpt") as checkpoint:
        assert checkpoint.format == (1, 1)
        assert checkpoint["layers/12/w"][0, 0] == 12
    ckptfmt.convert(many, tmp_path / "many.safetensors", allow_loss=True)
    mapped = ckptfmt.load(many, mmap=True)
    assert mapped["layers"][42]["w"].tolist() == [[42] * 3] * 2
    assert list(ckptfmt.load(many, select="layers/42/**")["layers"][42]) == ["w", "b"]
    target = {"layers": [{"w": np.zeros((2, 3), np.float32), "b": np.zeros(1)} for _ in range(5000)], "step": 0}
    ckptfmt.load(many, into=target)
    assert target["layers"][4999]["b"] == [4999]


@given(st.text(max_size=6) | st.integers())
def test_names_lead_back_to_their_keys(key: Any) -> None:
    try:
        name = escape(key)
    except (UnicodeEncodeError, ckptfmt.CkptError):
        return
    assert unescape(name) == ((key,) if name else ())


NODES = st.recursive(
    st.integers(0, 300) | st.text(max_size=5) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=6).map(lambda items: ["list", items])
        | st.dictionaries(st.text("ab0/", max_size=3), inner, max_size=5).map(lambda d: ["dict", [*d], [*d.values()]])
        | inner.map(lambda child: ["tag", "example.org/x", None, child])
    ),
    max_leaves=40,
)


@given(NODES, st.integers(1, 60))
def test_a_cut_tree_is_the_tree(node: Any, size: int) -> None:
    """Cut at a few bytes, so that pages stand in pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree_pages, "SIZE", size)
        cutter = Cutter(3)
        root = cutter.cut(node)
    pages = TreePages(root, _Pages(cutter.pages), 3)  # type: ignore[arg-type]
    assert pages.whole == node


@given(st.lists(st.text("ab0/-\n7", max_size=4) | st.integers(0, 9), max_size=5))
def test_keys_are_plain_if_each_stands_for_itself_alone(keys: list[Any]) -> None:  # [PAGE-008]
    texts = [key for key in keys if isinstance(key, str)]
    is_plain = all(key and "/" not in key and not re.fullmatch("-?[0-9]+", key) for key in texts)
    assert has_plain_keys(["dict", keys, keys]) == is_plain


NUMBERS = st.sampled_from([0, 127, 128, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32])
LENGTHS = st.sampled_from([0, 31, 32, 255, 256, 65_535, 65_536])


@given(
    st.lists(NUMBERS.map(lambda number: ["tensor", number]))
    | st.lists(LENGTHS.map("x".__mul__))
    | st.lists(st.sampled_from(["", "é", "a" * 300, None, 7, ["tensor", 3], ["list", []], ["int", b"123456789"]]))
)
def test_what_nodes_take_is_known_without_packing_each(nodes: list[Any]) -> None:  # [PAGE-011]
    assert Cutter(0)._sizes(nodes).tolist() == [len(msgpack.packb(node)) for node in nodes]


class _Pages:
    """Pages in memory, of which the first three are of tensors."""

    def __init__(self, pages: list[bytes]) -> None:
        self._pages = [b"", b"", b"", *pages]
        self.memory, self.budget = 1 << 20, Budget(1 << 20)

    def __len__(self) -> int:
        return len(self._pages)

    def some(self, numbers: range) -> Any:
        return (self._pages[number] for number in numbers)
