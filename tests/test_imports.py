"""What `import ckptfmt` and plain work with it import: little, and no framework. Each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import ckptfmt

# beyond the standard library; xxhash when a checkpoint is opened, zlib_ng when saving
LIGHT = {"ckptfmt", "numpy", "msgpack", "xxhash", "zlib_ng"}
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
    assert imported("ckptfmt.open") == LIGHT - {"xxhash", "zlib_ng"}


# all modules of the package that opening a file and reading a slice import: what a program waits for that does no more
OF_A_SLICE = """
ckptfmt ckptfmt._version ckptfmt.api ckptfmt.calls ckptfmt.checkpoint ckptfmt.errors ckptfmt.format
ckptfmt.format.arrays ckptfmt.format.chunk_table ckptfmt.format.chunks ckptfmt.format.codecs ckptfmt.format.commit
ckptfmt.format.digests ckptfmt.format.documents ckptfmt.format.dtypes ckptfmt.format.grid ckptfmt.format.limits
ckptfmt.format.manifest ckptfmt.format.memory ckptfmt.format.names ckptfmt.format.node ckptfmt.format.spec_columns
ckptfmt.format.tree ckptfmt.layouts ckptfmt.layouts.chunk_index ckptfmt.layouts.file ckptfmt.on_demand ckptfmt.reading
ckptfmt.reading.blocks ckptfmt.reading.checkpoint ckptfmt.reading.fetch ckptfmt.reading.located ckptfmt.reading.lookup
ckptfmt.reading.tensor ckptfmt.reading.view ckptfmt.storage ckptfmt.storage.descriptor ckptfmt.storage.disk
ckptfmt.storage.local ckptfmt.tuples
"""
# of the standard library, those that a small program has not: each takes longer than the slice
NOT_OF_A_SLICE = """
_hashlib asyncio concurrent copy dataclasses decimal difflib email fcntl fractions hashlib heapq http importlib.metadata
json logging mmap multiprocessing queue random secrets shutil signal socket subprocess tempfile threading uuid zipfile
"""
SLICE = """
import re, sys, numpy
before, compiled = set(sys.modules), []
import msgpack  # which compiles something
re._compile = None  # no regular expression is compiled
sys.addaudithook(lambda event, arguments: compiled.append(arguments) if event == "compile" else None)
import ckptfmt
with ckptfmt.open(sys.argv[1]) as checkpoint:
    assert checkpoint["layers/1/w"][1:3].tolist() == [1, 1]
print(*sorted(set(sys.modules) - before))
print(*[arguments[0] for arguments in compiled])
"""


def test_opening_and_slicing_import_what_they_need(tmp_path: Path) -> None:
    """And nothing is compiled for them: no annotation, no constructor of a class, no regular expression."""
    ckptfmt.save(tmp_path / "x", {"layers": [{"w": np.full(4, i), "b": np.zeros(2, "f4")} for i in range(9)]})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(2):  # the first time Python compiles the modules
        done = subprocess.run(
            [sys.executable, "-c", SLICE, tmp_path / "x"],
            env={**environment, "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")},
            capture_output=True,
            text=True,
            check=True,
        )
    found, compiled = done.stdout.split("\n")[:2]
    names = set(found.split())
    assert {name for name in names if name.partition(".")[0] == "ckptfmt"} == set(OF_A_SLICE.split())
    others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ckptfmt"}
    assert {name for name in others if "cython" not in name} == {"msgpack", "xxhash"}
    assert names & set(NOT_OF_A_SLICE.split()) == set()
    assert compiled == ""


def test_more_is_imported_when_it_is_needed(tmp_path: Path) -> None:
    """Of a tree with tags, options, and a cast: so the list above says something."""
    ckptfmt.save(tmp_path / "x", {"a": np.zeros(3, "M8[s]"), "b": np.arange(4)})
    code = "import ckptfmt, sys\nwith ckptfmt.open(sys.argv[1], prefix='a') as checkpoint: checkpoint[()]"
    code += "\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True, check=True)
    assert {"ckptfmt.format.tags", "ckptfmt.format.renaming", "ckptfmt.options"} <= set(done.stdout.split())


def test_every_public_name_is_there() -> None:
    assert sorted(ckptfmt.__all__) == sorted(set(ckptfmt._ON_DEMAND) | {"__version__"})
    for name in ckptfmt.__all__:
        assert getattr(ckptfmt, name) is not None


@pytest.mark.parametrize("name", ["errors", "manager", "testing"])
def test_a_public_module_is_there_without_an_import_of_its_own(name: str) -> None:
    """And is imported when it is asked for, not before."""
    code = f"assert 'ckptfmt.{name}' not in sys.modules; ckptfmt.{name}.__name__"
    assert "ckptfmt" in imported(code)
    assert not imported(code) & HEAVY


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
    assert found >= LIGHT - {"xxhash"} | more
    assert not found & HEAVY


@pytest.mark.parametrize("command", ["inspect", "ls", "verify"])
def test_commands_that_look_at_no_element_import_no_ml_dtypes(tmp_path: Path, command: str) -> None:
    """Whose release 0.7.0 takes longer to import than all else together."""
    ckptfmt.save(tmp_path / "x", {"a": np.zeros((3, 4), ml_dtypes.bfloat16), "b": np.zeros(3, ml_dtypes.int4)})
    code = "import sys\nfrom ckptfmt.cli import main\nmain(sys.argv[1:])\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, command, tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bfloat16" in done.stdout or command != "inspect"
    assert "ml_dtypes" not in done.stdout.splitlines()[-1].split()


def test_zarr_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    code = "ckptfmt.save(sys.argv[1], {}); checkpoint = ckptfmt.open(sys.argv[1])\n"
    assert not imported(f"{code}checkpoint.tree", tmp_path / "x") & HEAVY
    assert "zarr" in imported(f"{code}checkpoint.zarr", tmp_path / "y")


def test_the_command_line_is_imported_by_nobody_else() -> None:
    assert "click" not in imported(
        "import ckptfmt.maintenance.verification, ckptfmt.api, ckptfmt.writing.writer, ckptfmt.testing"
    )


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_an_adapter_imports_no_way_to_save(framework: str) -> None:
    """Nor what many processes say to each other: beside the framework it is cheap."""
    pytest.importorskip(framework)
    code = f"import sys, ckptfmt_{framework}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {
        "ckptfmt.api",
        "ckptfmt.layouts",
        "ckptfmt.parallel",
        "ckptfmt.reading.checkpoint",
        "ckptfmt.storage",
        "ckptfmt.writing.writer",
    }
