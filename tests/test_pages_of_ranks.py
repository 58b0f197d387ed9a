"""`paged=` of saves by many processes: pages of few tensors, none of many, and what else handles either. [PAGE-010]"""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import leftovers, small_pages, use_disk
from inside import inside
from ranks import Failed, Ranks, cut, run, shard

import ckptfmt
from ckptfmt.format import paged_manifest
from ckptfmt.layouts import packed, paging
from ckptfmt.manager import CheckpointManager
from ckptfmt.testing import assert_same_tree

FROZEN = np.random.default_rng(0).standard_normal((30, 2000)).astype(np.float32)


def whole(step: int, count: int = 8) -> dict[str, Any]:
    """Names in another order than that of the tree."""
    named = {f"w{9 - number}": np.arange(60 * number, 60 * number + 60) for number in range(count)}
    return {"step": step, "named": named, "frozen": FROZEN, "adapter": np.full((30, 9), step, np.float64), "b": [1, ""]}


def held(step: int, rank: int, size: int) -> dict[str, Any]:
    tree = whole(step)
    cut_in_rows = {name: shard(tree[name], rank, size) for name in ("frozen", "adapter")}
    return {**tree, **cut_in_rows, "named": {name: shard(value, rank, size) for name, value in tree["named"].items()}}


def save(folder: Path, coordinator: Any, step: int = 1, name: str = "x", **options: Any) -> Any:
    tree = held(step, coordinator.rank, coordinator.size)
    with small_pages():
        return ckptfmt.save(folder / name, tree, coordinator=coordinator, **{"durable": False, **options})


def has_pages(path: Path) -> bool:
    """What its manifest is, once it is found whole."""
    assert ckptfmt.verify(path).ok
    names = {entry.name for entry in path.iterdir()}
    with ckptfmt.open(path) as checkpoint:
        paged = inside(checkpoint).manifest.pages is not None
        assert names == {"COMMIT", "manifest.msgpack", "packs", "pages.bin" if paged else "parts"}
        assert checkpoint.format == ((1, 1) if paged else (1, 0))
    return paged


def all_files(path: Path) -> dict[Path, bytes]:
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# ---- what is asked for


def ask_for_all(folder: Path, coordinator: Any) -> None:
    for least in (4, 8192):
        paged_manifest.LEAST_TENSORS = least
        for paged in (None, True, False, np.True_):
            save(folder, coordinator, name=f"{paged!r} from {least}", paged=paged)


@pytest.mark.parametrize("size", [1, 3])
def test_ranks_page_what_is_asked(tmp_path: Path, size: int) -> None:
    run(ask_for_all, tmp_path, size)
    for least in (4, 8192):
        expected = {"None": least == 4, "True": True, "False": False, "np.True_": True}
        for asked, paged in expected.items():
            path = tmp_path / f"{asked} from {least}"
            assert has_pages(path) is paged
            assert_same_tree(ckptfmt.load(path), whole(1))


def save_whole(folder: Path, coordinator: Any) -> None:
    with small_pages():
        ckptfmt.save(folder / "together", whole(1), coordinator=coordinator, durable=False, paged=True)


def test_one_rank_writes_the_bytes_of_one_process(tmp_path: Path) -> None:
    run(save_whole, tmp_path, 1)
    with small_pages():
        ckptfmt.save(tmp_path / "alone", whole(1), layout="packed", durable=False, paged=True)
    assert all_files(tmp_path / "together") == all_files(tmp_path / "alone")


def save_twice(folder: Path, coordinator: Any) -> None:
    for name in "ab":
        save(folder, coordinator, name=name, paged=True, digest="sha256", statistics=True)


def test_the_bytes_are_the_same_again(tmp_path: Path) -> None:  # [MAN-009]
    run(save_twice, tmp_path, 3)
    assert has_pages(tmp_path / "a")
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert all(tensor.stored for tensor in ckptfmt.stats(tmp_path / "a", stored=True).tensors)
    ckptfmt.stats(tmp_path / "a", stored="check")


