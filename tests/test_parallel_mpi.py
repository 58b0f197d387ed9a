"""The coordinator over MPI, with real MPI processes where MPI is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt.testing import assert_same_tree

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))


@pytest.fixture(scope="module", autouse=True)
def mpi() -> None:
    if MPIEXEC is None:
        pytest.skip("mpiexec is not installed")
    check = subprocess.run([sys.executable, "-c", "from mpi4py import MPI"], capture_output=True, text=True)
    if check.returncode:
        pytest.skip(f"mpi4py cannot be imported: {check.stderr.splitlines()[-1]}")


PROGRAM = """
import sys
import numpy as np
from mpi4py import MPI
import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded

path, coordinator = sys.argv[1], ckptfmt.MPICoordinator(MPI.COMM_WORLD)
rank, size = coordinator.rank, coordinator.size
whole = np.arange(12).reshape(6, 2)
rows = slice(6 * rank // size, 6 * (rank + 1) // size)
mine = Sharded(whole.shape, whole.dtype, (Shard((rows.start, 0), whole[rows]),))
tree = {"x": mine, "own": {str(rank): np.full(3, rank)}, "size": size}
report = ckptfmt.save(path, tree, coordinator=coordinator)
assert report.tensors == 1 + size
for tree, code, own in (({"step": rank}, "ranks-differ", "ranks-differ"), ({"x": mine, "y": object()}, "", "")):
    if rank and "y" in tree:
        del tree["y"]
    try:
        ckptfmt.save(path + "-not", tree, coordinator=coordinator)
    except ckptfmt.CkptError as error:
        assert error.code == (code or ("rank-failed" if rank else "unsupported-leaf")), error
    else:
        assert size == 1 and code, "it should fail"
ckptfmt.save(path, {"x": mine}, coordinator=coordinator, overwrite=True)
"""


@pytest.mark.parametrize("size", [1, 3])
def test_mpi_processes(tmp_path: Path, size: int) -> None:
    command = [str(MPIEXEC), "-n", str(size), sys.executable, "-c", PROGRAM, str(tmp_path / "x.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), {"x": np.arange(12).reshape(6, 2)})
    assert ckptfmt.verify(tmp_path / "x.ckpt").ok
    assert {file.name for file in tmp_path.iterdir()} <= {"x.ckpt", "x.ckpt-not"}


KILLED = """
import os, signal, sys
import numpy as np
from mpi4py import MPI
import ckptfmt
from ckptfmt.frameworks.sources import Lazy

class Killing(Lazy):
    shape, dtype = (3,), np.dtype(float)

    def __getitem__(self, region):
        os.kill(os.getpid(), signal.SIGKILL)

coordinator = ckptfmt.MPICoordinator(MPI.COMM_WORLD)
tree = {"y": Killing()} if coordinator.rank else {}
ckptfmt.save(sys.argv[1], tree, coordinator=coordinator, overwrite=True)
"""


def test_a_process_that_is_killed_ends_the_job(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"step": 1}, layout="packed")
    command = [str(MPIEXEC), "-n", "2", sys.executable, "-c", KILLED, str(tmp_path / "x.ckpt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert ckptfmt.load(tmp_path / "x.ckpt") == {"step": 1}
