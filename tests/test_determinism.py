"""The same tree and options give the same bytes. [MAN-009]"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.testing.strategies import arrays, trees

Scratch = Callable[[], AbstractContextManager[str]]

LAYOUTS = ("file", "packed", "loose")
COMPRESSIONS = (None, "zstd", "gzip", "blosc")


def content(path: Path) -> dict[str, bytes]:
    """Every file of a checkpoint, by its name in it."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@given(trees(), st.sampled_from(LAYOUTS), st.sampled_from(COMPRESSIONS))
def test_two_saves(scratch: Scratch, tree: Any, layout: str, compression: Any) -> None:
    with scratch() as folder:
        one, other = Path(folder) / "one.ckpt", Path(folder) / "elsewhere" / "other"
        other.parent.mkdir()
        reports = [
            ckptfmt.save(path, tree, layout=layout, compression=compression, metadata={"x": 1}, durable=False)
            for path in (one, other)
        ]
        assert content(one) == content(other)
        assert reports[0].manifest_sha256 == reports[1].manifest_sha256


@given(trees(), st.sampled_from(LAYOUTS), st.sampled_from(COMPRESSIONS))
def test_saving_what_was_loaded(scratch: Scratch, tree: Any, layout: str, compression: Any) -> None:
    with scratch() as folder:
        one, other = Path(folder) / "one", Path(folder) / "other"
        options = {"layout": layout, "compression": compression, "durable": False}
        ckptfmt.save(one, tree, **options)
        ckptfmt.save(other, ckptfmt.load(one), **options)
        assert content(one) == content(other)


@given(arrays(), st.sampled_from(LAYOUTS))
def test_memory_layout_is_no_part_of_a_checkpoint(scratch: Scratch, array: Any, layout: str) -> None:
    with scratch() as folder:
        one, other = Path(folder) / "one", Path(folder) / "other"
        ckptfmt.save(one, {"x": array}, layout=layout, durable=False)
        ckptfmt.save(other, {"x": array.astype(array.dtype.newbyteorder("=")).copy("F")}, layout=layout, durable=False)
        assert content(one) == content(other)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_it_is_published_is_no_part_of_a_checkpoint(tmp_path: Path, layout: str) -> None:
    tree = {"a": np.arange(100_000), "b": [np.zeros(3), "text"]}
    ckptfmt.save(tmp_path / "one", tree, layout=layout, durable=False)
    ckptfmt.save(tmp_path / "other", {"before": 1}, layout=layout, durable=False)
    ckptfmt.save(tmp_path / "other", tree, layout=layout, overwrite=True, durable=True)
    assert content(tmp_path / "one") == content(tmp_path / "other")


PROGRAM = """
import os, sys
import numpy as np
import ckptfmt

os.umask(int(sys.argv[2]))
rng = np.random.default_rng(3)
shared = rng.standard_normal((700, 500))
tree = {
    "weights": {f"layer{i}": rng.standard_normal((64, 65)).astype(np.float32) for i in range(20)},
    "large": shared,
    "again": shared,
    "plain": {"a": 1, 2: "b", "c": [None, 1.5, b"x"]},
}
for layout in ("file", "packed", "loose"):
    for compression in (None, "zstd", "gzip", "blosc"):
        ckptfmt.save(f"{sys.argv[1]}/{layout}-{compression}", tree, layout=layout, compression=compression,
                     metadata={"k": 1}, schema=("s", "1"), durable=False)
"""


def test_other_processes(tmp_path: Path) -> None:
    """With another hash seed, time zone, locale, umask, working directory and number of threads."""
    found = []
    for seed, zone, umask, threads in (("0", "UTC", 0o022, "1"), ("4711", "Asia/Tokyo", 0o077, "7")):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": zone,
            "LC_ALL": "C",
            "BLOSC_NTHREADS": threads,
            "PYTHONPATH": str(Path(ckptfmt.__file__).parent.parent) + os.pathsep + os.environ.get("PYTHONPATH", ""),
        }
        command = [sys.executable, "-W", "error", "-c", PROGRAM, str(folder), str(umask)]
        subprocess.run(command, env=environment, cwd=folder, check=True)
        found.append({path.name: digest(content(path)) for path in folder.iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 12


def digest(files: dict[str, bytes]) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
