"""What a program leaves open when it ends is closed by the system: no word on stderr, whatever is torn down first."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ckptfmt

ROOT = Path(__file__).parents[1]
HEAD = """
import ctypes, gc, json, sys, threading
import ckptfmt, ckptfmt.manager

def outlive():
    "Modules live on, emptied one after the other, as where a library holds them."
    for module in list(sys.modules.values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))

path = sys.argv[1]
opened = ckptfmt.open(path)
tensor = opened["w"]
"""
WAYS = {
    "a global": "kept = opened, tensor",
    "in another module": "json.kept = opened",
    "a tensor in another module": "json.kept = tensor; del opened, tensor",
    "in a class": "class Holder:\n    kept = opened\nHolder.me = Holder",
    "in a circle": "circle = [opened]; circle.append(circle); json.kept = circle; gc.disable()",
    "in a generator": (
        "def run():\n    with ckptfmt.open(path) as kept:\n        yield kept\njson.kept = run(); next(json.kept)"
    ),
    "in a thread that sleeps": (
        "def sleep(kept): threading.Event().wait()\nthreading.Thread(target=sleep, args=(opened,), daemon=True).start()"
    ),
    "a mapped array": "json.kept = ckptfmt.load(path, mmap=True)",
    "after an error": "json.kept = opened; raise SystemExit(0)",
    "in a module that is emptied after ours": "json.kept = opened; outlive()",
    "a lease in such a module": ("from ckptfmt.storage.leases import hold\njson.kept = hold(path); outlive()"),
    "a load that ended early, in such a module": (
        "from ckptfmt.threads import Pool\njson.kept = Pool(2, 'x'); json.kept.submit(int)\noutlive()"
    ),
    "closed before": "json.kept = opened; opened.close()",
    "a lease": "from ckptfmt.storage import leases\njson.kept = leases.lease(path); json.kept.__enter__()",
    "a lease by itself": "from ckptfmt.storage.leases import hold\njson.kept = hold(path)",
    "a save that was begun": (
        "from ckptfmt.storage import attempt_for\n"
        "json.kept = attempt_for(path + '.new', directory=False, overwrite=False, durable=False, options=None)\n"
        "json.kept.create('').write(0, b'x')"
    ),
    "a manager": (
        "from ckptfmt.manager import CheckpointManager\n"
        "json.kept = CheckpointManager(path + '.run'); json.kept.save(1, {'a': 1})\n"
        "json.context = json.kept.open(); json.context.__enter__()"
    ),
}


def ended(path: Path, program: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", HEAD + program, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("way", WAYS)
def test_open_checkpoints_at_exit(tmp_path: Path, way: str) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"w": np.zeros((10, 3))}, durable=False)
    done = ended(tmp_path / "x.ckpt", f"outlive()\n{WAYS[way]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_readers_and_writers_of_torch_at_exit(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"w": np.zeros((10, 3))}, durable=False)
    program = """
from ckptfmt_torch.dcp import StorageReader, StorageWriter
outlive()
json.kept = StorageReader(path), StorageWriter(path + ".new")
json.kept[0].read_metadata()
"""
    done = ended(tmp_path / "x.ckpt", program)
    assert (done.returncode, done.stderr) == (0, "")
