"""What goes wrong on one rank of a group of real processes, over each kind of coordinator: all end at once, with the
rank and its error, leave nothing behind, and save again as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rank_failures
from rank_failures import CASES

import ckptfmt

PROMPTLY = 60.0  # seconds on a busy machine; the coordinators' timeout is 300
OWN = {"files": None, "torch": "torch", "jax": "jax", "mpi": "mpi4py"}  # the package that a kind needs


def launch(kind: str, end: str, folder: Path, size: int) -> dict[int, dict[str, Any]]:
    """What each rank that lived to the end met."""
    if OWN[kind] is not None:
        pytest.importorskip(OWN[kind])
    mail = folder / "mail"
    mail.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (mail / "address").write_text(f"127.0.0.1:{free.getsockname()[1]}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, rank_failures.__file__, kind, end, str(folder)]
    commands = [[*command, str(rank), str(size)] for rank in range(size)]
    if kind == "mpi":
        mpiexec = shutil.which("mpiexec", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
        if mpiexec is None:
            pytest.skip("mpiexec is not installed")
        commands = [[mpiexec, "-n", str(size), *command, "0", "0"]]
    words = (folder / "words").open("w")
    ranks = [subprocess.Popen(each, env=environment, stdout=words, stderr=words) for each in commands]
    try:
        for process in ranks:
            process.wait(timeout=120)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
        words.close()
    said = {int(path.stem[4:]): json.loads(path.read_text()) for path in mail.glob("met-*.json")}
    assert said, (folder / "words").read_text()
    return said


@pytest.mark.parametrize(
    ("kind", "size", "end"), [("files", 3, "killed"), ("torch", 3, "killed"), ("jax", 2, "closed"), ("mpi", 3, "")]
)
def test_what_goes_wrong_on_one_rank(tmp_path: Path, kind: str, size: int, end: str) -> None:
    odd = 0 if kind == "files" else 1
    said = launch(kind, end, tmp_path, size)
    there = set(range(size)) - ({2} if end == "killed" else set())
    assert set(said) == there, (tmp_path / "words").read_text()
    for case, (_, own, others) in CASES.items():
        for rank in there:
            met = said[rank][case]
            expected = own if rank == odd else others
            assert met["code"] == expected, (case, rank, met)
            assert met["seconds"] < PROMPTLY, (case, rank, met)
            if expected == "rank-failed":
                assert met["ranks"] == [odd]
                assert f"rank {odd} failed: " in met["text"]
                assert own in met["text"], "its error"
            if expected == "ranks-differ":
                assert "ranks 0 and 1" in met["text"]
        if own == "ranks-differ":
            assert len({said[rank][case]["text"].partition("ranks 0")[2] for rank in there}) == 1, case
    ended = [said[rank][name] for rank in there for name in ("killed", "after", "closed") if name in said[rank]]
    assert len(ended) == {"killed": 4, "closed": 1, "": 0}[end]
    for met in ended:
        assert (met["code"], met["ranks"]) == ("rank-lost", [size - 1])
        why = "its process has ended, or was killed" if end == "killed" else "it has closed its coordinator"
        assert f"rank {size - 1} is gone: {why}" in met["text"]
        assert met["seconds"] < PROMPTLY
    ckptfmt.gc(tmp_path, delete=True, grace=0)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"good", "x", "run", "mail", "words"}, "a killed rank leaves what gc finds, the others nothing"
    for path in ("good", "x"):
        assert ckptfmt.verify(tmp_path / path).ok
    assert ckptfmt.verify_folder(tmp_path / "run").ok