def save_many_chunks(folder: Path, coordinator: Any) -> Any:
    """More than are paged by themselves, and then more than readers take in a page."""
    paged_manifest.LEAST_TENSORS, paging.MOST_OF_RANKS, paging.LARGEST = 4, 5, 36 * 20
    for paged in (None, True, False):
        save(folder, coordinator, name=repr(paged), paged=paged)
    paging.LARGEST -= 1
    save(folder, coordinator, name="None again")
    return save(folder, coordinator, name="larger", paged=True)


def test_very_many_chunks_are_paged_if_that_is_asked(tmp_path: Path) -> None:  # [LIM-011]
    first, *others = run(save_many_chunks, tmp_path, 2)
    assert others == [first]
    assert (first.code, first.message.partition(": ")[2].partition(".")[0]) == (
        "bad-option",
        "paged=True makes a page that is too large to be read (found 720 bytes, expected at most 719, or paged=False)",
    )
    assert {name: has_pages(tmp_path / name) for name in ("None", "True", "False", "None again")} == {
        "None": False,
        "True": True,
        "False": False,
        "None again": False,
    }
    assert not (tmp_path / "larger").exists()
    assert leftovers(tmp_path) == []


# ---- steps, and what is made of them


def share_steps(folder: Path, coordinator: Any) -> list[Any]:
    packed.PACK_BYTES = 20_000
    reports = []
    for before, after in itertools.product((False, True), repeat=2):
        name = f"{before} {after}"
        save(folder, coordinator, 1, f"{name} 1", paged=before)
        for step, paged in ((2, after), (3, before)):
            base = folder / f"{name} {step - 1}"
            reports.append(save(folder, coordinator, step, f"{name} {step}", paged=paged, share_with=base))
    return reports


def test_steps_share_whether_they_are_paged_or_not(tmp_path: Path) -> None:
    for reports in run(share_steps, tmp_path, 3):
        assert [report.not_shared for report in reports] == [None] * 8
        assert all(report.shared > 200_000 for report in reports)
    for before, after in itertools.product((False, True), repeat=2):
        for step, paged in ((1, before), (2, after), (3, before)):
            path = tmp_path / f"{before} {after} {step}"
            assert has_pages(path) is paged
            assert_same_tree(ckptfmt.load(path), whole(step))
    ckptfmt.patch(tmp_path / "True True 1", tmp_path / "True True 3", tmp_path / "patch")
    assert_same_tree(ckptfmt.load(tmp_path / "patch", base=tmp_path / "True True 1"), whole(3))


def manage(folder: Path, coordinator: Any) -> Any:
    for paged in (True, False):
        paged_manifest.LEAST_TENSORS = 8192 if paged else 4
        run_of = {"coordinator": coordinator, "paged": paged, "share": True, "durable": False}
        with CheckpointManager(folder / f"run {paged}", **run_of) as manager, small_pages():
            for step in (1, 2):
                manager.save(step, held(step, coordinator.rank, coordinator.size), block=step == 1)
    odd = CheckpointManager(folder / "odd", coordinator=coordinator, paged=coordinator.rank == 1, durable=False)
    odd.save(1, held(1, coordinator.rank, coordinator.size))


def test_a_manager_s_steps(tmp_path: Path) -> None:
    outcomes = run(manage, tmp_path, 2)
    assert {outcome.code for outcome in outcomes} == {"ranks-differ"}
    assert all("ranks 0 and 1 differ in paged= (found True on rank 1" in outcome.message for outcome in outcomes)
    for paged in (True, False):
        for step in (1, 2):
            path = tmp_path / f"run {paged}" / f"step-{step:010d}.ckpt"
            assert has_pages(path) is paged
            assert_same_tree(ckptfmt.load(path), whole(step))


# ---- readers


def save_pages(folder: Path, coordinator: Any) -> None:
    save(folder, coordinator, paged=True)


