"""Names and listing: only what is committed, and little is opened for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.manager.flax_rules import FlaxNames
from ckptfmt.manager.run_on_disk import RunOnDisk
from ckptfmt.manager.steps import FixedNames, metadata_for

TREE = {"a": np.arange(100)}


def save(run: RunOnDisk, step: Any, **options: Any) -> Path:
    path = Path(run.path_of(step))
    ckptfmt.save(path, TREE, durable=False, **options)
    return path


def listed(run: RunOnDisk) -> list[Any]:
    return [step.step for step in run.scan().steps]


@pytest.fixture
def run(tmp_path: Path) -> RunOnDisk:
    return RunOnDisk(tmp_path, FixedNames())


@given(st.integers(0, 1 << 70))
def test_a_step_has_one_name(step: int) -> None:
    names = FixedNames()
    assert names.step(names.name(step)) == names.checked(np.uint64(step) if step < 1 << 64 else step) == step


@given(st.sets(st.integers(0, 9_999_999_999)))
def test_names_sort_as_steps_do(steps: set[int]) -> None:
    assert sorted(map(FixedNames().name, steps)) == [FixedNames().name(step) for step in sorted(steps)]


@pytest.mark.parametrize(
    "name",
    ["step-1.ckpt", "step-00000000001.ckpt", "step-0000000001", "step-000000000x.ckpt", ".step-0000000001.ckpt"],
)
def test_other_names_are_no_steps(name: str) -> None:
    assert FixedNames().step(name) is None


@pytest.mark.parametrize("step", [-1, 1.0, "1", None, True])
def test_other_steps_are_refused(step: Any) -> None:
    with pytest.raises(ckptfmt.InputError, match="step"):
        FixedNames().checked(step)


def test_steps_come_in_natural_order(run: RunOnDisk) -> None:
    for step in (10, 9, 12_345_678_901, 0, 100):
        save(run, step)
    assert listed(run) == [0, 9, 10, 100, 12_345_678_901]
    latest = run.latest()
    assert latest is not None
    assert latest.step == 12_345_678_901


def test_no_directory_is_an_empty_run(tmp_path: Path) -> None:
    run = RunOnDisk(tmp_path / "none", FixedNames())
    assert run.scan() == ([], [])
    assert run.latest() is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_is_committed_is_listed(run: RunOnDisk, tmp_path: Path, layout: str) -> None:
    whole = save(run, 1, layout=layout)
    torn = Path(run.path_of(2))
    if layout == "file":
        data = whole.read_bytes()
        for size in range(0, len(data), 37):
            torn.write_bytes(data[:size])
            assert listed(run) == [1], size
        torn.write_bytes(data[:-1] + b"x")
        assert listed(run) == [1]
        torn.write_bytes(data[len(data) // 2 :])  # a record that speaks of more than there is
    else:
        shutil.copytree(whole, torn)
        record = (torn / "COMMIT").read_bytes()
        for size in range(len(record)):
            (torn / "COMMIT").write_bytes(record[:size])
            assert listed(run) == [1], size
        (torn / "COMMIT").unlink()
        (torn / "COMMIT").mkdir()
    (tmp_path / "step-0000000003.ckpt").write_text("something else")
    (tmp_path / "step-0000000004.ckpt").mkdir()
    (tmp_path / "step-0000000005.ckpt").symlink_to("nowhere")
    (tmp_path / "other.ckpt").write_bytes(b"")
    assert listed(run) == [1]
    latest = run.latest()
    assert latest is not None
    assert latest.step == 1
    assert run.find(2) is None


def test_a_record_in_the_wrong_kind_of_place_does_not_count(run: RunOnDisk) -> None:
    loose, file = save(run, 1, layout="loose"), save(run, 2)
    line = (loose / "COMMIT").read_bytes()
    (loose / "COMMIT").write_bytes(file.read_bytes()[-len(line) - 20 :].partition(b"ckptfmt/")[2])
    Path(run.path_of(3)).write_bytes(line)
    assert listed(run) == [2]


def test_a_checkpoint_of_a_newer_format_is_there(run: RunOnDisk) -> None:
    path = save(run, 1)
    path.write_bytes(path.read_bytes().replace(b"ckptfmt/1.0 file", b"ckptfmt/9.0 file"))
    assert listed(run) == [1]


def test_what_was_seen_is_not_opened_again(run: RunOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(20):
        save(run, step)
    opened: list[Any] = []
    real = os.open

    def watched(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", watched)
    assert run.latest() is not None
    assert opened == [run.path_of(19)], "finding the latest opens one"
    listed(run)
    assert len(opened) == 20
    listed(run)
    assert len(opened) == 20, "listing again opens none"
    Path(run.path_of(7)).write_bytes(b"torn")
    assert 7 not in listed(run)
    assert opened[20:] == [run.path_of(7)]


def test_metrics_and_metadata_stand_in_the_manifest(run: RunOnDisk) -> None:
    stored = metadata_for(5, {"loss": np.float32(0.5), "n": 3, "zero-d": np.array(2.0)}, {"note": ("a", 1)})
    path = save(run, 5, metadata=stored)
    (step,) = run.scan().steps
    assert step.metrics == {"loss": 0.5, "n": 3.0, "zero-d": 2.0}
    assert step.metadata == {"note": ("a", 1)}
    assert step.size == path.stat().st_size
    assert step.time == path.stat().st_mtime
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.metadata["ckptfmt.run"] == {"step": 5, "metrics": step.metrics}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        7,
        {"ckptfmt.run": 3},
        {"ckptfmt.run": {"metrics": 4}},
        {"ckptfmt.run": {"metrics": {"loss": "low", 1: 2.0, "list": [1.0], "int": 1 << 2000}}},
    ],
)
def test_checkpoints_that_no_manager_wrote_have_no_metrics(run: RunOnDisk, metadata: Any) -> None:
    save(run, 1, metadata=metadata)
    (step,) = run.scan().steps
    assert step.metrics == {}


def test_a_damaged_manifest_has_no_metrics(run: RunOnDisk) -> None:
    path = save(run, 1, metadata=metadata_for(1, {"loss": 1}, None))
    path.write_bytes(path.read_bytes().replace(b"loss", b"losz"))
    (step,) = run.scan().steps
    assert step.metrics == {}
    with pytest.raises(ckptfmt.CorruptError):
        step.metadata  # noqa: B018


@pytest.mark.parametrize(
    ("metrics", "metadata"),
    [
        ({"loss": "low"}, None),
        ({"loss": "0.5"}, None),
        ({"loss": b"1"}, None),
        ({"loss": 10**400}, None),
        ({"loss": 1j}, None),
        ({"loss": np.zeros(2)}, None),
        ([("loss", 1)], None),
        (0.5, None),
        ({1: 2}, None),
        ({"loss": [1, 2]}, None),
        (None, [1]),
        (None, {"ckptfmt.run": 1}),
    ],
)
def test_metrics_and_metadata_are_checked(metrics: Any, metadata: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        metadata_for(1, metrics, metadata)
    assert caught.value.code == "bad-option"


def test_the_size_of_a_directory_is_that_of_all_its_files(run: RunOnDisk) -> None:
    path = save(run, 1, layout="loose")
    (step,) = run.scan().steps
    assert step.size == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_temporaries_of_this_run_are_known(run: RunOnDisk, tmp_path: Path) -> None:
    ours = Path(run.temporary_of("step-0000000001.ckpt"))
    for path in (
        ours,
        tmp_path / ".model.ckpt.0123456789ab.ckptfmt-tmp",
        tmp_path / "step-0000000002.ckpt.ckptfmt-tmp",
    ):
        path.write_bytes(b"")
    assert run.scan() == ([], [ours.name])


@pytest.mark.parametrize(
    ("prefix", "steps"),
    [
        ("checkpoint_", [0, 1, 2, 10]),
        ("checkpoint_", [-3, -0.5, 0.25, 1, 1.5, 100000.0, 1e22]),
        ("ckpt-", [10, 9, 1]),  # the hyphen is a sign
        ("run2_", [1, 2, 30]),
    ],
)
def test_flax_names(tmp_path: Path, prefix: str, steps: list[Any]) -> None:
    run = RunOnDisk(tmp_path, FlaxNames(prefix))
    for step in reversed(steps):
        assert run.names.checked(step) == step
        assert save(run, step).name == f"{prefix}{step}"
    (tmp_path / f"{prefix}tmp").write_bytes(b"")
    assert listed(run) == steps


@pytest.mark.parametrize("step", [float("nan"), float("inf"), "1", None, True])
def test_flax_steps_are_finite_numbers(step: Any) -> None:
    with pytest.raises(ckptfmt.InputError):
        FlaxNames().checked(step)
