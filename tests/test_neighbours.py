"""Small tensors that are read together."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.reading.neighbours import RUN, SLAB, SMALL, groups_of
from ckptfmt.writing.encoder import encode

DTYPES = [np.float32, np.int8, np.bool_, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float6_e2m3fn, ml_dtypes.int4]
SHAPES = [(), (1,), (3,), (5, 7), (0,), (512,), (3, 2048), (9000,), (300, 256), (1,) * 64]


def tree_of(kinds: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(len(kinds))
    return {f"t{n}": rng.integers(0, 2, SHAPES[s]).astype(DTYPES[d]) for n, (d, s) in enumerate(kinds)}


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("paged", [False, True])
@given(kinds=st.lists(st.tuples(st.sampled_from(range(len(DTYPES))), st.sampled_from(range(len(SHAPES)))), max_size=40))
def test_each_is_its_own(layout: str, paged: bool, kinds: list[tuple[int, int]], tmp_path_factory) -> None:
    """Whatever lies beside a tensor, its elements come back, and no other tensor changes with them."""
    tree = tree_of(kinds * 3)
    path = tmp_path_factory.mktemp("own") / "c.ckpt"
    ckptfmt.save(path, tree, layout=layout, paged=paged, durable=False)
    found = ckptfmt.load(path)
    assert found.keys() == tree.keys()
    for name, array in found.items():
        assert array.dtype == tree[name].dtype
        assert array.shape == tree[name].shape
        assert array.tobytes() == tree[name].tobytes()
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.flags.c_contiguous
        array[...] = 0
        tree[name][...] = 0
        assert all(found[other].tobytes() == tree[other].tobytes() for other in tree)
    assert encode(found).copied_views == ()


def test_one_that_is_kept_keeps_little(tmp_path: Path) -> None:
    """The memory that a small tensor shares with others is no more than 64 KiB."""
    path = tmp_path / "c.ckpt"
    ckptfmt.save(path, {f"t{n}": np.full(n % 7 * 100 + 1, n, np.float32) for n in range(20_000)})
    for array in ckptfmt.load(path).values():
        owner = array if array.base is None else array.base
        assert owner.flags.owndata
        assert owner.nbytes <= SLAB


def test_the_one_that_is_damaged_is_named(tmp_path: Path) -> None:
    """Among equal and unequal neighbours."""
    path = tmp_path / "c.ckpt"
    tree = {f"t{n}": np.full(64 if n < 20 else n, n, np.float64) for n in range(40)}
    ckptfmt.save(path, tree, paged=True)
    whole = path.read_bytes()
    for name in ("t7", "t19", "t33"):
        at = whole.index(tree[name].tobytes())
        path.write_bytes(whole[: at + 5] + bytes([whole[at + 5] ^ 1]) + whole[at + 6 :])
        with pytest.raises(ckptfmt.CkptError, match=f"tensor '{name}' is damaged") as raised:
            ckptfmt.load(path)
        assert raised.value.code == "block-digest"
        others = ckptfmt.load(path, select=[other for other in tree if other != name])
        assert all(np.array_equal(others[other], tree[other]) for other in others)


@pytest.mark.parametrize("layout", ["file", "packed"])
def test_what_lies_between_them_is_read_where_it_is_little(tmp_path: Path, layout: str) -> None:
    """Up to SMALL bytes; and no more than is between the first and the last of those that are read together."""
    sizes = {
        "a": 100,
        "little": SMALL - 4096,
        "b": 100,
        "c": 100,
        "much": SMALL + 8192,
        "d": 100,
        "more": 2 * SMALL,
        "e": 100,
    }
    tree = {name: np.full(size, number, np.uint8) for number, (name, size) in enumerate(sizes.items())}
    ckptfmt.save(tmp_path / "c.ckpt", tree, layout=layout, paged=False, durable=False)
    small = ["a", "b", "c", "d", "e"]
    with ckptfmt.open(tmp_path / "c.ckpt") as checkpoint:
        found = checkpoint.load(select=small)
        assert all(np.array_equal(found[name], tree[name]) for name in small)
        together = SMALL - 4096 + 300
        assert together + 200 <= checkpoint.bytes_read <= together + 200 + 4096


@given(sizes=st.lists(st.tuples(st.integers(0, 3 * SMALL), st.integers(1, SMALL)), min_size=1, max_size=60))
@example(sizes=[(0, 5), (SMALL, 5), (SMALL + 1, 5), (SMALL, 1)])
def test_groups_are_as_large_as_they_may_be(sizes: list[tuple[int, int]]) -> None:
    """Gaps and lengths of extents, one after another."""
    ends = np.cumsum([gap + length for gap, length in sizes])
    starts = ends - [length for _, length in sizes]
    groups = list(groups_of(starts, ends))
    assert [n for first, stop in groups for n in range(first, stop)] == list(range(len(sizes)))
    for first, stop in groups:
        assert (starts[first + 1 : stop] - ends[first : stop - 1] <= SMALL).all()
        assert ends[stop - 1] - starts[first] <= RUN
        assert stop == len(ends) or starts[stop] - ends[stop - 1] > SMALL or ends[stop] - starts[first] > RUN