def read_rows(folder: Path, coordinator: Any) -> int:
    rows = cut(30, coordinator.rank, coordinator.size)
    with ckptfmt.open(folder / "x") as checkpoint:
        assert np.array_equal(checkpoint["frozen"][rows], FROZEN[rows])
        pages = inside(checkpoint).manifest.pages
        assert pages is not None
        return len(pages._loaded)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_another_number_of_ranks_reads_it_by_one_page(tmp_path: Path, size: int) -> None:
    run(save_pages, tmp_path, 3)
    assert run(read_rows, tmp_path, size) == [1] * size


def test_a_damaged_page_loses_its_tensors_alone(tmp_path: Path) -> None:
    run(save_pages, tmp_path, 3)
    path = tmp_path / "x"
    with ckptfmt.open(path) as checkpoint:
        pages = inside(checkpoint).manifest.pages
        assert pages is not None
        names = list(pages.page(0).names)
    raw = bytearray((path / "pages.bin").read_bytes())
    raw[3] ^= 1
    (path / "pages.bin").write_bytes(raw)
    damage = ckptfmt.verify(path).damage
    assert {(one.code, one.object) for one in damage} == {("manifest-digest", "pages.bin")}
    report = ckptfmt.repair(path, tmp_path / "y")
    assert report.lost
    assert ckptfmt.verify(tmp_path / "y").ok
    assert names == ["adapter", "frozen", "named/w2"]
    expected = whole(1)
    del expected["adapter"], expected["frozen"], expected["named"]["w2"]
    assert_same_tree(ckptfmt.load(tmp_path / "y"), expected)


# ---- ranks that fail


def fill_the_disk(folder: Path, coordinator: Any) -> list[Any]:
    """Every call to the disk fails in turn, on rank 0."""
    codes = []
    for number in itertools.count():
        calls = itertools.count()

        def fail(name: str, arguments: Any) -> None:
            if next(calls) == number and coordinator.rank == 0:
                raise OSError(28, os.strerror(28))

        disk = use_disk(fail)
        try:
            save(folder, coordinator, name=str(number), paged=True, durable=True)
            return codes
        except ckptfmt.StorageError as error:
            codes.append((error.code, (folder / str(number)).exists()))
        finally:
            disk.undo()
    raise AssertionError


def test_the_disk_of_rank_0_is_full(tmp_path: Path) -> None:
    codes = run(fill_the_disk, tmp_path, 2)
    assert {code for code, _ in codes[0]} == {"disk-full"}
    assert {code for code, _ in codes[1]} == {"rank-failed"}
    assert [there for _, there in codes[0]].count(True) == 1, "the very last flush comes when it is in place"
    assert len(codes[0]) == len(codes[1]) > 12
    assert leftovers(tmp_path) == []


def killed_in_pages(folder: Path, coordinator: Any) -> Any:
    """Rank 0 is killed once `pages.bin` is there, before anything else of the commit."""

    def kill(name: str, arguments: Any) -> None:
        if coordinator.rank == 0 and any(folder.glob(".*/pages.bin")):
            os.kill(os.getpid(), signal.SIGKILL)

    disk = use_disk(kill)
    try:
        return save(folder, coordinator, 2, paged=True, overwrite=True)
    finally:
        disk.undo()


def test_rank_0_is_killed_at_its_pages(tmp_path: Path) -> None:
    run(save_pages, tmp_path, 3)
    outcomes = Ranks(killed_in_pages, tmp_path, 3).outcomes()
    assert set(outcomes) == {1, 2}
    assert all(isinstance(outcome, Failed) and outcome.code == "rank-lost" for outcome in outcomes.values())
    assert has_pages(tmp_path / "x")
    assert_same_tree(ckptfmt.load(tmp_path / "x"), whole(1))
    ckptfmt.gc(tmp_path, delete=True, grace=0)
    assert leftovers(tmp_path) == []
