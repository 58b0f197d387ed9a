"""What leaves `convert` is a `CkptError` with a code, or what the caller's own `progress` raised, as it is."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.numpy
from peers import peer

import ckptfmt
from ckptfmt.conversion import table
from ckptfmt.conversion.formats import npz

torch = peer("torch")

TARGETS = ["x.ckpt", "x.safetensors", "x.pt", "x.npz", "x.h5", "x.msgpack"]
OWN = [
    ValueError("mine"),
    OSError(5, "mine"),
    FileNotFoundError(2, "mine"),
    MemoryError(),
    StopIteration(),
    KeyError(1),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("own", OWN, ids=lambda own: type(own).__name__)
def test_what_progress_raises_passes_unchanged(tmp_path: Path, target: str, own: Exception) -> None:
    safetensors.numpy.save_file({"a": np.arange(5.0), "b": np.ones(3)}, tmp_path / "s.safetensors")

    def progress(done: int, total: int) -> None:
        if done > total // 4:
            raise own

    with pytest.raises(type(own)) as raised:
        ckptfmt.convert(tmp_path / "s.safetensors", tmp_path / target, progress=progress, durable=False)
    assert raised.value is own
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("no place\nfor it"), "unsupported-leaf"),
        (TypeError("odd"), "unsupported-leaf"),
        (RecursionError(), "unsupported-leaf"),
        (MemoryError(), "limit-exceeded"),
        (OSError("Can't synchronously write data"), "io"),
    ],
)
def test_what_a_writer_raises_gets_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    ckptfmt.save(tmp_path / "s.ckpt", {"a": np.arange(5.0)}, durable=False)

    class Failing(ModuleType):
        HOLDS = npz.HOLDS

        @staticmethod
        def write(*_: object) -> None:
            raise error

    monkeypatch.setattr(table, "writer_of", lambda _: Failing("failing"))
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(tmp_path / "s.ckpt", tmp_path / "x.npz")
    assert raised.value.code == code
    assert raised.value.path == str(tmp_path / "x.npz")
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["s.ckpt"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "s.npz", a=np.zeros(100))
    for target in TARGETS:
        with pytest.raises(ckptfmt.MissingError):
            ckptfmt.convert(tmp_path / "s.npz", tmp_path / "none" / target)


def test_nesting_what_is_no_flat_dict(tmp_path: Path) -> None:
    """torch.save takes any tree; what has no names stays as it is."""
    for tree in ([torch.ones(2)], {1: torch.ones(2), "a": {"b.c": 5}}):
        torch.save(tree, tmp_path / "s.pt")
        ckptfmt.convert(tmp_path / "s.pt", tmp_path / "x.ckpt", nest=True, overwrite=True, durable=False)
        found = ckptfmt.load(tmp_path / "x.ckpt")
        assert type(found) is type(tree)
        assert not isinstance(tree, dict) or list(found) == list(tree)


@pytest.mark.parametrize("target", TARGETS)
def test_names_that_nest_without_end(tmp_path: Path, target: str) -> None:
    safetensors.numpy.save_file({"a" + ".b" * 5000: np.ones(2)}, tmp_path / "deep.safetensors")
    names = {f"{number}" + ".b" * 200: np.ones(0) for number in range(1000)}
    safetensors.numpy.save_file(names, tmp_path / "many.safetensors")
    for name, code in {"deep": "too-deep", "many": "limit-exceeded"}.items():
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(tmp_path / f"{name}.safetensors", tmp_path / target, nest=True, allow_loss=True)
        assert raised.value.code == code


def test_what_is_allowed_by_the_number_that_an_error_names(tmp_path: Path) -> None:
    """Zeros compress without end: the error says which `max_expansion` a source that is trusted needs."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("m", data=np.zeros(4 << 20, np.float32), chunks=(4 << 20,), compression="gzip")
    with pytest.raises(ckptfmt.UnsupportedError) as raised:
        ckptfmt.convert(tmp_path / "s.h5", tmp_path / "x.ckpt")
    needed = int(str(raised.value).partition("max_expansion=")[2].partition(" ")[0])
    report = ckptfmt.convert(tmp_path / "s.h5", tmp_path / "x.ckpt", max_expansion=needed, durable=False)
    assert report.bytes == 16 << 20


def test_a_compressed_vector_is_read_in_large_parts(tmp_path: Path) -> None:
    """An item of a vector is a row of a few bytes."""
    vector = np.arange(3_000_000, dtype=np.uint8)
    np.savez_compressed(tmp_path / "s.npz", v=vector, pairs=vector.reshape(-1, 2))
    ckptfmt.convert(tmp_path / "s.npz", tmp_path / "x.ckpt", durable=False)
    found = ckptfmt.load(tmp_path / "x.ckpt")
    np.testing.assert_array_equal(found["v"], vector)
    np.testing.assert_array_equal(found["pairs"], vector.reshape(-1, 2))
