"""Dtypes that a later minor version brought: the version of a checkpoint, how readers refuse them, and what
is done where ml_dtypes lacks them (SPEC.md, DTYPE-001, DTYPE-011, VER-005)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.errors import CkptError
from ckptfmt.format import dtypes
from conformance.implementations.python import manifest as second
from conformance.implementations.python.reader import Checkpoint as SecondReader

LATER = {name: row for name, row in dtypes.DTYPES.items() if row.since > (1, 0)}
E5M3 = np.dtype(ml_dtypes.float8_e5m3fnu)
CODES = np.arange(256, dtype=np.uint8).view(E5M3).reshape(16, 16)
WITH = {
    "tensor": {"tree": {"x": CODES}},
    "scalar": {"tree": {"x": [E5M3.type(2.5)]}},
    "metadata": {"tree": {"x": np.ones(3)}, "metadata": {"scale": E5M3.type(2.5)}},
    "tag": {"tree": {"x": {"y": (1, E5M3.type(2.5))}}},
}
WITHOUT = {
    "none": {"tree": {"x": np.ones(3)}},
    "its name": {"tree": {"float8_e5m3fnu": np.ones(3), "x": "float8_e5m3fnu"}, "metadata": ["float8_e5m3fnu"]},
    "the others": {
        "tree": {"x": {name: np.zeros(3, row.numpy) for name, row in dtypes.DTYPES.items() if name not in LATER}}
    },
}


def version_of(path: Path) -> tuple[int, int]:
    with ckptfmt.open(path) as checkpoint:
        record = next(iter(path.glob("COMMIT")), path).read_bytes()
        assert record[record.rindex(b"ckptfmt/") :].startswith(b"ckptfmt/%d.%d " % checkpoint.format)
        return checkpoint.format


@pytest.mark.parametrize("layout", ["file", "loose", "packed"])
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("what", [*WITH, *WITHOUT])
def test_the_version_is_the_earliest_that_has_the_dtypes(tmp_path: Path, layout: Any, paged: bool, what: str) -> None:
    path = tmp_path / "c"
    ckptfmt.save(path, **(WITH | WITHOUT)[what], layout=layout, paged=paged, durable=False)
    assert version_of(path) == ((1, 2) if what in WITH else (1, 1) if paged else (1, 0))
    assert ckptfmt.verify(path).ok


def test_patches_and_repairs_have_it_too(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a", {"x": CODES, "y": np.ones(3)}, durable=False)
    ckptfmt.save(tmp_path / "b", {"x": CODES[::-1].copy(), "y": np.ones(3)}, durable=False)
    ckptfmt.patch(tmp_path / "a", tmp_path / "b", tmp_path / "p")
    assert version_of(tmp_path / "p") == (1, 2)
    assert ckptfmt.load(tmp_path / "p", base=tmp_path / "a")["x"].tobytes() == CODES[::-1].tobytes()
    ckptfmt.repair(tmp_path / "a", tmp_path / "r")
    assert version_of(tmp_path / "r") == (1, 2)


@contextmanager
def older() -> Iterator[None]:
    """Readers of 1.1: those of today without the rows that came later."""
    tables: list[tuple[dict[str, Any], dict[str, Any]]]
    tables = [(table, dict(table)) for table in (dtypes.DTYPES, second.DTYPES)]
    try:
        for table, _ in tables:
            for name in LATER:
                del table[name]
        yield
    finally:
        for table, rows in tables:  # in their order
            table.clear()
            table.update(rows)


def second_reader(path: Path) -> Any:
    checkpoint = SecondReader(str(path))
    return checkpoint.tree, checkpoint.metadata


def opened(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        return checkpoint.tree, checkpoint.metadata


@pytest.mark.parametrize("reader", [opened, second_reader])
@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("what", WITH)
def test_readers_that_lack_a_dtype_refuse_it_by_name(
    tmp_path: Path, reader: Callable[[Path], Any], paged: bool, what: str
) -> None:  # [DTYPE-001] [VER-005]
    ckptfmt.save(tmp_path / "c", **WITH[what], paged=paged, durable=False)
    with older(), pytest.raises(Exception, match="float8_e5m3fnu") as raised:
        reader(tmp_path / "c")
    assert raised.value.code == "unknown-dtype"  # type: ignore[attr-defined]


def test_what_older_readers_can_read_they_read(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", **WITHOUT["the others"], durable=False)
    with older():
        assert list(ckptfmt.load(tmp_path / "c")["x"]) == list(dtypes.DTYPES)


@pytest.fixture
def old_ml_dtypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint, and no ml_dtypes that has all of its dtypes: 0.6 is allowed (pyproject.toml)."""
    path = tmp_path / "c"
    ckptfmt.save(path, {"x": CODES, "w": np.ones((3, 2)), "b": np.ones(3, ml_dtypes.bfloat16)}, durable=False)
    for name, row in LATER.items():
        monkeypatch.delattr(ml_dtypes, name)
        monkeypatch.delitem(row.__dict__, "numpy", raising=False)
    monkeypatch.setattr(ml_dtypes, "__version__", "0.6.0")
    return path


NEED: dict[str, Callable[[Path], Any]] = {
    "load": ckptfmt.load,
    "mmap": lambda path: ckptfmt.load(path, mmap=True),
    "slice": lambda path: ckptfmt.open(path)["x"][:1],
    "dtype": lambda path: ckptfmt.open(path)["x"].dtype,
    "into": lambda path: ckptfmt.load(path, into={"x": np.zeros((16, 16), np.uint8)}, select="x"),
    "convert": lambda path: ckptfmt.convert(path, path.with_name("x.npz")),
    "stats": ckptfmt.stats,
    "diff": lambda path: ckptfmt.diff(path, path),
}


@pytest.mark.parametrize("call", NEED.values(), ids=NEED)
def test_an_ml_dtypes_that_lacks_a_dtype_is_named(old_ml_dtypes: Path, call: Callable[[Path], Any]) -> None:
    with pytest.raises(CkptError) as raised:
        call(old_ml_dtypes)
    assert raised.value.code == "missing-package"
    assert "arrays of float8_e5m3fnu require ml_dtypes>=0.7 (found ml_dtypes 0.6.0" in str(raised.value)
    assert raised.value.advice == "Install it: pip install 'ml_dtypes>=0.7'"


def test_what_makes_no_arrays_of_it_needs_no_later_ml_dtypes(
    old_ml_dtypes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = old_ml_dtypes
    assert ckptfmt.verify(path).ok
    with ckptfmt.open(path) as checkpoint:
        assert repr(checkpoint.tree["x"]) == "<Tensor 'x' float8_e5m3fnu (16, 16)>"
        assert checkpoint["x"].dtype_name == "float8_e5m3fnu"
        assert checkpoint["w"][1:].tolist() == [[1, 1]] * 2
        assert checkpoint.zarr["x"][1, :3].tolist() == [16, 17, 18]
    assert ckptfmt.load(path, select=["w", "b"]).keys() == {"w", "b"}
    assert ckptfmt.load(path, select=["w", "b"], mmap=True)["b"].dtype == ml_dtypes.bfloat16
    cli.main(["inspect", str(path)], standalone_mode=False)
    assert "float8_e5m3fnu" in capsys.readouterr().out
