"""Saves by many processes that share what has not changed: each compares what it is to write, rank 0 links.
[LAY-008]"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Failed, run

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.manager import CheckpointManager
from ckptfmt.testing import assert_same_tree

SIZE = 3
FROZEN = np.random.default_rng(0).standard_normal((60, 2000)).astype(np.float32)


def whole(step: int) -> dict[str, Any]:
    return {"frozen": FROZEN, "both": np.arange(50_000), "adapter": np.full((60, 10), step, np.float64), "step": step}


def held(step: int, rank: int, size: int) -> dict[str, Any]:
    """The rows of this rank, and what all have."""

    def rows(array: np.ndarray[Any, Any]) -> Sharded:
        first = rank * 60 // size
        part = array[first : (rank + 1) * 60 // size]
        return Sharded(array.shape, array.dtype, (Shard((first, 0), part),))

    tree = whole(step)
    return {**tree, "frozen": rows(tree["frozen"]), "adapter": rows(tree["adapter"])}


def save(folder: Path, coordinator: Any, step: int, **options: Any) -> Any:
    tree = held(step, coordinator.rank, coordinator.size)
    return ckptfmt.save(folder / f"{step}", tree, coordinator=coordinator, durable=False, **options)


def three_steps(folder: Path, coordinator: Any) -> list[Any]:
    return [save(folder, coordinator, n, **({"share_with": folder / f"{n - 1}"} if n else {})) for n in range(3)]


def with_figures(folder: Path, coordinator: Any) -> Any:
    save(folder, coordinator, 0)
    return save(folder, coordinator, 1, share_with=folder / "0", statistics=True)


def a_run(folder: Path, coordinator: Any) -> list[Any]:
    reports: list[Any] = []
    with CheckpointManager(
        folder / "run", coordinator=coordinator, share=True, on_commit=lambda _, report: reports.append(report)
    ) as manager:
        for step in range(3):
            manager.save(step, held(step, coordinator.rank, coordinator.size), block=step != 1)
    return reports


def another_size(folder: Path, coordinator: Any) -> Any:
    return save(folder, coordinator, 5, share_with=folder / "2")


def no_base(folder: Path, coordinator: Any) -> Any:
    return save(folder, coordinator, 6, share_with=folder / "missing")


def other_bases(folder: Path, coordinator: Any) -> Any:
    return save(folder, coordinator, 7, share_with=folder / f"{coordinator.rank % 2}")


def check(path: Path, step: int) -> None:
    assert ckptfmt.verify(path).ok
    assert_same_tree(ckptfmt.load(path), whole(step))


def test_each_rank_finds_what_has_not_changed(tmp_path: Path) -> None:
    for reports in run(three_steps, tmp_path, SIZE):
        assert [report.shared > 0.9 * report.bytes for report in reports] == [False, True, True]
        assert all(report.not_shared is None for report in reports)
    run(another_size, tmp_path, 2)  # whose chunks are others
    for step in (0, 1):
        shutil.rmtree(tmp_path / f"{step}")
    check(tmp_path / "2", 2)
    check(tmp_path / "5", 5)
    ckptfmt.save(tmp_path / "alone", whole(3), share_with=tmp_path / "2", durable=False)
    check(tmp_path / "alone", 3)


def test_what_is_shared_is_looked_at(tmp_path: Path) -> None:
    """The figures of tensors that nobody writes are stored, too."""
    assert run(with_figures, tmp_path, SIZE)[0].shared > 0
    assert all(tensor.stored for tensor in ckptfmt.stats(tmp_path / "1", stored=True).tensors)
    ckptfmt.stats(tmp_path / "1", stored="check")


def test_a_run_of_many_processes(tmp_path: Path) -> None:
    for reports in run(a_run, tmp_path, SIZE):
        assert [report.shared > 0.9 * report.bytes for report in reports] == [False, True, True]
    with CheckpointManager(tmp_path / "run") as manager:
        for step in manager.steps():
            check(Path(step.path), step.step)


@pytest.mark.parametrize(("work", "code"), [(no_base, "not-found"), (other_bases, "ranks-differ")])
def test_bases_on_which_ranks_do_not_agree(tmp_path: Path, work: Any, code: str) -> None:
    for name in ("0", "1"):
        ckptfmt.save(tmp_path / name, whole(int(name)), layout="packed", durable=False)
    found = run(work, tmp_path, SIZE)
    assert all(isinstance(one, Failed) for one in found)
    assert code in {one.code for one in found}
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "mail"}
