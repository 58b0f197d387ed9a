"""NaNs in what is saved: refused before a commit, or told; by saves, managers, other processes and ranks alike."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Failed, run, shard

import ckptfmt
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.manager import CheckpointManager, Last


def has_nan(name: str) -> bool:
    row = DTYPES[name]
    return row.part is not None or (row.range is not None and row.range.exponent > 0 and row.range.beyond != "nearest")


WITH_NAN = list(filter(has_nan, DTYPES))
WITHOUT = [name for name in DTYPES if name not in WITH_NAN]
BAD = {"a": np.ones(3, np.float32), "b": [np.zeros(2), np.array([np.nan, 1, np.nan])], "c": np.array([np.inf, -np.inf])}
GOOD = {**BAD, "b": [np.zeros(2), np.ones(3)]}


def numbers_of(values: Any) -> Any:
    with np.errstate(invalid="ignore"):  # of signalling NaNs
        return values.astype(np.float64)


def refused(call: Any) -> ckptfmt.InputError:
    with pytest.raises(ckptfmt.InputError) as raised:
        call()
    assert raised.value.code == "has-nan"
    return raised.value


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("statistics", [False, True])
def test_what_was_there_stays(tmp_path: Path, layout: str, statistics: bool) -> None:
    path = tmp_path / "x"
    options: Any = {"layout": layout, "on_nan": "refuse", "statistics": statistics, "durable": False}
    ckptfmt.save(path, GOOD, **options)
    error = refused(lambda: ckptfmt.save(path, BAD, overwrite=True, **options))
    assert "1 tensor with NaNs: 'b/1' (2)" in error.message
    assert (error.tensor, error.found, error.path) == ("b/1", 2, str(path))
    assert ckptfmt.testing.equal_trees(ckptfmt.load(path), GOOD)
    assert [one.name for one in tmp_path.iterdir()] == ["x"], "and nothing is left of the other"


def test_infinities_and_plain_floats_are_none(tmp_path: Path) -> None:
    tree = {"mask": np.full(4, -np.inf), "loss": float("nan"), "scalar": np.float32("nan")}
    assert ckptfmt.save(tmp_path / "x.ckpt", tree, on_nan="refuse", durable=False).nan == ()


@pytest.mark.parametrize("name", WITH_NAN)
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_every_dtype_that_has_nans(tmp_path: Path, name: str, compression: Any) -> None:
    """Small and large tensors, negative and positive NaNs, in each part of a complex number; as counted one by one."""
    row = DTYPES[name]
    raw = np.random.default_rng(0).bytes(300_000 * row.numpy.itemsize)
    values = np.frombuffer(raw, row.numpy)
    if row.part:
        is_nan = np.isnan(numbers_of(values.view(DTYPES[row.part].numpy)).reshape(-1, 2)).any(axis=1)
    else:
        is_nan = np.isnan(numbers_of(values))
    few = values[:500]
    tree = {"large": values, "few": few, "right": values[~is_nan][:100]}
    expected = {"large": int(is_nan.sum()), "few": int(is_nan[:500].sum())}
    with pytest.warns(ckptfmt.NanWarning) as caught:
        report = ckptfmt.save(tmp_path / "x.ckpt", tree, on_nan="warn", durable=False, compression=compression)
    assert dict(report.nan) == {label: count for label, count in expected.items() if count}
    assert caught[0].message.nan == report.nan  # type: ignore[union-attr]
    assert Path(caught[0].filename) == Path(__file__)
    assert ckptfmt.testing.equal_trees(ckptfmt.load(tmp_path / "x.ckpt"), tree)


@pytest.mark.parametrize("name", WITHOUT)
def test_dtypes_without_nans(tmp_path: Path, name: str) -> None:
    row = DTYPES[name]
    values = np.arange(1 << min(row.used, 8), dtype=np.uint8).astype(np.uint8 if row.bits <= 8 else row.numpy)
    tree = {"t": values.view(row.numpy) if row.bits <= 8 else values}
    assert ckptfmt.save(tmp_path / "x.ckpt", tree, on_nan="refuse", durable=False).nan == ()


def test_many_small_tensors_in_pages(tmp_path: Path) -> None:
    tree = {f"w{i}": np.full(3, np.nan if i in (7, 9) else 1.0) for i in range(20)}
    with pytest.warns(ckptfmt.NanWarning):
        report = ckptfmt.save(tmp_path / "x.ckpt", tree, on_nan="warn", paged=True, durable=False)
    assert report.nan == (("w7", 3), ("w9", 3))
    many = {str(i): np.array(np.nan) for i in range(9)}
    error = refused(lambda: ckptfmt.save(tmp_path / "y.ckpt", many, on_nan="refuse"))
    assert "4 more" in error.message


def test_what_is_none_of_these_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="on_nan="):
        ckptfmt.save(tmp_path / "x.ckpt", GOOD, on_nan="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["packed", "loose"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_shared_is_looked_at_too(tmp_path: Path, layout: Any, compression: Any) -> None:
    """The earlier checkpoint may have NaNs, and the figures of what is not written again are stored as well."""
    options: Any = {"layout": layout, "compression": compression, "durable": False}
    tree = {**BAD, "large": np.random.default_rng(0).standard_normal((300, 1000)), "small": np.arange(7)}
    ckptfmt.save(tmp_path / "1", tree, **options)
    with pytest.warns(ckptfmt.NanWarning):
        report = ckptfmt.save(
            tmp_path / "2", tree, share_with=tmp_path / "1", statistics=True, on_nan="warn", **options
        )
    assert report.shared > 0
    assert report.nan == (("b/1", 2),)
    assert all(one.stored for one in ckptfmt.stats(tmp_path / "2", stored=True).tensors)
    ckptfmt.stats(tmp_path / "2", stored="check")
    refused(lambda: ckptfmt.save(tmp_path / "3", tree, share_with=tmp_path / "1", on_nan="refuse", **options))
    assert not (tmp_path / "3").exists()


# ---- runs


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("background", ["thread", "process"])
def test_the_last_good_step_is_not_lost(tmp_path: Path, block: bool, background: Any) -> None:
    """Nor any other: a step that is refused deletes nothing, also where it replaces one, and the run goes on."""
    failed: list[Any] = []
    options: Any = {"keep": [Last(1)], "on_nan": "refuse", "background": background, "durable": False}
    with CheckpointManager(tmp_path, on_error=lambda *said: failed.append(said), **options) as manager:
        manager.save(1, GOOD)

        def bad(step: int, **more: Any) -> None:
            manager.save(step, BAD, block=block, **more)
            manager.wait()

        error = refused(lambda: bad(2))
        assert (error.tensor, error.found) == ("b/1", 2)
        refused(lambda: bad(1, overwrite=True))
        assert numbers(manager) == [1]
        assert ckptfmt.testing.equal_trees(manager.restore(), GOOD)
        assert [step for step, _ in failed] == [2, 1]
        manager.save(3, GOOD, block=block)
        manager.wait()
        assert numbers(manager) == [3]


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("background", ["thread", "process"])
def test_a_warning_and_the_step_is_there(tmp_path: Path, block: bool, background: Any) -> None:
    reports: list[Any] = []
    options: Any = {"on_nan": "warn", "background": background, "statistics": True, "durable": False}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with CheckpointManager(tmp_path, on_commit=lambda *said: reports.append(said), **options) as manager:
            manager.save(1, BAD, block=block)
            manager.wait()
            (step,) = manager.steps()
    assert [(number, report.nan) for number, report in reports] == [(1, (("b/1", 2),))]
    told = [one.message for one in caught if isinstance(one.message, ckptfmt.NanWarning)]
    assert [one.nan for one in told] == [(("b/1", 2),)]
    found = ckptfmt.stats(step.path, stored=True)
    assert {one.name: one.nan for one in found.tensors if one.stored} == {"a": 0, "b/0": 0, "b/1": 2, "c": 0}


# ---- ranks


def save_shards(folder: Path, coordinator: Any) -> Any:
    """Each rank holds some rows; a NaN is in those of the last."""
    values = np.arange(40.0).reshape(8, 5)
    values[-1, 2] = np.nan
    tree = {"x": shard(values, coordinator.rank, coordinator.size), "y": np.full(3, 2.0)}
    report = ckptfmt.save(folder / "x", tree, coordinator=coordinator, durable=False, on_nan="refuse")
    return report.nan


def save_with_figures(folder: Path, coordinator: Any) -> Any:
    values = np.arange(40).reshape(8, 5)
    tree = {"x": shard(values, coordinator.rank, coordinator.size), "y": np.array([np.nan, 2.0])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ckptfmt.NanWarning)
        options: Any = {"statistics": True, "on_nan": "warn", "durable": False}
        return ckptfmt.save(folder / "x", tree, coordinator=coordinator, **options).nan


@pytest.mark.parametrize("size", [1, 3])
def test_all_ranks_refuse_what_one_holds(tmp_path: Path, size: int) -> None:
    for result in run(save_shards, tmp_path, size):
        assert isinstance(result, Failed)
        assert "has-nan" in str(result)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("size", [1, 3])
def test_the_figures_of_all_ranks(tmp_path: Path, size: int) -> None:
    assert run(save_with_figures, tmp_path, size) == [(("y", 1),)] * size
    found = {one.name: one for one in ckptfmt.stats(tmp_path / "x", stored=True).tensors}
    assert all(one.stored for one in found.values())
    assert (found["x"].min, found["x"].max, found["x"].mean) == (0, 39, 19.5)
    assert found["x"].std == pytest.approx(np.arange(40).std())
    assert found["y"].nan == 1
    ckptfmt.stats(tmp_path / "x", stored="check")
