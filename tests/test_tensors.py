"""Open checkpoints whose tensors are those of a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import document

import ckptfmt
from ckptfmt.reading.framework_tensor import FrameworkTensor

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
jax = pytest.importorskip("jax")
ckptfmt_jax = pytest.importorskip("ckptfmt_jax")

KINDS = [
    torch.float32,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.uint16,
]


def of(dtype: Any) -> Any:
    """A tensor whose bits are all different."""
    size = torch.empty(0, dtype=dtype).element_size()
    raw = torch.arange(24 * size, dtype=torch.uint8)
    return (raw % 2).bool().reshape(4, 6) if dtype is torch.bool else raw.view(dtype).reshape(4, 6)


def bits(tensor: Any) -> bytes:
    raw: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tree = {"of": {str(dtype).removeprefix("torch."): of(dtype) for dtype in KINDS}, "step": 3}
    ckptfmt_torch.save(tmp_path / "c.ckpt", tree, schema=("s", "1"))
    return tmp_path / "c.ckpt"


@pytest.mark.parametrize("migrated", [False, True])
@pytest.mark.parametrize("dtype", KINDS, ids=str)
def test_slices_of_torch(path: Path, dtype: Any, migrated: bool) -> None:
    options: dict[str, Any] = {"schema": "2", "migrations": document(rest="keep")} if migrated else {}
    whole = of(dtype)
    with ckptfmt_torch.open(path, **options) as checkpoint:
        tensor = checkpoint[f"of/{str(dtype).removeprefix('torch.')}"]
        assert isinstance(tensor, FrameworkTensor)
        assert tensor.dtype is dtype
        assert tensor.shape == (4, 6)
        for index in (slice(1, 3), (2, slice(0, 5, 2)), (..., 1), (3, 5), (slice(None), -1)):
            part = tensor[index]
            assert type(part) is torch.Tensor
            assert part.dtype is dtype
            assert bits(part) == bits(whole[index])
        assert bits(tensor.read()) == bits(whole)
        assert bits(tensor.read(region=(slice(1, 3), slice(0, 6)))) == bits(whole[1:3])
        for out in (torch.zeros(4, 6, dtype=dtype), torch.zeros(6, 4, dtype=dtype).t()):
            assert tensor.read(out) is out
            assert bits(out) == bits(whole)
        part = torch.zeros(2, 6, dtype=dtype)
        tensor.read(part, region=(slice(2, 4), slice(0, 6)))
        assert bits(part) == bits(whole[2:])


def test_reading_into_a_tensor_of_torch_needs_no_framework(path: Path) -> None:
    with ckptfmt.open(path) as checkpoint:
        out = torch.zeros(4, 6, dtype=torch.bfloat16)
        checkpoint["of/bfloat16"].read(out=out)
        assert bits(out) == bits(of(torch.bfloat16))


def test_autograd_learns_of_it(path: Path) -> None:
    out = torch.zeros(4, 6, requires_grad=True)
    loss = (out * out).sum()
    with ckptfmt_torch.open(path) as checkpoint:
        checkpoint["of/float32"].read(out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (torch.zeros(6, 4), "(6, 4)"),
        (torch.zeros(4, 6, dtype=torch.float64), "float64"),
        (torch.zeros(1, 6).expand(4, 6), "cannot be written"),
        (jax.numpy.zeros((4, 6)), "cannot be written"),
        ([0.0], "a list"),
    ],
    ids=str,
)
def test_what_does_not_fit(path: Path, out: Any, words: str) -> None:
    with ckptfmt_torch.open(path) as checkpoint, pytest.raises(ckptfmt.InputError) as caught:
        checkpoint["of/float32"].read(out)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_slices_of_jax(path: Path) -> None:
    with ckptfmt_jax.open(path) as checkpoint:
        tensor = checkpoint["of/bfloat16"]
        assert isinstance(tensor[1:3], jax.Array)
        assert tensor[1:3].dtype == tensor.dtype == jax.numpy.bfloat16
        assert np.asarray(tensor[1:3]).tobytes() == bits(of(torch.bfloat16)[1:3])
        with pytest.raises(ckptfmt.MismatchError, match=r"jax has no tensors of the dtype int64.*tensor\.array"):
            checkpoint["of/int64"][0]
        assert checkpoint["of/int64"].array[0, 0] == of(torch.int64)[0, 0].item()


def test_the_tree_and_all_else(path: Path) -> None:
    with ckptfmt_torch.open(path) as checkpoint:
        assert checkpoint["step"] == checkpoint.tree["step"] == 3
        assert checkpoint["of"]["float32"] is checkpoint.tree["of"]["float32"] is checkpoint["of/float32"]
        assert repr(checkpoint["of/bfloat16"]) == "<torch tensor 'of/bfloat16' bfloat16 (4, 6)>"
        assert "9 tensors" in repr(checkpoint)
        assert checkpoint.schema == ("s", "1")
        assert len(list(checkpoint["of/float32"])) == len(checkpoint["of/float32"]) == 4
        assert np.asarray(checkpoint["of/float32"]).dtype == np.float32
        loaded = checkpoint.load(select="of/float32")["of"]["float32"]
        assert torch.equal(loaded.nan_to_num(), of(torch.float32).nan_to_num())
        assert isinstance(checkpoint.load(framework="numpy")["of"]["float32"], np.ndarray)
    with pytest.raises(ckptfmt.CkptError):
        checkpoint["of/float32"][0]


def test_times_and_tied_tensors(tmp_path: Path) -> None:
    one = np.ones(2)
    ckptfmt.save(tmp_path / "c.ckpt", {"a": one, "b": one, "t": np.array(["2020"], "M8[s]")})
    with ckptfmt_torch.open(tmp_path / "c.ckpt") as checkpoint:
        assert checkpoint["a"] is checkpoint["b"]
        assert checkpoint["t"].read().tolist() == [1577836800]


def test_opening_reads_the_manifest_only(path: Path) -> None:
    with ckptfmt_torch.open(path) as checkpoint:
        assert checkpoint["of/float32"].dtype is torch.float32
        assert checkpoint.bytes_read == 0
        checkpoint["of/float32"][0]
        assert checkpoint.bytes_read == 96
