"""Torch's adapter: tensors of every kind, Parameters, other values of torch, what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ckptfmt
from ckptfmt.format.dtypes import DTYPES, Array, DType, bytes_of
from ckptfmt.frameworks.sources import Sharded
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.adapters import AdapterSuite

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")

ADAPTER = ckptfmt_torch.ADAPTER
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Independent of the adapter's own table: what torch calls the dtypes that NumPy has not.
EXTENDED = {
    name: getattr(torch, name)
    for name in (
        "bfloat16",
        "complex32",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
    )
    if hasattr(torch, name)
}
FLOAT4 = getattr(torch, "float4_e2m1fn_x2", None)
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


class TestTorch(AdapterSuite):
    adapter = ADAPTER

    def tensor(self, array: Array) -> Any:
        name = array.dtype.name
        if name == "float4_e2m1fn":
            codes = array.view(np.uint8)
            return torch.from_numpy(codes[..., ::2] | codes[..., 1::2] << 4).view(FLOAT4)
        if name in EXTENDED:
            raw = torch.frombuffer(bytearray(array.tobytes() or b"\0" * array.itemsize), dtype=EXTENDED[name])
            return raw[: array.size].reshape(array.shape).clone()
        return torch.tensor(array)

    def array(self, tensor: Any) -> Array:
        assert type(tensor) is torch.Tensor
        assert tensor.device.type == "cpu"
        name = str(tensor.dtype).removeprefix("torch.").removesuffix("_x2")
        shape = (*tensor.shape[:-1], 2 * tensor.shape[-1]) if tensor.dtype == FLOAT4 else tuple(tensor.shape)
        if not tensor.numel():
            return np.empty(shape, DTYPES[name].numpy)
        flat = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        if tensor.dtype == FLOAT4:
            flat = np.stack([flat & 15, flat >> 4], axis=-1).reshape(-1)
        return flat.view(DTYPES[name].numpy).reshape(shape)

    def fits(self, dtype: DType, shape: tuple[int, ...]) -> bool:
        return dtype.bits >= 8 or (bool(shape) and shape[-1] % 2 == 0)

    def views(self, array: Array) -> list[tuple[Any, Array]]:
        tensor, complexes = torch.tensor(array), torch.complex(torch.tensor(array), torch.tensor(array[::-1].copy()))
        odd = [
            tensor.T,
            tensor[1::2, ::3],
            tensor[:1].expand(5, 6),
            tensor.unfold(1, 3, 1),
            tensor.to(memory_format=torch.contiguous_format).as_strided((2, 2), (7, 2), 1),
            complexes.conj(),
            complexes.conj().imag,
            torch.nn.functional.pad(tensor, (1, 1))[:, 1:-1],
        ]
        return [(view, view.resolve_conj().resolve_neg().contiguous().numpy()) for view in odd]


def test_it_has_every_dtype_that_torch_has() -> None:
    core = {name for name, row in DTYPES.items() if row.is_core}
    assert {name for name in DTYPES if ADAPTER.supports(name)} == core | set(EXTENDED) | (
        {"float4_e2m1fn"} if FLOAT4 else set()
    )


def test_host_memory_is_handed_over_without_a_copy(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e5m2, torch.bool):
        tensor = torch.zeros(4, 6, dtype=dtype).T
        assert ADAPTER.lower(tensor).ctypes.data == tensor.data_ptr()
        wrapped = np.zeros((2, 3), DTYPES[str(dtype).removeprefix("torch.")].numpy)
        assert ADAPTER.wrap(wrapped).data_ptr() == wrapped.ctypes.data


def test_conjugates_are_other_tensors_than_what_they_share_memory_with(tmp_path: Path) -> None:
    z = torch.tensor([1 + 2j, 3 - 4j])
    ckptfmt.save(tmp_path / "c", [z, z.conj(), z.conj(), z.real, z.conj().imag])
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert len(checkpoint) == 4
    found = ckptfmt.load(tmp_path / "c")
    assert [a.tolist() for a in found] == [[1 + 2j, 3 - 4j], [1 - 2j, 3 + 4j], [1 - 2j, 3 + 4j], [1, 3], [-2, 4]]


def test_views_of_one_memory_are_reported(tmp_path: Path) -> None:
    flat = torch.zeros(10)
    report = ckptfmt_torch.save(tmp_path / "c", {"all": flat, "half": flat[:5], "other": torch.zeros(3)})
    assert [sorted(group) for group in report.copied_views] == [["all", "half"]]


def test_parameters_keep_whether_they_need_gradients(tmp_path: Path) -> None:
    shared = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    ckptfmt.save(tmp_path / "c", {"a": torch.nn.Parameter(torch.zeros(3)), "b": shared, "c": shared, "d": shared.data})
    found = ckptfmt.load(tmp_path / "c", framework="torch")
    assert [type(value) for value in found.values()] == [torch.nn.Parameter] * 3 + [torch.Tensor]
    assert [value.requires_grad for value in found.values()] == [True, False, False, False]
    assert found["b"] is found["c"]
    assert found["b"].data_ptr() == found["d"].data_ptr()
    assert_same_tree(
        ckptfmt.load(tmp_path / "c", select=["a", "b"]), {"a": np.zeros(3, np.float32), "b": np.ones(2, np.float32)}
    )


def test_parameters_of_integers_never_need_gradients(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    ckptfmt.save(tmp_path / "c", parameter)
    assert not ckptfmt.load(tmp_path / "c", framework="torch").requires_grad
    assert not ckptfmt_torch.adapter.RESTORES["torch.Parameter"](True, parameter.data).requires_grad


VALUES = {
    "size": torch.Size([2, 0, 7]),
    "no axes": torch.Size([]),
    "dtypes": [torch.bfloat16, torch.float32, torch.int4, torch.complex128],
    "devices": (torch.device("cpu"), torch.device("cuda:3"), torch.device("meta")),
}


def test_sizes_dtypes_and_devices_are_values(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", VALUES)
    found = ckptfmt.load(tmp_path / "c", framework="torch")
    assert found == VALUES
    assert type(found["size"]) is torch.Size
    plain = ckptfmt.load(tmp_path / "c")
    assert plain["size"] == (2, 0, 7)
    assert type(plain["size"]) is tuple
    assert plain["dtypes"] == ["bfloat16", "float32", "int4", "complex128"]
    assert plain["devices"] == ("cpu", "cuda:3", "meta")


def test_values_are_rebuilt_in_a_target(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", VALUES)
    others = {
        "size": torch.Size([1, 1, 1]),
        "no axes": torch.Size([]),
        "dtypes": [torch.int8] * 4,
        "devices": (torch.device("cpu"),) * 3,
    }
    found = ckptfmt.load(tmp_path / "c", into=others)
    assert found == VALUES
    assert type(found["size"]) is torch.Size


def test_what_a_later_torch_named_is_read_as_text() -> None:
    assert ckptfmt_torch.adapter.RESTORES["torch.dtype"](None, "float2_e1m0") == "float2_e1m0"
    assert ckptfmt_torch.adapter.RESTORES["torch.device"](None, "quantum:0") == "quantum:0"


class Subclass(torch.Tensor):
    """A tensor that may hold anything."""


def _sparse() -> Any:
    return torch.eye(2).to_sparse()


def _quantized() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def _nested() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


REFUSED = {
    "sparse": (_sparse, "unsupported-leaf", "torch.sparse_coo"),
    "quantized": (_quantized, "unsupported-leaf", "quantized"),
    "nested": (_nested, "unsupported-leaf", "nested"),
    "subclass": (lambda: torch.ones(2).as_subclass(Subclass), "unsupported-leaf", "Subclass is a subclass"),
    "lazy": (torch.nn.UninitializedParameter, "unsupported-leaf", "UninitializedParameter is a subclass"),
    "meta": (
        lambda: torch.ones(2, device="meta"),
        "unsupported-leaf",
        "meta device, which has no elements, at 'model/0'",
    ),
    "shell dtype": (lambda: torch.zeros(2, dtype=torch.uint4), "unsupported-dtype", "torch.uint4"),
    "bits": (lambda: torch.empty(2, dtype=torch.bits8), "unsupported-dtype", "torch.bits8"),
    "packed without axes": (lambda: torch.empty((), dtype=FLOAT4), "unsupported-dtype", "without axes"),
}


@pytest.mark.parametrize(("make", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_encoding_is_refused_by_name(tmp_path: Path, make: Any, code: str, message: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=message) as caught:
        ckptfmt_torch.save(tmp_path / "c", {"model": [make()]})
    assert (caught.value.code, caught.value.tensor) == (code, "model/0")
    assert not any(tmp_path.iterdir())


def test_packed_elements_that_torch_cannot_hold_are_refused(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"odd": np.zeros((2, 3), ml_dtypes.float4_e2m1fn)})
    with pytest.raises(ckptfmt.MismatchError, match="multiple"):
        ckptfmt.load(tmp_path / "c", framework="torch")


def test_packed_elements_are_read_in_any_part() -> None:
    codes = np.arange(24, dtype=np.uint8).reshape(2, 12) % 16
    packed = torch.from_numpy(codes[:, ::2] | codes[:, 1::2] << 4).view(FLOAT4)
    source = ADAPTER.lower(packed)
    assert source.shape == (2, 12)
    for start in range(13):
        for stop in range(start, 13):
            part = source[(slice(1, 2), slice(start, stop))]
            assert bytes_of(np.ascontiguousarray(part)) == codes[1:2, start:stop].tobytes()


TARGETS = {
    "transposed": lambda zeros: zeros.T.contiguous().T,
    "channels last": lambda zeros: zeros.reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "every other": lambda zeros: torch.zeros(8, 6)[::2, ::2],
    "slice of a larger one": lambda zeros: torch.zeros(5, 5)[1:, 2:],
    "needs gradients": lambda zeros: zeros.clone().requires_grad_(),
    "without axes": lambda zeros: torch.zeros(()),
}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_targets_of_any_strides_are_filled(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt_torch.tensors.STAGE", 16)  # many parts
    target = make(torch.zeros(4, 6))
    wanted = torch.randn(target.shape)
    ckptfmt.save(tmp_path / "c", [wanted])
    (found,) = ckptfmt.load(tmp_path / "c", into=[target])
    assert found is target
    assert torch.equal(target, wanted)


def test_what_lies_around_a_target_is_untouched(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", torch.ones(3, 3))
    whole = torch.zeros(5, 5)
    ckptfmt.load(tmp_path / "c", into=whole[1:4, 1:4])
    assert whole.sum() == 9
    assert whole[1:4, 1:4].sum() == 9


def test_a_place_that_no_array_sees_gets_one_value(tmp_path: Path) -> None:
    """As memory of a device is, and what is conjugated lazily, which stands for it here. [READ-006]"""
    values = torch.arange(4).to(torch.complex64)
    ckptfmt.save(tmp_path / "c", {"a": values, "b": values + 1, "c": values.clone()})
    one = torch.zeros(4, dtype=torch.complex64)
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(tmp_path / "c", into={"a": one.conj(), "b": one.conj(), "c": one.conj()})
    assert caught.value.report == ckptfmt.MatchReport(shared=(("a", "b"),))
    assert not one.any()
    apart = {name: torch.zeros(4, dtype=torch.complex64).conj() for name in "ab"}
    ckptfmt.load(tmp_path / "c", into={**apart, "c": apart["a"].conj().conj()})
    assert torch.equal(apart["a"], values)
    assert torch.equal(apart["b"], values + 1)


def test_conjugated_targets_get_the_value(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", torch.tensor([1 + 2j]))
    target = torch.zeros(1, dtype=torch.complex64)
    ckptfmt.load(tmp_path / "c", into=target.conj())
    assert target.conj().tolist() == [1 + 2j]


def test_targets_that_cannot_be_filled_are_named(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"w": torch.ones(3, 2)})
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(tmp_path / "c", into={"w": torch.zeros(1, 2).expand(3, 2)})
    assert caught.value.report.readonly == ("w",)
    with pytest.raises(ckptfmt.MismatchError, match="meta device"):
        ckptfmt.load(tmp_path / "c", into={"w": torch.zeros(3, 2, device="meta")})


def test_templates_may_be_on_the_meta_device(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"w": torch.arange(6.0).reshape(2, 3), "p": torch.nn.Parameter(torch.ones(2), False)})
    like = {"w": torch.empty(2, 3, device="meta"), "p": torch.nn.Parameter(torch.empty(2, device="meta"))}
    found = ckptfmt.load(tmp_path / "c", like=like)
    assert found["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert type(found["p"]) is torch.nn.Parameter
    assert found["p"].requires_grad


def test_loading_maps_and_casts(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"w": torch.arange(6.0)})
    mapped = ckptfmt_torch.load(tmp_path / "c", mmap=True)["w"]
    mapped += 1  # private: the file stays as it is
    assert ckptfmt_torch.load(tmp_path / "c")["w"].tolist() == [0, 1, 2, 3, 4, 5]
    target = ckptfmt_torch.load(tmp_path / "c", into={"w": torch.zeros(6, dtype=torch.bfloat16)}, cast=True)
    assert target["w"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("way", ["into", "like"])
def test_casts_for_tensors_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """What is uploaded has the dtype of the tensor that it goes to; this takes host memory for a device's."""
    ckptfmt.save(tmp_path / "c", {"w": np.arange(6, dtype=ml_dtypes.bfloat16), "same": np.arange(3, dtype=np.float32)})
    monkeypatch.setattr(ckptfmt_torch.tensors, "in_host_memory", lambda tensor: False)
    asked = {"w": torch.zeros(6), "same": torch.zeros(3)}
    found = ckptfmt_torch.load(tmp_path / "c", **{way: asked}, cast=True)
    assert (found["w"].tolist(), found["same"].tolist()) == ([0, 1, 2, 3, 4, 5], [0, 1, 2])


