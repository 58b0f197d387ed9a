"""The example loop: stopped by a real signal, it goes on to the bit."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from test_examples import EXAMPLES, ROOT, run

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
