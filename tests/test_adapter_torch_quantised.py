"""Tensors that are made of others: quantised weights and states of torchao, optimum-quanto and bitsandbytes, and
classes of one's own. Stored as their plain tensors, and made again where the class is known."""

from __future__ import annotations

import dataclasses
import enum
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.frameworks.quantisers import ENUMS, RECORDS, TENSORS

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")


class Mode(enum.Enum):
    FAST = "fast"


@dataclasses.dataclass
class Setting:
    group: int
    mode: Mode


class Scaled(torch.Tensor):  # type: ignore[misc]  # torch is not typed here
    """Integers with a scale for each row, which stand for floats."""

    def __new__(cls, whole: Any, scale: Any, setting: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=torch.bfloat16, requires_grad=False)

    def __init__(self, whole: Any, scale: Any, setting: Any) -> None:
        self.whole, self.scale, self.setting = whole, scale, setting

    def __tensor_flatten__(self) -> Any:
        return ["whole", "scale"], self.setting

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, setting: Any, size: Any, stride: Any) -> Any:
        return cls(parts["whole"], parts["scale"], setting)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if function in (aten.detach.default, aten.clone.default):
            return cls(args[0].whole.clone(), args[0].scale.clone(), args[0].setting)
        if function is aten.copy_.default and type(args[0]) is type(args[1]):
            args[0].whole.copy_(args[1].whole)
            args[0].scale.copy_(args[1].scale)
            return args[0]
        raise NotImplementedError(function)

    def __repr__(self, **_: Any) -> str:
        return "Scaled"


@pytest.fixture
def known() -> Iterator[None]:
    from ckptfmt_torch import subclasses

    from ckptfmt.frameworks import registry

    ckptfmt_torch.register_tensor_class(Scaled)
    ckptfmt.register(Setting)
    ckptfmt.register(Mode)
    yield
    subclasses._registered.clear()
    for kind in (Setting, Mode):
        registry._classes.pop(f"{kind.__module__}.{kind.__qualname__}")


def scaled(start: int = 0, setting: Any = None) -> Any:
    whole = torch.arange(start, start + 6, dtype=torch.int8).reshape(2, 3)
    return Scaled(whole, torch.tensor([[0.5], [2.0]]), setting)


def save(path: Path, tree: Any) -> Path:
    ckptfmt_torch.save(path, tree, durable=False)
    return path


def is_same(one: Any, other: Any) -> bool:
    """Whether two are of one class, and all that they are made of is the same to the bit."""
    if not hasattr(one, "__tensor_flatten__"):
        return torch.equal(one, other)
    assert type(one) is type(other)
    (names, context), (others, and_context) = one.__tensor_flatten__(), other.__tensor_flatten__()
    assert names == others
    assert str(context) == str(and_context)
    return all(is_same(getattr(one, name), getattr(other, name)) for name in names)


# ---- classes of one's own


def test_everyone_else_reads_plain_tensors(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"w": scaled(setting=[1, "x"])})
    with pytest.warns(ckptfmt.UnknownTagWarning, match="made of; torch gives it back where its class is imported"):
        found = ckptfmt.load(path)["w"]
    assert np.array_equal(found["whole"], np.arange(6, dtype=np.int8).reshape(2, 3))
    assert found["scale"].tolist() == [[0.5], [2.0]]
    assert (found["context"], found["shape"], found["stride"]) == ([1, "x"], (2, 3), (3, 1))
    assert [tensor.name for tensor in ckptfmt.open(path).tensors.values()] == ["w/whole", "w/scale"]


def test_a_file_names_no_class_that_is_looked_up(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"w": scaled()})
    with pytest.warns(ckptfmt.UnknownTagWarning, match="Scaled"):
        assert type(ckptfmt_torch.load(path)["w"]) is dict


@pytest.mark.usefixtures("known")
def test_a_registered_class_comes_back(tmp_path: Path) -> None:
    value = scaled(setting=Setting(4, Mode.FAST))
    found = ckptfmt_torch.load(save(tmp_path / "a.ckpt", {"w": value, "again": value}))
    assert is_same(found["w"], value)
    assert found["w"].setting == Setting(4, Mode.FAST)
    assert found["again"].whole is found["w"].whole  # [TREE-010]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("trained", [False, True])
def test_a_parameter_stays_one(tmp_path: Path, trained: bool) -> None:
    outer = Scaled(scaled(3), torch.ones(2), None)  # of one that is itself made of others
    value = torch.nn.Parameter(outer, requires_grad=trained)
    found = ckptfmt_torch.load(save(tmp_path / "a.ckpt", {"w": value}))["w"]
    assert isinstance(found, torch.nn.Parameter)
    assert found.requires_grad is trained
    assert is_same(found.whole, scaled(3))


