"""Sources: tensors that a process holds in shards, or gives part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.errors import CkptError
from ckptfmt.frameworks.sources import Lazy, Shard, Sharded, overlap, whole, within
from ckptfmt.testing import assert_same_tree

WHOLE = np.arange(60, dtype=np.float32).reshape(6, 10)


def shard(*region: slice, source: Any = WHOLE) -> Shard:
    return Shard(tuple(axis.start for axis in region), source[region])


def sharded(*shards: Shard, identity: Any = None) -> Sharded:
    return Sharded((6, 10), np.dtype(np.float32), shards, identity)


QUARTERS = [shard(slice(r, r + 3), slice(c, c + 5)) for r in (0, 3) for c in (0, 5)]


def test_regions() -> None:
    assert whole((2, 3)) == (slice(0, 2), slice(0, 3))
    assert whole(()) == ()
    one, other = (slice(0, 3), slice(0, 5)), (slice(2, 6), slice(4, 9))
    assert overlap(one, other) == (slice(2, 3), slice(4, 5))
    assert overlap(one, (slice(3, 4), slice(0, 5))) is None
    assert within((slice(1, 2), slice(1, 4)), QUARTERS[0]) == (slice(1, 2), slice(1, 4))
    assert within((slice(4, 5), slice(6, 7)), QUARTERS[3]) == (slice(1, 2), slice(1, 2))
    assert within((slice(2, 4), slice(0, 1)), QUARTERS[0]) is None


def test_a_region_over_several_shards() -> None:
    tensor = sharded(*QUARTERS)
    for region in (whole((6, 10)), (slice(2, 4), slice(4, 6)), (slice(0, 1), slice(0, 1)), (slice(5, 6), slice(0, 10))):
        assert np.array_equal(tensor[region], WHOLE[region])
    assert np.shares_memory(tensor[slice(4, 6), slice(6, 8)], WHOLE), "within one shard nothing is copied"


def test_what_is_not_held_is_never_given() -> None:
    tensor = sharded(*QUARTERS[:3])
    assert np.array_equal(tensor[slice(0, 3), slice(0, 10)], WHOLE[:3])
    for region in (whole((6, 10)), (slice(3, 4), slice(5, 6)), (slice(2, 4), slice(5, 6))):
        with pytest.raises(CkptError) as caught:
            tensor[region]
        assert caught.value.code == "shards-missing"


def test_equal_shards_are_one() -> None:
    """As devices of one process hold them when a tensor is replicated."""
    tensor = sharded(*QUARTERS[:2], *QUARTERS[:2])
    assert len(tensor.shards) == 2
    with pytest.raises(CkptError, match="holds no shard"):
        tensor[whole((6, 10))]
    scalar = Sharded((), np.dtype(np.int8), (Shard((), np.array(7, np.int8)),) * 3)
    assert len(scalar.shards) == 1
    assert scalar[()] == 7


def test_shards_that_overlap_are_refused() -> None:
    """Together they would be as large as the tensor, and yet leave elements out."""
    with pytest.raises(CkptError) as caught:
        sharded(shard(slice(0, 3), slice(0, 10)), shard(slice(2, 5), slice(0, 10)))
    assert caught.value.code == "shards-overlap"
    with pytest.raises(CkptError) as caught:
        sharded(shard(slice(0, 3), slice(0, 10)), shard(slice(0, 4), slice(0, 10)))
    assert caught.value.code == "shards-overlap"
    empty = shard(slice(2, 2), slice(0, 10))
    assert len(sharded(*QUARTERS, empty).shards) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        Shard((4, 0), WHOLE[:3, :5]),
        Shard((-1, 0), WHOLE[:3, :5]),
        Shard((0, 6), WHOLE[:3, :5]),
        Shard((0,), WHOLE[:3, :5]),
        Shard((0, 0), WHOLE[0, :5]),
        Shard((0, 0), WHOLE[:3, :5].astype(np.float64)),
    ],
)
def test_shards_that_do_not_fit_are_refused(wrong: Shard) -> None:
    with pytest.raises(CkptError, match="does not fit") as caught:
        sharded(wrong)
    assert caught.value.code == "unsupported-leaf"


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_process_that_holds_all_shards_saves_alone(tmp_path: Path, layout: str, compression: str | None) -> None:
    tree = {"x": sharded(*QUARTERS), "y": [sharded(*QUARTERS[::-1], identity="tied")] * 2, "z": WHOLE}
    ckptfmt.save(tmp_path / "x.ckpt", tree, layout=layout, compression=compression, durable=False)
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), {"x": WHOLE, "y": [WHOLE.copy()] * 2, "z": WHOLE.copy()})


def test_aliases_by_identity(tmp_path: Path) -> None:
    tree = [sharded(*QUARTERS, identity="w"), sharded(*QUARTERS, identity="w"), sharded(*QUARTERS)]
    assert ckptfmt.save(tmp_path / "x.ckpt", tree, durable=False).tensors == 2
    one, two, three = ckptfmt.load(tmp_path / "x.ckpt")
    assert one is two
    assert one is not three


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_process_that_holds_a_part_cannot_save_alone(tmp_path: Path, layout: str) -> None:
    with pytest.raises(ckptfmt.InputError, match="only a part") as caught:
        ckptfmt.save(tmp_path / "x.ckpt", {"a": {"b": sharded(*QUARTERS[:3])}}, layout=layout)
    assert (caught.value.code, caught.value.tensor) == ("shards-missing", "a/b")
    with pytest.raises(ckptfmt.InputError):
        ckptfmt.save(tmp_path / "x.ckpt", Sharded((), np.dtype(np.int8), ()), layout=layout)
    assert list(tmp_path.iterdir()) == []


class Counting(Lazy):
    """A tensor that is nowhere: its elements are made when they are asked for."""

    __slots__ = ("regions", "shape")
    dtype = np.dtype(np.int64)

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.regions: list[tuple[int, ...]] = []

    def __getitem__(self, region: tuple[slice, ...]) -> Any:
        self.regions.append(tuple(axis.stop - axis.start for axis in region))
        strides = np.cumprod((1, *self.shape[:0:-1]))[::-1]
        axes = np.ix_(*(np.arange(axis.start, axis.stop) for axis in region))
        return sum((axis * stride for axis, stride in zip(axes, strides, strict=True)), np.int64(0))


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_source_is_read_part_by_part(tmp_path: Path, layout: str) -> None:
    source = Counting((5000, 1000))  # 40 MB
    ckptfmt.save(tmp_path / "x.ckpt", {"x": source}, layout=layout, durable=False)
    expected = np.arange(5_000_000).reshape(5000, 1000)
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), {"x": expected})
    assert max(np.prod(region) * 8 for region in source.regions) <= 8 << 20
    assert sum(np.prod(region) for region in source.regions) == expected.size, "each element is asked for once"
