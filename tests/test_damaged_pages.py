"""Pages that are damaged or lie: what is refused, what is still given, and what a whole verification and a repair make
of them. [PAGE-003] [PAGE-009]

The inputs that must be refused stand in the conformance suite; here is what only this package has.
"""

from __future__ import annotations

import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.errors import CkptError
from ckptfmt.format import manifest as manifests
from ckptfmt.format import tensor_pages, tree_pages
from ckptfmt.format.names import unescape
from ckptfmt.format.pages import Pages, encode_pages
from ckptfmt.format.tree import MAX_DEPTH
from ckptfmt.format.tree_pages import TreePages
from ckptfmt.reading.checkpoint import StoredCheckpoint
from ckptfmt.testing import equal_trees
from conformance.build import Checkpoint
from conformance.cases import flatten
from conformance.model import tensor
from conformance.pages import Paging

TREE = {"l": list(range(30_000)), "t": np.array(["2020-01-01"], "M8[D]"), "w": np.arange(5.0)}


def saved(folder: Path, tree: Any, **options: Any) -> Path:
    path = folder / "x.ckpt"
    ckptfmt.save(path, tree, paged=True, durable=False, **options)
    return path


def tree_of(root: Any, *pages: Any, **where: Any) -> TreePages:
    """A tree whose pages hold these nodes."""
    packed = [node if isinstance(node, bytes) else msgpack.packb(node) for node in pages]
    data = b"".join(packed)
    columns = encode_pages(0, packed)
    read = lambda _, offset, length: data[offset : offset + length]  # noqa: E731
    return TreePages(root, Pages(0, list(map(len, packed)), columns["sha256"], read, **where), 0)


@pytest.mark.parametrize(
    "tree", [{}, [1, 2], "x" * 70_000, {"a": "x" * 70_000}, np.arange(3), {"a": [np.zeros((0, 3))]}]
)
def test_few_pages_or_none(tmp_path: Path, tree: Any) -> None:
    """Also of trees without tensors, and of those with nothing that stands in a page."""
    path = saved(tmp_path, tree)
    assert equal_trees(ckptfmt.load(path), tree)
    assert ckptfmt.verify(path).ok


def test_times_are_times_however_they_are_found(tmp_path: Path) -> None:
    """Though the name of a tensor leads to it past the tree, where its tag is."""
    with ckptfmt.open(saved(tmp_path, TREE)) as checkpoint:
        assert checkpoint["t"].dtype == np.dtype("M8[D]")
        assert checkpoint["t"].read() == TREE["t"]
        assert checkpoint["w"].dtype == np.float64


@pytest.mark.parametrize("name", ["~4", "a~", "~GG", "~FF", "9" * 5000, "a/~zz/b"])
def test_names_that_no_path_gives(name: str) -> None:
    """`a~` is found by a whole verification alone."""
    try:
        assert unescape(name) == ("a",)
    except CkptError as error:
        assert error.code == "bad-manifest"


HOSTILE: dict[str, tuple[Any, list[Any]]] = {
    "itself": (["page", 0], [["list", [["page", 0]]]]),
    "a later one": (["page", 0], [["list", [["page", 1]]], 1]),
    "none": (["page", 5], []),
    "no number": (["page", True], [1, 1]),
    "a page": (["page", 1], [1, ["page", 0]]),
    "joined": (["page", 1], [["list", [1]], ["joined", [["page", 0]], [1]]]),
    "tags without end": (["page", 999], [1, *(["tag", "x", None, ["page", at]] for at in range(999))]),
    "a tag of one item": (["page", 0], [["tag"]]),
    "nothing": (["page", 0], [[]]),
}


def nested(depth: int) -> Any:
    node: Any = ["list", [1]]
    for _ in range(depth):
        node = ["joined", [node], [1]]
    return node


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("path", [(), (0,), (0, 0), ("a",), ("a", 0)])
def test_references_that_lead_nowhere(name: str, path: tuple[Any, ...]) -> None:
    root, pages = HOSTILE[name]
    for outer in (root, ["dict", ["a"], [root]], ["joined", [root], [1]], ["list", [root, root]]):
        whole = tree_of(outer, *pages)
        try:
            found = whole.leaf(path)
        except CkptError as error:
            assert error.code == "bad-manifest"
        else:
            assert found is None or type(found) in (int, list)
        with pytest.raises(CkptError, match="bad-manifest"):
            manifests.tree.check(whole.whole, ())


@pytest.mark.parametrize("depth", [1, 500])
def test_joined_nodes_in_joined_nodes(depth: int) -> None:
    for root, pages in ((nested(depth + 1), []), (["list", [["page", 0]]], [["list", [nested(depth + 1)]]])):
        with pytest.raises(CkptError, match="PAGE-007"):
            _ = tree_of(root, *pages).whole
    with pytest.raises(CkptError, match="PAGE-007"):
        tree_of(nested(depth + 1)).leaf((0,))


