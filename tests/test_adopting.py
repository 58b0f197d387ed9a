"""Modules whose tensors become mappings of the file: `load_into(mmap=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn


class Model(nn.Module):  # type: ignore[misc,name-defined]
    """Tied weights, a buffer that is not saved, a part with code of its own, bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.norm = nn.BatchNorm1d(6)
        self.half = nn.Linear(6, 3).to(torch.bfloat16)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight
        self.layers[0].weight.requires_grad_(False)
        self.register_buffer("scratch", torch.ones(2), persistent=False)
        self.hooked = nn.Linear(2, 2)
        self.hooked.register_load_state_dict_pre_hook(lambda *_: None)


def on_meta() -> Any:
    with torch.device("meta"):
        return Model()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ckptfmt_torch.save(tmp_path / "c.ckpt", Model())
    return tmp_path / "c.ckpt"


def damaged(path: Path, name: str) -> None:
    data, array = bytearray(path.read_bytes()), ckptfmt.load(path)[name]
    data[data.index(array.tobytes())] ^= 1
    path.write_bytes(data)


def assert_like(module: Any, path: Path) -> None:
    stored = ckptfmt_torch.load(path)
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("make", [Model, on_meta])
def test_parameters_become_mappings(path: Path, make: Any) -> None:
    module = make()
    before = {name: (id(value), value.requires_grad) for name, value in module.named_parameters()}
    addresses = {name: value.data_ptr() for name, value in module.named_parameters()}
    report = ckptfmt_torch.load_into(path, module, mmap=True)
    assert report.ok
    assert_like(module, path)
    assert module.head.weight is module.embed.weight
    for name, value in module.named_parameters():
        assert value.requires_grad == before[name][1]
        if make is Model:
            assert id(value) == before[name][0]
            assert (value.data_ptr() == addresses[name]) == name.startswith("hooked."), name


def test_nothing_is_read_for_them_and_nothing_verified_unasked(path: Path) -> None:
    damaged(path, "embed.weight")
    for make in (Model, on_meta):
        ckptfmt_torch.load_into(path, make(), mmap=True)
        module = make()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        with pytest.raises(ckptfmt.CorruptError) as caught:
            ckptfmt_torch.load_into(path, module, mmap=True, verify=True)
        assert caught.value.tensor == "embed.weight"
        if make is Model:
            assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_what_is_read_is_verified(path: Path) -> None:
    damaged(path, "hooked.weight")
    with pytest.raises(ckptfmt.CorruptError):
        ckptfmt_torch.load_into(path, Model(), mmap=True)


def test_changes_stay_in_memory_and_optimizers_go_on(path: Path) -> None:
    before, module = path.read_bytes(), Model()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    ckptfmt_torch.load_into(path, module, mmap=True)
    was = module.embed.weight.detach().clone()
    module.head(module.embed(torch.arange(3))).sum().backward()
    optimizer.step()
    assert not torch.equal(module.embed.weight, was)
    assert path.read_bytes() == before


def test_the_file_may_go(path: Path) -> None:
    module, stored = Model(), ckptfmt_torch.load(path)
    ckptfmt_torch.load_into(path, module, mmap=True)
    path.unlink()
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


def test_no_two_parameters_share_a_mapping(tmp_path: Path) -> None:
    one = torch.ones(3)
    ckptfmt_torch.save(tmp_path / "c.ckpt", {"a": one, "b": one})
    module = nn.ParameterDict({"a": torch.zeros(3), "b": torch.zeros(3)})
    ckptfmt_torch.load_into(tmp_path / "c.ckpt", module, mmap=True)
    with torch.no_grad():
        module["a"] += 1
    assert module["b"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"layout": "loose"}, {"layout": "packed"}], ids=str)
def test_what_cannot_be_mapped_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    ckptfmt_torch.save(tmp_path / "c.ckpt", Model(), **options)
    module = Model()
    assert ckptfmt_torch.load_into(tmp_path / "c.ckpt", module, mmap=True).ok
    assert_like(module, tmp_path / "c.ckpt")


def test_casts_are_read(path: Path) -> None:
    module = Model().double()
    ckptfmt_torch.load_into(path, module, mmap=True, cast=True)
    assert torch.equal(module.embed.weight, ckptfmt_torch.load(path)["embed.weight"].double())


def test_a_training_state(tmp_path: Path) -> None:
    module = Model()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    ckptfmt_torch.save(tmp_path / "c.ckpt", {"model": module, "optimizer": optimizer, "step": 3})
    target = {"model": on_meta(), "optimizer": optimizer, "step": 0}
    assert ckptfmt_torch.load(tmp_path / "c.ckpt", into=target, mmap=True)["step"] == 3
    assert torch.equal(target["model"].embed.weight, module.embed.weight)


@pytest.mark.parametrize("into", [{"a": np.zeros(3)}, {"a": torch.zeros(3)}, {}], ids=str)
def test_tensors_of_nobody_keep_their_memory(tmp_path: Path, into: Any) -> None:
    ckptfmt.save(tmp_path / "c.ckpt", {"a": np.ones(3)})
    with pytest.raises(ckptfmt.InputError, match="mmap=True maps the tensors of modules"):
        ckptfmt.load(tmp_path / "c.ckpt", into=into, mmap=True)


def test_differences_are_told_first(path: Path) -> None:
    module = nn.Linear(6, 6)
    with pytest.raises(ckptfmt.MismatchError):
        ckptfmt_torch.load_into(path, module, mmap=True)


def test_the_report_names_what_is_on_the_meta_device_still(path: Path) -> None:
    report = ckptfmt_torch.load_into(path, on_meta())
    assert report.ok
    assert report.meta == ("scratch",)
    assert str(report) == "target and checkpoint match; still on the meta device: scratch"
    lenient = ckptfmt_torch.load_into(path, on_meta(), select="layers.*", strict=False)
    assert set(lenient.meta) > {"scratch", "embed.weight", "head.weight", "norm.running_mean", "hooked.bias"}
    assert not any(name.startswith("layers.") for name in lenient.meta)
    assert ckptfmt_torch.load_into(path, Model()).meta == ()
