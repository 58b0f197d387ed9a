"""Many checkpoints on the engines that people have: Dask and Ray, both really started."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import ckptfmt

PROGRAM = Path(__file__).with_name("engines.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    for number in range(3):
        weights = {"w": np.full(1000, number, np.float32)}
        safetensors.numpy.save_file(weights, tmp_path / "source" / f"m{number}.safetensors")
    whole = (tmp_path / "source" / "m0.safetensors").read_bytes()
    (tmp_path / "source" / "cut.safetensors").write_bytes(whole[:-5])
    return tmp_path


@pytest.mark.parametrize(("engine", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_folder_is_converted_verified_and_cleaned_on(folder: Path, engine: str, package: str) -> None:
    pytest.importorskip(package)
    command = [sys.executable, "-W", "ignore", PROGRAM, engine, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["converted"] == {"cut.ckpt": "bad-source", "m0.ckpt": "", "m1.ckpt": "", "m2.ckpt": ""}
    assert "is cut off" in said["told"][0]
    assert said["told"][0].startswith(str(folder / "source" / "cut.safetensors"))
    assert said["verified"] == {"m0.ckpt": True, "m1.ckpt": True, "m2.ckpt": True}
    assert said["garbage"] == 0
    assert ckptfmt.load(folder / "target" / "m2.ckpt")["w"][0] == 2


def test_processes_verify_a_folder(folder: Path) -> None:
    ckptfmt.convert_each(folder / "source", folder / "target")
    path = folder / "target" / "m1.ckpt"
    data = bytearray(path.read_bytes())
    data[data.index(np.full(1000, 1, np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    (folder / "target" / "lost.ckpt").touch()
    told: list[tuple[int, int]] = []
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        report = ckptfmt.verify_folder(folder / "target", executor=executor, progress=lambda *at: told.append(at))
        with pytest.raises(ckptfmt.InputError, match="resume="):
            ckptfmt.verify_folder(folder / "target", executor=executor, resume=folder / "state")
    here = ckptfmt.verify_folder(folder / "target")
    assert [one.ok for one in report.reports] == [True, False, True]
    assert report.reports == here.reports
    assert [error.code for error in report.errors] == [error.code for error in here.errors] == ["not-a-checkpoint"]
    assert told[-1][0] == told[-1][1]