@pytest.mark.usefixtures("known")
def test_into_fills_what_it_is_made_of_and_like_makes_a_new_one(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"w": scaled(9)})
    target = scaled()
    memory = target.whole.data_ptr()
    found = ckptfmt_torch.load(path, into={"w": target})
    assert found["w"] is target
    assert (target.whole.data_ptr(), target.whole[0, 0].item()) == (memory, 9)
    made = ckptfmt_torch.load(path, like={"w": scaled()})["w"]
    assert is_same(made, scaled(9))


@pytest.mark.usefixtures("known")
def test_like_of_another_class_is_a_mismatch(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ckpt", {"w": scaled(9)})

    class Other(Scaled):
        pass

    other = Other(torch.zeros(2, 3, dtype=torch.int8), torch.zeros(2, 1), None)
    with pytest.raises(ckptfmt.MismatchError, match=r"torch\.tensor_subclass"):
        ckptfmt_torch.load(path, like={"w": other})


@pytest.mark.usefixtures("known")
def test_what_the_class_does_not_take_is_given_as_it_is(tmp_path: Path) -> None:
    value = ckptfmt_torch.load(save(tmp_path / "a.ckpt", {"w": scaled()}))["w"]
    path = save(tmp_path / "b.ckpt", {"w": value})
    broken = type("Scaled", (Scaled,), {"__tensor_unflatten__": classmethod(lambda *_: 1 / 0), "__module__": __name__})
    ckptfmt_torch.register_tensor_class(broken)
    with pytest.warns(ckptfmt.UnknownTagWarning, match="Scaled"):
        assert set(ckptfmt_torch.load(path)["w"]) == {"whole", "scale", "context", "shape", "stride"}


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    class Named(Scaled):
        def __tensor_flatten__(self) -> Any:
            return ["whole", "shape"], None

    value = Named(torch.zeros(2, 3, dtype=torch.int8), torch.zeros(2, 1), None)
    with pytest.raises(ckptfmt.InputError, match="has tensors of the names whole, shape") as caught:
        ckptfmt_torch.save(tmp_path / "a.ckpt", {"w": value})
    assert (caught.value.code, caught.value.tensor) == ("unsupported-leaf", "w")
    assert not (tmp_path / "a.ckpt").exists()


@pytest.mark.parametrize("kind", [torch.nn.Parameter, dict])
def test_what_is_no_such_class_is_not_registered(kind: type) -> None:
    with pytest.raises(ckptfmt.InputError, match="__tensor_unflatten__") as caught:
        ckptfmt_torch.register_tensor_class(kind)
    assert caught.value.code == "bad-option"


# ---- torchao


def torchao() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)  # of its extensions for other machines
        try:
            package = pytest.importorskip("torchao")
            pytest.importorskip("torchao.quantization")
            pytest.importorskip("torchao.optim")
        finally:
            logging.disable(logging.NOTSET)
    return package


def quantised(config: str) -> Any:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 64)).to(torch.bfloat16)
    quantization = torchao().quantization
    quantization.quantize_(model, getattr(quantization, config)())
    return model


CONFIGS = [
    "Float8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Int8WeightOnlyConfig",
    "IntxWeightOnlyConfig",
]
X = torch.linspace(-1, 1, 64).to(torch.bfloat16)


@pytest.mark.parametrize("config", CONFIGS)
def test_models_of_torchao(tmp_path: Path, config: str) -> None:
    model = quantised(config)
    path = save(tmp_path / "a.ckpt", {"model": model})
    assert is_same(ckptfmt_torch.load(path)["model"]["1.weight"], model[1].weight.detach())
    here = quantised(config)
    with torch.no_grad():
        here[0].weight.qdata.zero_()
    with torch.device("meta"):
        plain = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 64)).to(torch.bfloat16)
    for target in (here, plain):
        ckptfmt_torch.load_into(path, {"model": target})
        assert torch.equal(target(X), model(X))
        assert is_same(target[0].weight.detach(), model[0].weight.detach())


@pytest.mark.parametrize("config", CONFIGS)
def test_files_of_torch_save_with_models_of_torchao(tmp_path: Path, config: str) -> None:
    model = quantised(config)
    torch.save({"state": model.state_dict(), "w": model[0].weight}, tmp_path / "a.pt")
    assert ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt", durable=False).losses == ()
    found = ckptfmt_torch.load(tmp_path / "a.ckpt")
    assert is_same(found["state"]["1.weight"], model[1].weight.detach())
    assert isinstance(found["w"], torch.nn.Parameter)


