"""The example loops: stopped by a real signal or killed, they go on to the bit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import EXAMPLES, ROOT, run

from ckptfmt.manager import CheckpointManager
from ckptfmt.testing import equal_trees


def test_the_loop_resumes_to_the_bit(tmp_path: Path) -> None:
    straight = run(EXAMPLES / "manager_loop.py", "straight", 3000, cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    assert straight.stdout.startswith("starting at step 0\nstopped at step 3000; kept 100, 200, 300, ")

    command = [sys.executable, "-W", "error", str(EXAMPLES / "manager_loop.py"), "stopped", "3000"]
    process = subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "stopped").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    stopped = int(re.findall(r"stopped at step (\d+)", output)[0])
    assert 0 < stopped < 3000

    again = run(EXAMPLES / "manager_loop.py", "stopped", 3000, cwd=tmp_path)
    assert again.stdout.startswith(f"starting at step {stopped}\nstopped at step 3000; ")
    one, other = (CheckpointManager(tmp_path / name) for name in ("straight", "stopped"))
    assert equal_trees(one.restore(), other.restore())
    assert one.latest().metrics == other.latest().metrics


@pytest.mark.parametrize(
    ("example", "package", "number"),
    [("torch_training.py", "torch", signal.SIGKILL), ("nnx_training.py", "flax", signal.SIGTERM)],
)
def test_loops_of_frameworks_resume_to_the_bit(
    tmp_path: Path, example: str, package: str, number: signal.Signals
) -> None:
    pytest.importorskip(package)
    steps = 60
    straight = run(EXAMPLES / example, "straight", steps, cwd=tmp_path)
    assert straight.returncode == 0, straight.stderr
    assert straight.stdout.startswith(f"starting at step 0\nstopped at step {steps}; kept ")

    command = [sys.executable, str(EXAMPLES / example), "stopped", str(steps)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths})
    while len(CheckpointManager(tmp_path / "stopped").steps()) < 2 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    assert process.wait(60) in (0, -number)

    again = run(EXAMPLES / example, "stopped", steps, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"stopped at step {steps}; kept " in again.stdout
    one, other = (CheckpointManager(tmp_path / name) for name in ("straight", "stopped"))
    assert one.latest().metrics == other.latest().metrics
    pairs = zip(*(Path(each.latest().path).read_bytes() for each in (one, other)), strict=True)
    assert all(a == b for a, b in pairs), "the last checkpoints are the same bytes"
