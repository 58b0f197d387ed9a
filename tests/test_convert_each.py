"""Whole folders of checkpoints, converted by any executor."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import ckptfmt
from ckptfmt.cli.app import cli

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def spawned() -> Executor:
    """As the command line makes it, by its name."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints of three formats, and what is none."""
    sources = tmp_path / "sources"
    sources.mkdir()
    safetensors.numpy.save_file({"a": MATRIX}, sources / "one.safetensors")
    np.savez(sources / "two.npz", b=MATRIX)
    ckptfmt.save(sources / "three", {"c": MATRIX}, layout="loose")
    (sources / "notes.txt").write_text("no checkpoint")
    (sources / ".hidden").write_text("")
    (sources / "folder").mkdir()
    return sources


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(MATRIX.tobytes())] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("make", [None, ThreadPoolExecutor, spawned])
def test_each_is_converted(folder: Path, make: object) -> None:
    seen: list[tuple[int, int]] = []
    options = {"progress": lambda *call: seen.append(call), "durable": False}
    if callable(make):
        with make() as executor:
            outcomes = ckptfmt.convert_each(folder, folder.parent / "out", executor=executor, **options)
    else:
        outcomes = ckptfmt.convert_each(folder, folder.parent / "out", **options)
    assert [Path(outcome.target).name for outcome in outcomes] == ["one.ckpt", "three.ckpt", "two.ckpt"]
    assert all(outcome.error is None and outcome.report is not None for outcome in outcomes)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert ckptfmt.load(folder.parent / "out" / "two.ckpt")["b"].tolist() == MATRIX.tolist()


def test_one_that_fails_does_not_keep_the_others(folder: Path) -> None:
    damage(folder / "three" / "tensors" / "c" / "c" / "0" / "0")
    with spawned() as executor:  # errors travel
        outcomes = ckptfmt.convert_each(folder, folder.parent / "out", executor=executor, target_format="safetensors")
    errors = {Path(outcome.target).name: outcome.error for outcome in outcomes}
    assert {name: error and error.code for name, error in errors.items()} == {
        "one.safetensors": None,
        "three.safetensors": "block-digest",
        "two.safetensors": None,
    }
    again = ckptfmt.convert_each(folder, folder.parent / "out", target_format="safetensors")
    assert [outcome.error and outcome.error.code for outcome in again] == ["exists", "block-digest", "exists"]


def test_two_targets_of_one_name(folder: Path) -> None:
    np.savez(folder / "one.npz", b=MATRIX)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert_each(folder, folder.parent / "out")
    assert raised.value.code == "name-collision"
    assert not (folder.parent / "out").exists()
    assert raised.value.advice == "Rename one of them"
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.convert_each(folder / "absent", folder.parent / "out")


def test_one_that_cannot_be_read_takes_the_place_of_no_other(folder: Path) -> None:
    """Though it is called like the target of another."""
    (folder / "three.ckpt").write_bytes(b"PK\3\4" + bytes(60))
    outcomes = ckptfmt.convert_each(folder, folder.parent / "out")
    told = {Path(outcome.source).name: outcome.error and outcome.error.code for outcome in outcomes}
    assert told == {"one.safetensors": None, "three": None, "three.ckpt": "bad-source", "two.npz": None}
    assert ckptfmt.load(folder.parent / "out" / "three.ckpt")["c"].tolist() == MATRIX.tolist()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def test_the_command(folder: Path) -> None:
    out = folder.parent / "out"
    done = run("--each", "--executor", "concurrent.futures:ThreadPoolExecutor", folder, out)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "3 checkpoints converted, 0 failed"
    refused = run("--each", folder, out)
    assert refused.exit_code == 2
    assert refused.stderr.count("or replace it: --overwrite [exists]") == 3
    damage(folder / "three" / "tensors" / "c" / "c" / "0" / "0")
    damaged = run("--each", "-f", "--json", "--executor", "test_convert_each:spawned", folder, out)
    assert damaged.exit_code == 1
    document = json.loads(damaged.stdout)
    assert (document["converted"], document["failed"]) == (2, 1)
    assert document["outcomes"][1]["error"]["code"] == "block-digest"
    assert document["outcomes"][0]["report"]["verified"] is True


def test_options_have_the_names_of_the_command(folder: Path) -> None:
    ckptfmt.save(folder / "three", {"c": MATRIX, "text": "of no use"}, overwrite=True)
    refused = run("--each", "--to", "safetensors", folder, folder.parent / "out")
    assert "take a part (--root, --select), or allow it: --allow-loss value [lossy]" in refused.stderr
    assert "allow_loss" not in refused.stderr
    np.savez_compressed(folder / "zeros.npz", zeros=np.zeros(100 << 20, np.uint8))
    found = json.loads(run("--each", "-f", "--json", "--max-expansion", 16, folder, folder.parent / "out").stdout)
    error = found["outcomes"][-1]["error"]
    assert error["code"] == "limit-exceeded"
    assert Path(error["path"]).name == "zeros.npz"
    assert "--max-expansion " in error["message"]
    assert "max_expansion" not in error["message"]


@pytest.mark.parametrize("name", ["concurrent.futures:Nothing", "nowhere:x", "concurrent.futures", ":"])
def test_executors_that_are_none(folder: Path, name: str) -> None:
    assert "MODULE:FACTORY" in run("--each", "--executor", name, folder, folder.parent / "out").stderr
    assert run("--executor", "concurrent.futures:ThreadPoolExecutor", folder, folder.parent / "out").exit_code == 2
