"""The table of docs/formats.md: what each format holds, as this code has it, and how a tensor of it is read.

`python tests/test_format_table.py` writes it; a test here holds it true.
"""

from __future__ import annotations

import mmap
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import as_far_as_packages_go

from ckptfmt.conversion import FORMATS, open_source
from ckptfmt.conversion.source import LazyArray, is_tensor, walk
from ckptfmt.conversion.table import OWN, writer_of
from ckptfmt.format.dtypes import DTYPES

TABLE = Path(__file__).parents[1] / "docs" / "formats.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"
# the library that writes the test files of a format: in the test run, or once, for files in tests/data
WRITTEN_BY = {
    **{"safetensors": "safetensors", "torch": "torch", "torchscript": "torch", "torch-export": "torch"},
    **{"torch-dcp": "torch", "npz": "numpy", "npy": "equinox", "pickle": "joblib", "skops": "skops", "flax": "flax"},
    **{"orbax": "orbax-checkpoint", "hdf5": "h5py", "keras": "keras", "gguf": "gguf", "onnx": "onnx", "zarr": "zarr"},
}
ONCE = {
    **{"tflite": "tflite, the package of its schema", "coreml": "coremltools 9.0", "tensorflow": "TensorFlow 2.21.0"},
    **{"deepspeed": "deepspeed 0.19.8", "paddle": "paddlepaddle 3.3.1", "stable-baselines3": "stable-baselines3"},
    **{"diffusers": "diffusers 0.42.1", "tar": "Python itself", "compressed": "Python itself"},
}
# what is read of a source for one tensor, where this is not that tensor: tests/test_convert_partial.py counts it
READ_FOR_ONE = {
    **dict.fromkeys(("orbax", "hdf5", "zarr"), "its chunks"),
    **dict.fromkeys(("torch", "torchscript", "torch-export", "torch-dcp"), "its storage"),
    **{"deepspeed": "its partition; of universal ones itself", "npz": "itself; deflated: all before it"},
    **{"skops": "itself; deflated: all before it", "compressed": "all, once", "keras": "all, once"},
    **{"stable-baselines3": "all, once", "tar": "itself; of folders all, once"},
}
COLUMNS = ("format", "read", "written", "dtypes it lacks", "plain values", "aliases", "metadata")
COLUMNS += ("read for a tensor", "test files by")


def dtypes_lacking(held: frozenset[str]) -> str:
    """What of the format's dtypes is lost, by kinds where that is shorter."""
    lost = [name for name in DTYPES if name not in held]
    return f"{len(lost)} of {len(DTYPES)}: {', '.join(lost)}" if lost else "none"


def written(name: str) -> tuple[str, str, str, str, str]:
    """How a format is written, the dtypes that it lacks, whether it has plain values, aliases, and metadata."""
    format = FORMATS[name]
    if name == OWN:
        return "yes", "none", "yes", "yes", "any"
    if not format.writable:
        return "into a model" if format.template else "", "", "", "", ""
    holds = writer_of(format).HOLDS
    how = "a folder" if format.folder else "one file or several" if format.shards else "yes"
    values = "some" if holds.values else "no"
    if {bool, int, float, str, bytes, type(None)} <= set(holds.values):
        values = "yes"
    metadata = "its own" if holds.metadata({"key": "text"}, {}).lost else "any"
    return how, dtypes_lacking(holds.dtypes), values, "yes" if holds.aliases else "no", metadata


def row(name: str) -> list[str]:
    by = ONCE.get(name) or (
        f"{WRITTEN_BY[name]} {version(WRITTEN_BY[name]).partition('+')[0]}" if name in WRITTEN_BY else ""
    )
    how, *more = written(name)
    return [f"`{name}`", "yes", how, *more, READ_FOR_ONE.get(name, "itself"), by]


def without_versions(cells: list[str]) -> list[str]:
    return [*cells[:-1], cells[-1].partition(" ")[0]]


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_is_true(name: str) -> None:
    with as_far_as_packages_go():
        lines = TABLE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()
        table = {cells[0]: cells for cells in ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)}
        assert [*table] == ["format", "---", *(f"`{name}`" for name in FORMATS)]
        assert without_versions(table[f"`{name}`"]) == without_versions(row(name)), "python tests/test_format_table.py"


def over_a_file(array: Any) -> bool:
    base = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return isinstance(base, mmap.mmap)


AMONG_VALUES = {"flax", "pickle", "paddle", "compressed"}  # where small tensors stand among the plain values


@pytest.mark.filterwarnings("ignore")  # of what frameworks import
@pytest.mark.parametrize("name", sorted(set(FORMATS) - {OWN, "torchscript", "npy", "skops", "stable-baselines3"}))
def test_a_tensor_is_read_without_the_rest(tmp_path: Path, name: str) -> None:
    from test_cli_inspect import save_as

    if name == "deepspeed":
        pytest.skip("its tensors are put together from the parts of all ranks: tests/test_convert_deepspeed.py")
    save_as(name, tmp_path / "model")
    with open_source(str(tmp_path / "model")) as source:
        tensors = [leaf for _, leaf in walk(source.tree) if is_tensor(leaf)]
        assert tensors
        for tensor in tensors:
            assert (
                isinstance(tensor, LazyArray) or over_a_file(tensor) or (name in AMONG_VALUES and tensor.nbytes < 100)
            )


def write_table() -> None:
    before, _, after = TABLE.read_text().partition(BEGIN)
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *map(row, FORMATS)]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    TABLE.write_text(f"{before}{BEGIN}{lines}{END}{after.partition(END)[2]}")


if __name__ == "__main__":
    write_table()
