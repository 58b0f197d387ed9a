"""What one framework writes, the others read: every pair of registered adapters, every dtype.

`python tests/test_frameworks.py` writes the table in docs/frameworks.md, which a test here holds true.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.format.dtypes import DTYPES, Array, dtype_named
from ckptfmt.frameworks.adapter import Adapter
from ckptfmt.frameworks.sources import whole
from ckptfmt.reading.stand_ins import stand_in
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import filled

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "frameworks.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {name: entry.partition(":")[0] for name, entry in PROJECT["entry-points"]["ckptfmt.adapters"].items()}
FRAMEWORKS = sorted(PACKAGES)
# the version of a framework that brought a dtype, where it admits older ones
SINCE = dict.fromkeys((("jax", "float6_e2m3fn"), ("jax", "float6_e3m2fn")), (0, 11))
SHAPE = (3, 8)  # torch packs elements of four bits in twos


def _x64(on: bool) -> AbstractContextManager[None]:
    import jax

    context: AbstractContextManager[None] = jax.enable_x64(on)
    return context


# name in the table: framework, and the settings under which it runs
COLUMNS: dict[str, tuple[str, Callable[[], AbstractContextManager[Any]]]] = {
    name: (name, nullcontext) for name in FRAMEWORKS if name != "jax"
}
if "jax" in FRAMEWORKS:
    COLUMNS |= {"jax": ("jax", lambda: _x64(False)), "jax, x64": ("jax", lambda: _x64(True))}


@contextmanager
def using(column: str) -> Iterator[Adapter]:
    framework, settings = COLUMNS[column]
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    with settings():
        yield importlib.import_module(PACKAGES[framework]).ADAPTER


def host(adapter: Adapter, tensor: Any) -> Array:
    """The elements of a framework's tensor."""
    source: Any = adapter.lower(tensor)
    return np.asarray(tensor if source is None else source[whole(source.shape)])


def wrapped(column: str, arrays: dict[str, Array]) -> dict[str, Any]:
    """Those arrays that a framework can hold, as its tensors."""
    with using(column) as adapter:
        return {name: adapter.wrap(array.copy()) for name, array in arrays.items() if adapter.supports(name)}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")  # of torch
@pytest.mark.parametrize("reader", COLUMNS)
@pytest.mark.parametrize("writer", COLUMNS)
def test_what_one_writes_the_others_read(tmp_path: Path, writer: str, reader: str) -> None:
    """Bit for bit, NaN payloads and signed zeros too; or an error that names the tensor."""
    arrays = {name: filled(row.numpy, SHAPE, 7) for name, row in DTYPES.items()}
    tensors = wrapped(writer, arrays)
    ckptfmt.save(tmp_path / "x", tensors)
    with using(reader) as adapter, ckptfmt.open(tmp_path / "x") as checkpoint:
        for name in tensors:
            if adapter.supports(name):
                found = checkpoint.load(select=name, framework=adapter)[name]
                assert_same_tree(host(adapter, found), arrays[name])
                like = {name: adapter.wrap(np.zeros_like(arrays[name]))}
                assert_same_tree(host(adapter, checkpoint.load(select=name, like=like)[name]), arrays[name])
                continue
            with pytest.raises(ckptfmt.MismatchError) as caught:
                checkpoint.load(select=name, framework=adapter)
            assert (caught.value.code, caught.value.tensor, caught.value.found) == ("framework-dtype", name, name)


@pytest.mark.parametrize("reader", COLUMNS)
def test_what_a_framework_lacks_can_be_cast(tmp_path: Path, reader: str) -> None:
    """To another dtype of the same kind, with the same values."""
    arrays = {
        name: np.array([1, 1, 1, 0][: 3 if "e8m0" in name else 4]).astype(row.numpy) for name, row in DTYPES.items()
    }
    ckptfmt.save(tmp_path / "x", arrays)
    with using(reader) as adapter:
        for name, tensor in ckptfmt.load(tmp_path / "x", framework=adapter, cast=True).items():
            wanted = dtype_named(name) if adapter.supports(name) else stand_in(dtype_named(name), adapter.supports)
            found = host(adapter, tensor)
            assert found.dtype == getattr(wanted, "numpy", wanted)
            assert found.astype(np.complex128).tolist() == arrays[name].astype(np.complex128).tolist()


