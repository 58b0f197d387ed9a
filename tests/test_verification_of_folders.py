"""Verification of all checkpoints in a folder: each is checked, each damage found, and what is none passed over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from damage import LAYOUTS, rewrite_manifest, zones
from programs import on_terminal
from stores import Store, endpoint, s3_store, save, store

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.maintenance import verification_of_folders
from ckptfmt.reading.checkpoint import StoredCheckpoint

__all__ = ["endpoint", "s3_store", "store"]  # fixtures

TREE = {"a": np.arange(9000.0), "b": [np.zeros(3), 1]}


def verify(*args: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, args)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with steps of each layout, and what is no checkpoint."""
    folder = tmp_path / "run"
    for number, layout in enumerate(LAYOUTS):
        with ckptfmt.CheckpointManager(folder, layout=layout, durable=False) as manager:
            manager.save(number, TREE)
    (folder / "notes.txt").write_text("mine")
    (folder / "empty").write_bytes(b"")
    (folder / "logs").mkdir()
    (folder / "logs" / "step.ckpt").mkdir()
    ckptfmt.save(folder / "logs" / "other.ckpt", TREE, durable=False)
    shutil.copy(folder / "logs" / "other.ckpt", folder / ".hidden.0123456789ab.ckptfmt-tmp")
    (folder / "link.ckpt").symlink_to(folder / "logs" / "other.ckpt")
    return folder


def steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def flip(path: Path) -> None:
    zone = next(zone for zone in zones(path) if zone.tensor == ("a",))
    data = bytearray(zone.file.read_bytes())
    data[zone.start] ^= 1
    zone.file.write_bytes(data)


def test_what_should_be_a_checkpoint_and_is_nothing_is_told(run: Path) -> None:
    """As a power loss or a full disk leaves what other tools copy."""
    for name, data in (("lost.ckpt", bytes(5000)), ("step-0000000009.ckpt", b""), ("short.ckpt", bytes(7))):
        (run / name).write_bytes(data)
    (run / "zeros.bin").write_bytes(bytes(5000))
    report = ckptfmt.verify_folder(run)
    assert not report.ok
    told = [(Path(str(error.path)).name, error.code) for error in report.errors]
    assert told == [(name, "not-a-checkpoint") for name in ("lost.ckpt", "short.ckpt", "step-0000000009.ckpt")]
    result = verify(run)
    assert result.exit_code == 2
    assert "step-0000000009.ckpt: this is an empty file" in result.stderr


def test_all_are_whole(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = ckptfmt.verify_folder(run, progress=lambda *now: seen.append(now))
    assert report.ok
    assert [one.path for one in report.reports] == [str(path) for path in steps(run)]
    assert list(report.reports) == [ckptfmt.verify(path) for path in steps(run)]
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert len({total for _, total in seen}) == 1
    below = ckptfmt.verify_folder(run, recursive=True)
    assert {one.path for one in below.reports} == {str(run / "logs" / "other.ckpt"), *map(str, steps(run))}


def test_each_damage_is_found(run: Path) -> None:
    first, second, third = steps(run)
    flip(first)
    flip(third)
    (second / "COMMIT").write_bytes(b"x")
    report = ckptfmt.verify_folder(run)
    assert [[damage.code for damage in one.damage] for one in report.reports] == [
        ["block-digest"],
        ["bad-record"],
        ["block-digest"],
    ]
    result = verify("--json", run)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["errors"]) == (1, False, [])
    assert [one["path"] for one in document["checkpoints"]] == [str(path) for path in steps(run)]
    assert document["checkpoints"][2]["damage"][0]["tensor"] == "a"
    shown = verify(run)
    assert shown.exit_code == 1
    assert shown.stdout.count("  block-digest: tensor a, chunk 0, block 0") == 2
    assert shown.stdout.endswith(f"{run}: 3 checkpoints, 3 damaged\n")
    assert (verify("-q", run).exit_code, verify("-q", run).output) == (1, "")