def test_any_encoding_of_a_reference() -> None:
    """[MAN-012]"""
    long = b"\x92\xd9\x04list\x91\xdd\0\0\0\2\xd9\x04page\xd3" + bytes(8)
    assert tree_of(["page", 1], "x", long).whole == ["list", ["x"]]


def test_pages_take_no_more_memory_together_than_a_manifest_may() -> None:
    """Each may take much, all of them may not. [LIM-007]"""
    page = ["list", [[]] * 20_000]  # 72 bytes of memory for each of these
    pages = [page] * 4
    tree = tree_of(["list", [["page", number] for number in range(len(pages))]], *pages)
    tree._pages.budget.limit = 4 << 20
    with pytest.raises(CkptError, match="limit-exceeded"):
        _ = tree.whole
    assert tree_of(["page", 0], page).whole == page


def test_pages_in_an_object_of_their_own_are_stored_bytes_too() -> None:
    """So much more their values may take, however small the manifest is, but each page counts once. [LIM-007]"""
    beside: dict[str, Any] = {"object": "pages.bin", "memory": 1000}
    text = ["x" * 5000]
    tree = tree_of(["list", [["page", 0], ["page", 1]]], ["list", text], ["list", text], **beside)
    assert tree.node(0) == tree.node(0) == ["list", text]
    assert tree._pages.memory == 1000 + 13 * (tree._pages.nbytes // 2)
    assert tree.whole == ["list", [["list", text], ["list", text]]]
    bomb = ["list", [[]] * 20_000]
    for whole in (False, True):
        tree = tree_of(["page", 0], bomb, **beside)
        with pytest.raises(CkptError, match="limit-exceeded"):
            tree.whole if whole else tree.node(0)


def test_deep_trees_are_cut_and_read(tmp_path: Path) -> None:
    tree: Any = list(range(30_000))
    for _ in range(MAX_DEPTH - 1):
        tree = [tree]
    assert equal_trees(ckptfmt.load(saved(tmp_path, tree)), tree)


# ---- damage


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def paged(path: Path) -> list[tuple[int, int]]:
    """Offset and length of each page of a checkpoint of four pages of tensors."""
    tree = {**{f"t{number}": tensor("int16", (3,), str(number)) for number in range(8)}, "text": "x" * 200}
    path.write_bytes(flatten(Checkpoint(tree, paged=Paging(2, 100), digest="xxh3-128").build())[""])
    data = path.read_bytes()
    offset, length = map(int, data[data.rindex(b"manifest=") + 9 :].split(b" ")[0].split(b"+"))
    pages = msgpack.unpackb(data[offset : offset + length])["pages"]
    lengths = np.frombuffer(pages["length"], "<u8").tolist()
    return [(pages["offset"] + sum(lengths[:at]), lengths[at]) for at in range(len(lengths))]


def test_a_damaged_page_is_damage_of_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    pages = paged(path)
    flip(path, pages[1][0] + 5)
    with ckptfmt.open(path) as checkpoint:
        for name in ("t0", "t1", "t4", "t7"):
            assert checkpoint[name].read().shape == (3,)
        assert checkpoint["text"] == "x" * 200
        for name in ("t2", "t3"):
            with pytest.raises(ckptfmt.CorruptError, match="manifest-digest"):
                checkpoint[name]
    report = ckptfmt.verify(path)
    assert [(damage.code, damage.where, damage.offset) for damage in report.damage] == [
        ("manifest-digest", "manifest", pages[1][0])
    ]
    assert report.blocks == 6


def test_damage_of_two_pages_and_a_block(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    pages = paged(path)
    data = path.read_bytes()
    place = data.index(np.asarray(ckptfmt.load(path)["t7"]).tobytes())
    for offset in (pages[0][0], pages[-1][0], place):
        flip(path, offset)
    found = [(damage.code, damage.tensor, damage.offset) for damage in ckptfmt.verify(path).damage]
    assert sorted(found, key=str) == sorted(
        [
            ("manifest-digest", None, pages[0][0]),
            ("manifest-digest", None, pages[-1][0]),
            ("block-digest", "t7", place),
        ],
        key=str,
    )


def test_repair_reads_pages_where_the_record_is_lost(tmp_path: Path) -> None:
    source, target = saved(tmp_path, TREE), tmp_path / "y.ckpt"
    flip(source, source.stat().st_size - 3)
    report = ckptfmt.repair(source, target)
    assert report.ok
    assert equal_trees(ckptfmt.load(target), TREE)


# ---- what is whole beside damaged pages


def leaves_of(tree: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Every leaf by its path."""
    if not isinstance(tree, dict | list | tuple):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {at: leaf for key, item in items for at, leaf in leaves_of(item, (*path, key)).items()}


PAGED: dict[str, Any] = {
    "dicts": {f"t{number}": np.full(3, number, np.int16) for number in range(4)},
    "ints": {number: np.full(2, number, np.int32) for number in range(5, 8)},
    "list": [np.full(2, number, np.float32) for number in range(3)],
    "mixed": ("x" * 150, np.arange(4.0), None),
    "text": "y" * 150,
    "words": ["z" * 50] * 9,
}


TENSOR_PAGES = 6  # of eleven tensors
PAGES = TENSOR_PAGES + 15


def in_pages(path: Path) -> list[int]:
    """Where each page of a checkpoint of `PAGED` begins, of which each has two tensors or 100 bytes; those of tensors
    first, then one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_pages, "ROWS", 2)
        patch.setattr(tree_pages, "SIZE", 100)
        ckptfmt.save(path, PAGED, paged=True, durable=False)
    with StoredCheckpoint(path) as stored:
        assert stored.manifest.pages is not None
        pages = stored.manifest.pages._pages
    assert len(pages) > TENSOR_PAGES
    return list(accumulate(pages.lengths[:-1], initial=pages.offset))


@pytest.mark.parametrize("page", range(PAGES))
def test_what_other_pages_tell_of_is_whole(tmp_path: Path, page: int) -> None:
    """Whichever page is damaged: each tensor is at its path as it was, or named as lost, and so is what is there."""
    source, target = tmp_path / "x.ckpt", tmp_path / "y.ckpt"
    pages = in_pages(source)
    assert len(pages) == PAGES
    flip(source, pages[page] + 1)
    report = ckptfmt.repair(source, target)
    assert not report.ok
    assert [damage.offset for damage in report.damage] == [pages[page]]
    was, now = leaves_of(PAGED), leaves_of(ckptfmt.load(target))
    lost = {one.path for one in report.lost}
    arrays = {path for path, leaf in was.items() if isinstance(leaf, np.ndarray)}
    assert len(lost) + report.tensors == len(arrays)
    assert bool(lost) is (page < TENSOR_PAGES)
    for path in arrays - lost:
        np.testing.assert_array_equal(now[path], was[path])
    for path, leaf in now.items():
        assert leaf is None or isinstance(leaf, np.ndarray) or leaf == was[path]
    assert ckptfmt.verify(target).ok


@settings(max_examples=20)
@given(st.sets(st.integers(0, PAGES - 1), min_size=2))
def test_any_pages_may_be_damaged(pages: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "x.ckpt", Path(folder) / "y.ckpt"
        places = in_pages(source)
        for page in pages:
            flip(source, places[page] + 1)
        try:
            report = ckptfmt.repair(source, target)
        except ckptfmt.CorruptError as error:
            assert error.code == "manifest-digest"  # there is nothing left
            assert pages >= set(range(TENSOR_PAGES))
            return
        assert len(report.damage) == len(pages)
        was, now = leaves_of(PAGED), leaves_of(ckptfmt.load(target))
        for path in {path for path, leaf in now.items() if isinstance(leaf, np.ndarray)}:
            np.testing.assert_array_equal(now[path], was[path])


def test_a_real_checkpoint_of_many_tensors_loses_a_page_of_them(tmp_path: Path) -> None:
    tree = {"step": 7, "layers": {f"l{number:05}": np.full(2, number) for number in range(10_000)}}
    source, target = saved(tmp_path, tree), tmp_path / "y.ckpt"
    with StoredCheckpoint(source) as stored:
        assert stored.manifest.pages is not None
        offset = stored.manifest.pages.extent[0]
    flip(source, offset + 1)
    report = ckptfmt.repair(source, target)
    assert len(report.lost) == 4096
    assert (report.lost[0].dtype, report.lost[0].shape, report.lost[0].bytes) == (None, None, None)
    rest = ckptfmt.load(target)
    assert rest["step"] == 7
    assert len(rest["layers"]) == 10_000 - 4096
    assert all(array[0] == int(name[1:]) for name, array in rest["layers"].items())
    with ckptfmt.open(target) as checkpoint:
        assert checkpoint.provenance[-1]["lost"][0] == {
            "name": "layers/l00000",
            "dtype": None,
            "shape": None,
            "bytes": None,
        }


def test_a_page_beyond_the_limit_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:  # [LIM-011]
    path = saved(tmp_path, {"a": 1, "long": "x" * 100_000, "w": np.arange(5.0)})
    limits = ckptfmt.Limits(manifest=50_000)
    with ckptfmt.open(path, limits=limits) as checkpoint:
        assert checkpoint["w"].read().tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(CkptError, match="too large") as caught:
            checkpoint["long"]
    assert caught.value.code == "limit-exceeded"
    assert ckptfmt.load(path, limits=ckptfmt.Limits(manifest=200_000))["a"] == 1
