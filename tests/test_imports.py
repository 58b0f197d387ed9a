"""What `import ckptfmt` and plain work with it import: little, and no framework. Each in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ckptfmt

LIGHT = {"ckptfmt", "numpy", "msgpack", "xxhash", "zlib_ng"}  # beyond the standard library; zlib_ng when saving
HEAVY = {"torch", "jax", "tensorflow", "tensorstore", "zarr", "fsspec", "click", "rich", "asyncio"}
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
MODULES = """
names = {name.partition(".")[0] for name in sys.modules} - before - sys.stdlib_module_names
print(*(name for name in names if "cython" not in name), "asyncio" if "asyncio" in sys.modules else "")
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
    assert imported("") == {"ckptfmt"}
    assert imported("ckptfmt.open") == LIGHT - {"zlib_ng"}


def test_every_public_name_is_there() -> None:
    assert sorted(ckptfmt.__all__) == sorted(set(ckptfmt._ON_DEMAND) | {"__version__"})
    for name in ckptfmt.__all__:
        assert getattr(ckptfmt, name) is not None


def test_plain_work_is_light(tmp_path: Path) -> None:
    """Raw tensors of dtypes that NumPy has: no zarr, no numcodecs, no ml_dtypes."""
    assert imported(f"import numpy as np\n{SAVE_AND_LOAD}", tmp_path / "x") == LIGHT


@pytest.mark.parametrize(
    ("options", "array", "more"),
    [
        ('compression="gzip"', "np.arange(9)", set()),
        ('compression="zstd"', "np.arange(9)", {"numcodecs"}),
        ('compression="blosc"', "np.arange(9)", {"numcodecs"}),
        ("digest='sha256'", "np.zeros(3, ml_dtypes.int4)", {"ml_dtypes"}),
    ],
    ids=["gzip", "zstd", "blosc", "int4"],
)
def test_what_is_used_is_imported(tmp_path: Path, options: str, array: str, more: set[str]) -> None:
    code = "import numpy as np, ml_dtypes" if more == {"ml_dtypes"} else "import numpy as np"
    code += f"; ckptfmt.save(sys.argv[1], {array}, {options}); ckptfmt.load(sys.argv[1])"
    found = imported(code, tmp_path / "x")
    assert found >= LIGHT | more
    assert not found & HEAVY


def test_zarr_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    code = "ckptfmt.save(sys.argv[1], {}); checkpoint = ckptfmt.open(sys.argv[1])\n"
    assert not imported(f"{code}checkpoint.tree", tmp_path / "x") & HEAVY
    assert "zarr" in imported(f"{code}checkpoint.zarr", tmp_path / "y")


def test_the_command_line_is_imported_by_nobody_else() -> None:
    assert "click" not in imported(
        "import ckptfmt.maintenance.verification, ckptfmt.api, ckptfmt.writing.writer, ckptfmt.testing"
    )