@pytest.mark.parametrize("name", ["AdamW4bit", "AdamW8bit", "AdamWFp8"])
def test_optimizers_of_torchao(tmp_path: Path, name: str) -> None:
    kind = getattr(torchao().optim, name)

    def made() -> tuple[Any, Any]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(128, 64)
        return layer, kind(layer.parameters(), lr=1e-2)

    def step(layer: Any, optimizer: Any) -> None:
        layer(torch.linspace(0, 1, 128)).square().sum().backward()
        with torch.compiler.set_stance("force_eager"):  # it compiles its step
            optimizer.step()
        optimizer.zero_grad()

    layer, optimizer = made()
    step(layer, optimizer)
    path = save(tmp_path / "a.ckpt", {"layer": layer, "optimizer": optimizer})
    again, and_optimizer = made()
    ckptfmt_torch.load_into(path, {"layer": again, "optimizer": and_optimizer})
    first, second = optimizer.state_dict()["state"][0], and_optimizer.state_dict()["state"][0]
    assert type(second["exp_avg"]).__name__.startswith("OptimState")
    assert all(is_same(first[key], second[key]) for key in first)
    step(layer, optimizer)
    step(again, and_optimizer)
    assert torch.equal(layer.weight, again.weight)


def test_no_class_of_torchao_is_forgotten() -> None:
    torchao()
    known = {name.rpartition(".")[2] for name in (*TENSORS, *ENUMS, *RECORDS)}

    def below(kind: Any) -> Iterator[Any]:
        for one in type.__subclasses__(kind):
            yield one
            yield from below(one)

    here = {
        kind
        for kind in below(torch.Tensor)
        if kind.__module__.startswith("torchao.quantization") and not kind.__name__.startswith(("TorchAO", "_"))
    }
    unfinished = {f"Float8Sparse2x4_{n}DData{n}DMetadataTensor" for n in (1, 2)}  # prototypes for one kind of device
    assert {kind.__name__ for kind in here} - known - unfinished == set()
    names = (*TENSORS, *ENUMS, *RECORDS)
    gone = [
        name
        for name in names
        if (module := name.rpartition(".")[0]) in sys.modules
        and not hasattr(sys.modules[module], name.rpartition(".")[2])
    ]
    assert gone == []


# ---- optimum-quanto


def unpacked(packed: Any, bits: int) -> Any:
    return torch.cat([packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)])


@pytest.mark.parametrize("name", ["qfloat8", "qint4", "qint8"])
def test_models_of_quanto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    quanto = pytest.importorskip("optimum.quanto")
    from optimum.quanto.library.extensions.cpp import ext

    # which it would compile of C++: that takes a minute, and is kept in its package
    monkeypatch.setattr(ext, "_lib", SimpleNamespace(unpack=unpacked))

    def made() -> Any:
        model = torch.nn.Sequential(torch.nn.Linear(128, 64))
        quanto.quantize(model, weights=getattr(quanto, name))
        quanto.freeze(model)
        return model

    model, other = made(), made()
    path = save(tmp_path / "a.ckpt", {"w": model[0].weight, "model": model})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ckptfmt.UnknownTagWarning)
        assert is_same(ckptfmt_torch.load(path)["w"].detach(), model[0].weight.detach())
    ckptfmt_torch.load_into(path, {"model": other}, select="model/**")
    assert is_same(model[0].weight.detach(), other[0].weight.detach())


# ---- bitsandbytes


def four_bits(quantise: bool) -> Any:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(128, 64, compute_dtype=torch.float32, quant_type="nf4")
    model = torch.nn.Sequential(layer, torch.nn.Linear(64, 8))
    return model.to("cpu") if quantise else model  # which quantises


@pytest.mark.parametrize("target", ["quantised", "fresh", "meta"])
def test_weights_of_bitsandbytes_in_4_bits(tmp_path: Path, target: str) -> None:
    model = four_bits(quantise=True)
    path = save(tmp_path / "a.ckpt", {"model": model})
    with torch.device("meta" if target == "meta" else "cpu"):
        other = four_bits(quantise=target == "quantised")
    ckptfmt_torch.load_into(path, {"model": other})
    assert torch.equal(model(torch.ones(2, 128)), other(torch.ones(2, 128)))
    assert type(other[0].weight) is type(model[0].weight)


def test_what_else_is_stored_beside_them_is_unexpected(tmp_path: Path) -> None:
    model = four_bits(quantise=True)
    path = save(tmp_path / "a.ckpt", {"model": model.state_dict() | {"0.more": torch.ones(1)}})
    with pytest.raises(ckptfmt.MismatchError, match=r"unexpected in the checkpoint: model/0\.more"):
        ckptfmt_torch.load_into(path, {"model": four_bits(quantise=True)})


def test_weights_of_bitsandbytes_in_8_bits(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    make: Callable[[], Any] = lambda: torch.nn.Sequential(  # noqa: E731
        bitsandbytes.nn.Linear8bitLt(128, 64, has_fp16_weights=False)
    ).to("cpu")
    model, other = make(), make()
    ckptfmt_torch.load_into(save(tmp_path / "a.ckpt", {"model": model}), {"model": other})
    assert torch.equal(model(torch.ones(2, 128)), other(torch.ones(2, 128)))
