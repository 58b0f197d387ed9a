"""What `import ckptfmt` and plain work with it import: little, and no framework. Each in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIGHT = {"ckptfmt", "numpy", "msgpack", "xxhash", "zlib_ng"}  # beyond the standard library
SAVE_AND_LOAD = """
path = sys.argv[1]
tree = {"a": np.arange(3), "b": [np.array(True), np.zeros(2, "c8")], "c": 1}
for layout in ("file", "loose"):
    ckptfmt.save(path + layout, tree, layout=layout, metadata={"step": 1})
    assert ckptfmt.load(path + layout, mmap=True)["a"].tolist() == [0, 1, 2]
    with ckptfmt.open(path + layout) as checkpoint:
        assert checkpoint["a"][1] == 1
        assert checkpoint.verify().ok
"""
BFLOAT16 = 'ckptfmt.save(sys.argv[1], {"x": np.zeros(2, "bfloat16")}) if 0 else ckptfmt.load(sys.argv[1])'
MODULES = """
names = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(*sorted(names), "asyncio" if "asyncio" in sys.modules else "")
"""


def imported(code: str, *arguments: object) -> set[str]:
    """Top-level modules that an interpreter has after `import ckptfmt` and some code, but for the standard library;
    asyncio, which is slow to import, is named too."""
    text = f"import sys; before = {{name.partition('.')[0] for name in sys.modules}}\nimport ckptfmt\n{code}\n{MODULES}"
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_is_light() -> None:
    assert imported("") == LIGHT


def test_plain_work_is_light(tmp_path: Path) -> None:
    """Raw tensors of dtypes that NumPy has: no zarr, no numcodecs, no ml_dtypes."""
    assert imported(f"import numpy as np\n{SAVE_AND_LOAD}", tmp_path / "x") == LIGHT


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ('ckptfmt.save(path, {"x": np.arange(9)}, compression="gzip"); ckptfmt.load(path)', set()),
        ('ckptfmt.save(path, {"x": np.arange(9)}, compression="zstd"); ckptfmt.load(path)', {"numcodecs"}),
        ("import ml_dtypes; ckptfmt.save(path, np.zeros(3, ml_dtypes.int4)); ckptfmt.load(path)", {"ml_dtypes"}),
        ("ckptfmt.save(path, np.zeros(3)); ckptfmt.open(path).zarr", {"zarr", "numcodecs", "asyncio"}),
    ],
    ids=["gzip", "zstd", "ml_dtypes", "zarr"],
)
def test_what_is_used_is_imported(tmp_path: Path, code: str, more: set[str]) -> None:
    found = imported(f"import numpy as np; path = sys.argv[1]\n{code}", tmp_path / "x")
    assert found >= LIGHT | more
    assert not found & {"torch", "jax", "tensorflow", "tensorstore", "click", "rich", "fsspec"}
    assert "zarr" in more or "zarr" not in found