def test_nothing_can_be_loaded_to_the_meta_device(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c", {"w": torch.ones(2)})
    with pytest.raises(ckptfmt.InputError, match="meta"):
        ckptfmt_torch.load(tmp_path / "c", map_location="meta")


def test_dtensor_leaves_do_not_need_their_module() -> None:
    assert not isinstance(ADAPTER.lower(torch.ones(2)), Sharded)


@needs_cuda
def test_cuda_tensors_go_through_pinned_memory(tmp_path: Path) -> None:
    big = torch.randn(3, 5 << 20, device="cuda")
    tree = {
        "big": big,
        "alias": big,
        "odd": big[:, ::3].T,
        "half": torch.randn(7, device="cuda").bfloat16(),
        "none": big[:0],
    }
    ckptfmt_torch.save(tmp_path / "c", tree)
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert len(checkpoint) == 4
    found = ckptfmt_torch.load(tmp_path / "c", map_location="cuda")
    assert all(torch.equal(found[name], tensor) and found[name].is_cuda for name, tensor in tree.items())
    targets = {name: torch.zeros_like(tensor) for name, tensor in tree.items()}
    ckptfmt_torch.load(tmp_path / "c", into=targets)
    assert all(torch.equal(targets[name], tensor) for name, tensor in tree.items())


@needs_cuda
def test_what_a_stream_still_computes_is_awaited(tmp_path: Path) -> None:
    """Also where packs are written on threads of their own, which have another current stream."""
    with torch.cuda.stream(torch.cuda.Stream()):
        value = torch.ones(1 << 20, device="cuda")
        torch.cuda._sleep(1 << 28)
        value.fill_(7)
        ckptfmt_torch.save(tmp_path / "c", {"value": value}, layout="packed")
        torch.cuda._sleep(1 << 28)
        value.fill_(8)
        with ckptfmt.CheckpointManager(tmp_path / "run") as manager:  # whose saves happen on a thread of its own
            manager.save(1, {"value": value})
    assert (ckptfmt_torch.load(tmp_path / "c")["value"] == 7).all()
    assert (ckptfmt_torch.load(tmp_path / "run" / "step-0000000001.ckpt")["value"] == 8).all()


@needs_cuda
def test_meta_modules_materialise_on_a_device(tmp_path: Path) -> None:
    module = torch.nn.Linear(64, 64)
    ckptfmt_torch.save(tmp_path / "c", module)
    blank = torch.nn.Linear(64, 64, device="meta")
    ckptfmt_torch.load_into(tmp_path / "c", blank, map_location="cuda")
    assert torch.equal(blank.weight.cpu(), module.weight)


def test_the_table_of_dtypes_in_the_docs() -> None:
    text = (Path(__file__).parent.parent / "docs" / "torch.md").read_text()
    table = text.partition("<!-- dtypes -->")[2].partition("<!-- end of dtypes -->")[0]
    rows = [f"| `{ckptfmt_torch.dtypes.TORCH[name]}` | `{name}` |" for name in DTYPES if ADAPTER.supports(name)]
    assert table.split("\n")[3:-1] == rows