def test_what_cannot_be_checked_is_said(run: Path) -> None:
    rewrite_manifest(steps(run)[0], lambda document: document["requires"].append("later"))
    report = ckptfmt.verify_folder(run)
    assert ([error.code for error in report.errors], len(report.reports)) == (["unknown-feature"], 2)
    assert not report.ok
    result = verify(run)
    assert result.exit_code == 2
    assert result.stdout.endswith("2 checkpoints, all whole, 1 not checked\n")
    assert "[unknown-feature]" in result.stderr
    assert json.loads(verify("--json", run).stdout)["errors"][0]["code"] == "unknown-feature"
    flip(steps(run)[1])
    assert verify(run).exit_code == 1


def test_an_interrupted_one_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(steps(run)[0])
    state, checked = tmp_path / "state", []
    check = verification_of_folders.verify_stored

    def counted(checkpoint: StoredCheckpoint, *further: Any) -> Any:
        checked.append(os.path.basename(checkpoint.path))
        if len(checked) == 3:
            raise KeyboardInterrupt
        return check(checkpoint, *further)

    monkeypatch.setattr(verification_of_folders, "verify_stored", counted)
    with pytest.raises(KeyboardInterrupt):
        ckptfmt.verify_folder(run, resume=state)
    assert state.exists()
    (tmp_path / "state.current").write_text(
        json.dumps({"ckptfmt_verify": 1, "manifest": "00", "checked": 5, "damaged": []})
    )  # of one that was pruned
    report = ckptfmt.verify_folder(run, resume=state)
    names = [path.name for path in steps(run)]
    assert checked == [*names, names[0], names[2]]  # what was damaged is looked at again, what was whole is not
    assert [one.ok for one in report.reports] == [False, True, True]
    assert list(report.reports) == [ckptfmt.verify(path) for path in steps(run)]
    assert os.listdir(tmp_path) == ["run"]


def test_a_resume_file_of_something_else(run: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    for text in ("other", "{}", json.dumps({verification_of_folders.FORM: 1, "folder": "elsewhere", "whole": {}})):
        state.write_text(text)
        with pytest.raises(ckptfmt.InputError) as caught:
            ckptfmt.verify_folder(run, resume=state)
        assert caught.value.code == "bad-option"
        assert verify("--resume", state, run).exit_code == 2
        assert state.read_text() == text


def test_a_step_that_is_pruned_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = verification_of_folders.verify_stored

    def pruned(checkpoint: StoredCheckpoint, *further: Any) -> Any:
        if os.path.isdir(checkpoint.path):
            shutil.rmtree(checkpoint.path)
        return check(checkpoint, *further)

    monkeypatch.setattr(verification_of_folders, "verify_stored", pruned)
    report = ckptfmt.verify_folder(run)
    assert report.ok
    assert [one.path for one in report.reports] == [str(steps(run)[0])]


def test_a_folder_without_checkpoints_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    result = verify(tmp_path)
    assert result.exit_code == 2
    assert result.stderr.endswith("[not-a-checkpoint]\n")
    assert ckptfmt.verify_folder(tmp_path).reports == ()
    with pytest.raises(ckptfmt.CkptError, match="no such folder"):
        ckptfmt.verify_folder(tmp_path / "absent")
    assert verify(tmp_path / "x").stderr.endswith("[not-a-checkpoint]\n")


def test_one_bar_for_all(run: Path) -> None:
    code, shown, _ = on_terminal("verify", str(run), stream=2)
    assert code == 0
    assert "verify" in shown or "KiB" in shown


def test_on_a_store(store: Store) -> None:
    folder = store.url.rpartition("/")[0]
    for number, layout in enumerate(LAYOUTS):
        save(store.at(f"step-{number}.ckpt"), TREE, layout=layout)
        save(store.at(f"below/{number}.ckpt"), TREE, layout=layout)
    report = ckptfmt.verify_folder(folder, storage_options=store.options)
    assert report.ok
    assert [one.path for one in report.reports] == [f"{folder}/step-{number}.ckpt" for number in range(3)]
    assert {one.tensors for one in report.reports} == {2}
    assert len(ckptfmt.verify_folder(folder, recursive=True, storage_options=store.options).reports) == 6
