"""Who writes what when many processes save: every chunk of every tensor is written once, by a process that holds it."""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import CkptError
from ckptfmt.format.codecs import RAW, Codec, codec_asked
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.parallel import plan as plans
from ckptfmt.parallel.plan import WritePlan, plan
from ckptfmt.parallel.proposal import Boxes

ZSTD = codec_asked("zstd")


class Box(NamedTuple):
    """A part of a tensor that a rank holds: first element and extent along each axis."""

    tensor: int
    start: tuple[int, ...]
    extent: tuple[int, ...]


def boxes(*held: Box, axes: int | None = None) -> Boxes:
    """What one rank holds."""
    axes = max((len(box.start) for box in held), default=0) if axes is None else axes
    start, extent = np.zeros((2, len(held), axes), np.int64)
    for row, box in enumerate(held):
        start[row, : len(box.start)], extent[row, : len(box.extent)] = box.start, box.extent
    return Boxes(np.array([box.tensor for box in held], np.int64), start, extent)


def plan_one(shape: tuple[int, ...], held: list[list[Box]], dtype: str = "uint8", codec: Codec = RAW) -> WritePlan:
    return plan([("x", dtype, shape, codec)], [boxes(*mine) for mine in held])


def along(lengths: list[int], axis: int = 0, others: tuple[int, ...] = ()) -> list[list[Box]]:
    """One shard a rank, of these lengths along one axis; none for a length of 0."""
    held, start = [], 0
    for length in lengths:
        low, extent = [0] * len(others), list(others)
        low.insert(axis, start)
        extent.insert(axis, length)
        held.append([Box(0, tuple(low), tuple(extent))] if length else [])
        start += length
    return held


def owners(made: WritePlan) -> Any:
    """The rank that writes each chunk, in the shape of the grid of the only tensor."""
    return made.owners.reshape(made.specs[0].chunk_counts).tolist()


def holds(box: Box, region: tuple[slice, ...]) -> bool:
    sides = zip(box.start, box.extent, region, strict=True)
    return all(low <= side.start and side.stop <= low + n for low, n, side in sides)


def check_cover(made: WritePlan, shapes: list[tuple[int, ...]], held: list[list[Box]]) -> None:
    """Every chunk is written by a rank that has a box with all of its elements."""
    assert len(made.owners) == sum(spec.chunks for spec in made.specs)
    number = 0
    for tensor, (spec, shape) in enumerate(zip(made.specs, shapes, strict=True)):
        assert spec.shape == shape
        written = np.zeros(shape, np.int64)
        for chunk in range(spec.chunks):
            region = spec.chunk_region(chunk)
            written[region] += 1
            mine = [box for box in held[made.owners[number]] if box.tensor == tensor]
            assert any(holds(box, region) for box in mine)
            number += 1
        assert (written == 1).all()


# ---- shardings that are common