@pytest.mark.parametrize("reader", COLUMNS)
@pytest.mark.parametrize("writer", COLUMNS)
def test_trees_and_ties_are_kept(tmp_path: Path, writer: str, reader: str) -> None:
    tied = wrapped(writer, {"float32": np.ones(SHAPE, np.float32)})["float32"]
    ckptfmt.save(tmp_path / "x", {"a": tied, "b": [tied, (None, 1, "text", {0: True})]})
    with using(reader) as adapter:
        found = ckptfmt.load(tmp_path / "x", framework=adapter)
    assert found["a"] is found["b"][0]
    assert found["b"][1] == (None, 1, "text", {0: True})


# ---- the table


def cell(column: str, dtype: str) -> str:
    """The same with every version that pyproject admits."""
    framework, _ = COLUMNS[column]
    with using(column) as adapter:
        instead = stand_in(dtype_named(dtype), lambda name: (framework, name) not in SINCE and adapter.supports(name))
        if since := SINCE.get((framework, dtype)):
            return f"✓ from {'.'.join(map(str, since))} on, else → {instead}"
        return "✓" if adapter.supports(dtype) else f"→ {instead}"


def rows() -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("column", COLUMNS)
def test_the_table_is_true(column: str) -> None:
    header, *body = rows()
    assert header == ["dtype", *COLUMNS], "write the table anew: python tests/test_frameworks.py"
    position = header.index(column)
    assert {row[0].strip("`"): row[position] for row in body} == {name: cell(column, name) for name in DTYPES}


@pytest.mark.parametrize(("framework", "dtype"), SINCE)
def test_a_dtype_is_there_from_a_version_on(framework: str, dtype: str) -> None:
    installed = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version(framework))[:2])
    with using(framework) as adapter:
        assert adapter.supports(dtype) is (installed >= SINCE[framework, dtype])


FLOAT8 = [name for name in DTYPES if name.startswith("float8") and name != "float8_e5m3fnu"]


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.5.0", reason="NumPy exports no dtypes of ml_dtypes before")
@pytest.mark.parametrize("framework", ["jax.numpy", "torch"])
def test_what_a_load_gives_goes_on_by_dlpack(tmp_path: Path, framework: str) -> None:
    """As docs/frameworks.md says."""
    module = pytest.importorskip(framework)
    arrays = {name: filled(DTYPES[name].numpy, SHAPE, 7) for name in ("bfloat16", "complex32", *FLOAT8)}
    ckptfmt.save(tmp_path / "c", arrays, durable=False)
    for name, array in ckptfmt.load(tmp_path / "c").items():
        if name == "complex32" if framework == "jax.numpy" else not hasattr(module, name):
            continue
        found = module.from_dlpack(array)
        assert str(found.dtype).removeprefix("torch.") == name
        assert np.from_dlpack(found).tobytes() == arrays[name].tobytes()
    for name in ("float8_e5m3fnu", "float6_e2m3fn", "float4_e2m1fn", "int4"):
        with pytest.raises(BufferError):
            filled(DTYPES[name].numpy, SHAPE, 7).__dlpack__()


def write_table() -> None:
    lines = [["dtype", *COLUMNS], *([f"`{name}`", *(cell(column, name) for column in COLUMNS)] for name in DTYPES)]
    head, *body = [f"| {' | '.join(line)} |\n" for line in lines]
    before, _, after = TABLE.read_text().partition("<!-- table -->\n")
    _, _, after = after.partition("<!-- end of table -->\n")
    ruler = "|---" * len(lines[0]) + "|\n"
    TABLE.write_text("".join([before, "<!-- table -->\n", head, ruler, *body, "<!-- end of table -->\n", after]))


if __name__ == "__main__":
    write_table()
