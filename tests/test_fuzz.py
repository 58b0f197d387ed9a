"""A few thousand mutants of small checkpoints, and of files of other formats: each ends in values or in a `CkptError`,
within a second and 16 times its size and 64 MiB. tests/fuzz/README.md says how to run a million. [SEC-006] [LIM-003]"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest
from fuzz import bundles, mutations, seeds, targets
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.errors import fault

CHECKPOINTS = dict(seeds.checkpoints())


ATHERIS = """
import contextlib, sys

@contextlib.contextmanager
def instrument_imports(**options):
    before = set(sys.modules)
    yield
    print(*sorted(set(sys.modules) - before))

def Setup(*arguments, **options):
    pass

def Fuzz():
    pass
"""


def test_what_reads_is_instrumented(tmp_path: Path) -> None:
    """Else nothing would guide the long runs. The stand-in for atheris tells what is imported under it."""
    (tmp_path / "atheris.py").write_text(ATHERIS)
    command = [sys.executable, "-m", "tests.fuzz", "npz", str(tmp_path / "corpus")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    rooms = [root / "ckptfmt" / room for room in ("format", "layouts", "reading", "conversion", "maintenance")]
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts) for room in rooms for path in room.rglob("[!_]*.py")
    }
    assert "ckptfmt.format.manifest" in modules
    assert modules <= set(done.stdout.split())


def test_seeds_are_checkpoints_that_hold() -> None:
    """Else the mutants would not get past what is broken."""
    for name, data in CHECKPOINTS.items():
        storage = bundles.storage_of(data)
        with targets.in_this_thread(), pytest.MonkeyPatch.context() as patch:
            patch.setattr("ckptfmt.reading.checkpoint.storage_for", lambda *_, storage=storage, **options: storage)
            with ckptfmt.open(name) as checkpoint:
                assert [damage.code for damage in checkpoint.verify().damage] in ([], ["frame-digest"])


@targets.guarded(0)
def spend(seconds: float) -> None:
    """Take so much of the processor's time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_what_no_input_may_do_is_seen() -> None:
    with targets.guarded(0):
        np.ones(1 << 20)
    with pytest.raises(targets.Finding, match="memory"), targets.guarded(1000):
        np.empty(200 << 20, np.uint8)
    with pytest.raises(targets.Finding, match="KeyError"), targets.guarded(0):
        {}["x"]
    with pytest.raises(targets.Finding, match="took"):
        spend(1.1)
    with pytest.raises(ckptfmt.CkptError), targets.guarded(0):
        raise fault("bad-manifest", "as it should be")


def test_mutants_of_checkpoints() -> None:
    rng = Random(20261125)
    pool = list(CHECKPOINTS.values())
    with targets.in_this_thread():
        for _ in range(2000):
            targets.checkpoint(mutations.bundle(rng.choice(pool), rng))


@settings(max_examples=300)
@given(st.sampled_from(sorted(CHECKPOINTS)), st.randoms(use_true_random=False), st.integers(1, 3))
def test_mutants_of_mutants(name: str, rng: Random, times: int) -> None:
    """Hypothesis chooses, and makes what it finds small."""
    data = CHECKPOINTS[name]
    for _ in range(times):
        data = mutations.bundle(data, rng)
    with targets.in_this_thread():
        targets.checkpoint(data)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_checkpoint(data: bytes) -> None:
    with targets.in_this_thread():
        targets.checkpoint(data)
        targets.checkpoint(bundles.Bundle("file", data, {"": b""}).encode())
        targets.checkpoint(bundles.Bundle("packed", data, {}).encode())


@pytest.mark.parametrize("format", targets.IMPORTERS)
def test_mutants_of_files_of_other_formats(format: str) -> None:
    rng = Random(20261125)
    if format.startswith("torch"):
        pytest.importorskip("torch")
    target, files = targets.importer(format), [data for _, data in seeds.foreign(format)]
    change = mutations.FOREIGN.get(format, mutations.any_bytes)
    with targets.in_this_thread():
        for data in files:
            target(data)
        for _ in range(300):
            target(change(rng.choice(files), rng))