@pytest.mark.parametrize(
    ("lengths", "side"),
    [
        ([4, 4, 4], 4),
        ([3, 3, 3, 1], 3),  # as torch.chunk cuts 10 into 4
        ([2, 2, 1, 0], 2),  # and 5 into 4: the last rank holds nothing
        ([10], 10),
        ([0, 0, 7, 0], 7),
        ([1, 1, 1], 1),
        ([4, 2, 4, 2], 2),  # what they have in common
        ([6, 6, 4], 6),
        ([2, 6, 4], 2),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_sharded_along_an_axis(lengths: list[int], side: int, axis: int) -> None:
    held = along(lengths, axis, (5,))
    shape = [5]
    shape.insert(axis, sum(lengths))
    made = plan_one(tuple(shape), held)
    assert made.specs[0].grid[axis] == side
    assert made.specs[0].grid[1 - axis] == 5
    check_cover(made, [tuple(shape)], held)


def test_a_mesh() -> None:
    """(3, 2) ranks, both axes uneven."""
    rows, columns = [(0, 3), (3, 3), (6, 1)], [(0, 4), (4, 3)]
    cells = [*product(rows, columns)]
    held = [[Box(0, (r, c), (m, n))] for (r, m), (c, n) in cells]
    made = plan_one((7, 7), held)
    assert made.specs[0].grid == (3, 4)
    assert owners(made) == [[0, 1], [2, 3], [4, 5]]
    replicated = plan_one((7, 7), [[*one, *other] for one, other in zip(held, held[::-1], strict=True)])
    check_cover(replicated, [(7, 7)], [[*one, *other] for one, other in zip(held, held[::-1], strict=True)])


def test_odd_shapes() -> None:
    """0-d, without elements, without any tensor."""
    assert owners(plan_one((), [[], [Box(0, (), ())], [Box(0, (), ())]])) == 1
    for shape in ((0,), (3, 0, 2)):
        made = plan_one(shape, [[], []])
        assert made.specs[0].chunks == 0
        assert made.owners.tolist() == []
    made = plan([], [boxes(), boxes()])
    assert (made.specs, made.owners.tolist()) == ((), [])


def test_nothing_is_held() -> None:
    for shape in ((), (3,), (2, 2)):
        with pytest.raises(CkptError, match="no rank holds") as caught:
            plan_one(shape, [[], []])
        assert (caught.value.code, caught.value.tensor) == ("shards-missing", "x")


def test_tensors_of_different_ranks_together() -> None:
    """Boxes of fewer axes are padded, whichever rank holds them."""
    shapes: list[tuple[int, ...]] = [(), (4,), (2, 4, 6)]
    held = [[Box(0, (), ()), Box(2, (0, 0, 0), (2, 4, 6))], [Box(1, (0,), (4,)), Box(0, (), ())], []]
    made = plan([(str(i), "float32", shape, RAW) for i, shape in enumerate(shapes)], [boxes(*mine) for mine in held])
    check_cover(made, shapes, held)


# ---- any cover


@st.composite
def covers(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """A shape, and boxes (start, extent) that cover it once: it is cut in two, and the parts again."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    parts = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 5))):
        start, extent = parts.pop(draw(st.integers(0, len(parts) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        cut = draw(st.integers(0, extent[axis]))
        for low, high in ((0, cut), (cut, extent[axis])):
            if high > low:
                corner, sides = list(start), list(extent)
                corner[axis], sides[axis] = start[axis] + low, high - low
                parts.append((tuple(corner), tuple(sides)))
    return shape, parts


@st.composite
def held_covers(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], list[list[Box]]]:
    """Shapes of tensors and what each rank holds: each part is held by one rank or more; a rank may hold nothing."""
    ranks = draw(st.integers(1, 5))
    held: list[list[Box]] = [[] for _ in range(ranks)]
    shapes = []
    for tensor in range(draw(st.integers(1, 3))):
        shape, parts = draw(covers())
        shapes.append(shape)
        for start, extent in parts:
            for rank in draw(st.sets(st.integers(0, ranks - 1), min_size=1)):
                held[rank].append(Box(tensor, start, extent))
    return shapes, held


def planned(shapes: list[tuple[int, ...]], held: list[list[Box]], codec: Codec = RAW) -> WritePlan:
    tensors = [(f"t{tensor}", "float32", shape, codec) for tensor, shape in enumerate(shapes)]
    return plan(tensors, [boxes(*mine) for mine in held])


@given(held_covers(), st.sampled_from([RAW, ZSTD]))
def test_every_chunk_is_written_once(case: tuple[list[tuple[int, ...]], list[list[Box]]], codec: Codec) -> None:
    shapes, held = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "COMPRESSED_CHUNK", 64)
        check_cover(planned(shapes, held, codec), shapes, held)


@given(held_covers(), st.data())
def test_a_hole_is_found(case: tuple[list[tuple[int, ...]], list[list[Box]]], data: st.DataObject) -> None:
    shapes, held = case
    lost = data.draw(st.sampled_from([box for mine in held for box in mine]))
    without = [[box for box in mine if box != lost] for mine in held]
    with pytest.raises(CkptError) as caught:
        planned(shapes, without)
    assert (caught.value.code, caught.value.tensor) == ("shards-missing", f"t{lost.tensor}")


@given(held_covers(), st.data())
def test_an_overlap_is_found(case: tuple[list[tuple[int, ...]], list[list[Box]]], data: st.DataObject) -> None:
    """One more box, anywhere, that is none of those that are there."""
    shapes, held = case
    tensor = data.draw(st.integers(0, len(shapes) - 1))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shapes[tensor])
    extent = tuple(data.draw(st.integers(1, n - low)) for low, n in zip(start, shapes[tensor], strict=True))
    more = Box(tensor, start, extent)
    rank = data.draw(st.integers(0, len(held) - 1))
    held = [[*mine, more] if number == rank else mine for number, mine in enumerate(held)]
    if sum(box == more for mine in held for box in mine) > 1:
        check_cover(planned(shapes, held), shapes, held)
        return
    with pytest.raises(CkptError) as caught:
        planned(shapes, held)
    assert (caught.value.code, caught.value.tensor) == ("shards-overlap", f"t{tensor}")


# ---- grids


def test_bounds_with_too_little_in_common_are_refused() -> None:
    """Which would make chunks of a row each."""
    lengths = [12_565, 12_564, 12_564, 12_564]  # 50,257 rows cut as evenly as can be
    with pytest.raises(CkptError) as caught:
        plan_one((50_257, 8), along(lengths, 0, (8,)))
    assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "x")
    assert "50,257 chunks" in str(caught.value)
    made = plan_one((50_257, 8), along([12_565, 12_565, 12_565, 12_562], 0, (8,)))
    assert made.owners.tolist() == [0, 1, 2, 3]


def test_packed_elements_are_cut_between_bytes() -> None:
    made = plan_one((3, 10), along([4, 4, 2], 1, (3,)), "int4")
    assert made.specs[0].grid == (3, 2)
    assert made.owners.tolist() == [0, 1, 2]
    made = plan_one((3, 9), along([4, 5], 1, (3,)), "int4")  # the last byte of a row is half empty
    assert made.specs[0].grid == (3, 2)
    assert made.owners.tolist() == [0, 1, 1]
    made = plan_one((3, 5), along([1, 2], 0, (5,)), "int4")  # rows are never cut
    assert made.specs[0].grid == (1, 3)
    for dtype, lengths in (("int4", [3, 6]), ("uint2", [4, 2, 3]), ("int1", [4, 4])):
        with pytest.raises(CkptError, match="multiples of") as caught:
            plan_one((sum(lengths),), along(lengths), dtype)
        assert caught.value.code == "unsupported-dtype"


@pytest.mark.parametrize("dtype", ["int4", "uint2", "int1"])
def test_packed_elements_along_any_axis(dtype: str) -> None:
    per = DTYPES[dtype].per
    held = along([per, per, 2 * per, 1], 1, (2,))
    made = plan_one((2, 4 * per + 1), held, dtype)
    check_cover(made, [(2, 4 * per + 1)], held)


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    st.integers(1, 4),
    st.sampled_from(["uint8", "float32", "int4"]),
    st.sampled_from([16, 64, 1 << 10]),
)
def test_compressed_chunks_lie_within_shards(shape: tuple[int, ...], ranks: int, dtype: str, limit: int) -> None:
    """Every shard is made of whole chunks of about the wanted size."""
    whole = (shape[0] * 8 * ranks, *(8 * n for n in shape[1:]))
    held = along([shape[0] * 8] * ranks, 0, whole[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "COMPRESSED_CHUNK", limit)
        made = plan_one(whole, held, dtype, ZSTD)
    check_cover(made, [whole], held)
    spec = made.specs[0]
    assert spec.chunk_nbytes <= limit
    assert np.bincount(made.owners).tolist() == [spec.chunks // ranks] * ranks


def test_a_compressed_shard_of_a_prime_length_stays_whole() -> None:
    """Rather than becoming millions of chunks."""
    prime = 33_554_467
    made = plan_one((2 * prime,), along([prime, prime]), codec=ZSTD)
    assert made.specs[0].grid == (prime,)
    assert plan_one((prime,), [[Box(0, (0,), (prime,))]], codec=ZSTD).specs[0].chunks == 3, "nobody cut it"


# ---- the work of each rank


def test_replicated_tensors_are_shared_out() -> None:
    sizes = [100, 1, 1, 50, 50, 3, 97]
    held = [[Box(tensor, (0,), (size,)) for tensor, size in enumerate(sizes)] for _ in range(3)]
    made = planned([(size,) for size in sizes], held)
    loads = np.bincount(made.owners, weights=sizes, minlength=3)
    assert loads.sum() == sum(sizes)
    assert loads.max() <= sum(sizes) / 3 + max(sizes)
    many = [[Box(tensor, (0,), (10,)) for tensor in range(90)] for _ in range(3)]
    assert np.bincount(planned([(10,)] * 90, many).owners).tolist() == [30, 30, 30]


def test_who_writes_more_of_one_tensor_writes_less_of_another() -> None:
    held = [[Box(0, (0,), (1000,)), Box(1, (0,), (10,))], [Box(1, (0,), (10,))]]
    assert planned([(1000,), (10,)], held).owners.tolist() == [0, 1]


@given(st.lists(covers(), min_size=1, max_size=4), st.integers(1, 4))
def test_no_rank_writes_far_more_than_the_others(cuts: list[Any], ranks: int) -> None:
    """Where all hold everything, none writes more than its share and one box."""
    shapes = [shape for shape, _ in cuts]
    mine = [Box(tensor, *part) for tensor, (_, parts) in enumerate(cuts) for part in parts]
    made = planned(shapes, [mine] * ranks)
    sizes = [spec.chunk_nbytes for spec in made.specs for _ in range(spec.chunks)]
    largest = max(
        made.specs[box.tensor].chunk_nbytes
        * math.prod(-(-n // side) for n, side in zip(box.extent, made.specs[box.tensor].grid, strict=True))
        for box in mine
    )
    assert np.bincount(made.owners, weights=sizes).max() <= sum(sizes) / ranks + largest


def test_each_of_two_replicas_writes_half() -> None:
    """Sharded over 8 ranks, and that twice: ranks r and r + 8 hold the same."""
    shapes = [(64,)] * 10
    held = [[Box(tensor, (8 * (rank % 8),), (8,)) for tensor in range(10)] for rank in range(16)]
    made = planned(shapes, held)
    check_cover(made, shapes, held)
    assert np.bincount(made.owners).tolist() == [5] * 16
    uneven = [[*mine, Box(0, (0,), (8,))] if rank == 3 else mine for rank, mine in enumerate(held)]
    check_cover(planned(shapes, uneven), shapes, uneven)


def test_boxes_travel() -> None:
    some = boxes(Box(3, (1, 2), (3, 4)), Box(0, (), ()), Box(1, (1 << 40,), (5,)))
    again = Boxes.decode(some.encode())
    for column in ("tensor", "start", "extent"):
        assert np.array_equal(getattr(some, column), getattr(again, column))
