"""Modules and optimizers: saved as their state, filled in place, materialised from the meta device."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn


class Model(nn.Module):  # type: ignore[misc,name-defined]
    """Tied weights, a frozen parameter, buffers of both kinds, a convolution, bfloat16, a list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.conv = nn.Conv2d(2, 3, 2)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 11, bias=False).to(torch.bfloat16)
        self.tied = nn.Linear(6, 11, bias=False)
        self.tied.weight = self.embed.weight
        self.blocks[0].weight.requires_grad_(False)
        self.register_buffer("scratch", torch.ones(2), persistent=False)


def on_meta() -> Any:
    with torch.device("meta"):
        return Model()


def assert_same_state(found: Any, expected: Any) -> None:
    one, other = found.state_dict(), expected.state_dict()
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor, other[name]), name


@pytest.fixture
def model() -> Any:
    torch.manual_seed(1)
    return Model()


def test_a_module_is_stored_as_its_state(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    arrays = ckptfmt.load(tmp_path / "c")
    assert list(arrays) == list(model.state_dict())
    assert arrays["head.weight"].dtype.name == "bfloat16"
    assert arrays["tied.weight"] is arrays["embed.weight"]
    fresh = Model()
    fresh.load_state_dict(ckptfmt_torch.load(tmp_path / "c"))
    assert_same_state(fresh, model)


def test_a_module_is_filled_in_its_own_memory(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    fresh = Model().to(memory_format=torch.channels_last)
    fresh.blocks[1].weight = nn.Parameter(torch.zeros(6, 12)[:, ::2])
    before = {name: (id(p), p.data_ptr(), p.stride(), p.requires_grad) for name, p in fresh.named_parameters()}
    report = ckptfmt_torch.load_into(tmp_path / "c", fresh)
    assert report.ok
    assert_same_state(fresh, model)
    after = {name: (id(p), p.data_ptr(), p.stride(), p.requires_grad) for name, p in fresh.named_parameters()}
    assert after == before


def test_a_module_on_the_meta_device_is_materialised(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    blank = on_meta()
    assert ckptfmt_torch.load_into(tmp_path / "c", blank).ok
    assert_same_state(blank, model)
    assert blank.tied.weight is blank.embed.weight
    gradients = {name: p.requires_grad for name, p in blank.named_parameters()}
    assert gradients == {name: p.requires_grad for name, p in model.named_parameters()}
    assert all(type(p) is nn.Parameter for p in blank.parameters())
    assert blank.scratch.is_meta  # as it is in no checkpoint


def test_a_module_that_is_half_on_the_meta_device(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    half = Model()
    kept = half.conv.weight
    half.blocks.to("meta")
    ckptfmt_torch.load_into(tmp_path / "c", half)
    assert_same_state(half, model)
    assert half.conv.weight is kept


def test_a_module_that_differs_is_left_alone(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    for other in (Model(), on_meta()):
        other.norm = nn.LayerNorm(6, device=other.embed.weight.device)
        other.head = nn.Linear(6, 12, bias=False, device=other.embed.weight.device)
        devices = {name: p.device.type for name, p in other.named_parameters()}
        held = {name: p.detach().clone() for name, p in other.named_parameters()}
        with pytest.raises(ckptfmt.MismatchError) as caught:
            ckptfmt_torch.load_into(tmp_path / "c", other)
        report = caught.value.report
        assert set(report.unexpected) == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
        assert [row[0] for row in report.shape] == ["head.weight"]
        assert [row[0] for row in report.dtype] == ["head.weight"]
        assert {name: p.device.type for name, p in other.named_parameters()} == devices
        assert all(p.is_meta or torch.equal(p, held[name]) for name, p in other.named_parameters())


def test_what_is_missing_stays_on_the_meta_device(tmp_path: Path, model: Any) -> None:
    state = model.state_dict()
    del state["tied.weight"], state["conv.bias"], state["norm.running_mean"]
    ckptfmt_torch.save(tmp_path / "c", state)
    blank = on_meta()
    report = ckptfmt_torch.load_into(tmp_path / "c", blank, strict=False)
    assert set(report.missing) == {"conv.bias", "norm.running_mean"}
    assert blank.conv.bias.is_meta
    assert blank.norm.running_mean.is_meta
    assert blank.tied.weight is blank.embed.weight  # filled under its other name
    assert torch.equal(blank.embed.weight, model.embed.weight)
    assert torch.equal(blank.conv.weight, model.conv.weight)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_head_of_another_size_is_passed_over(tmp_path: Path, model: Any, device: str, mmap: bool) -> None:
    other = copy.deepcopy(model)
    ckptfmt_torch.save(tmp_path / "x.ckpt", model, durable=False)
    name, sub = next((name, sub) for name, sub in other.named_modules() if isinstance(sub, torch.nn.Linear))
    sub.weight = torch.nn.Parameter(torch.full((3, 2), 7.0))
    other.to(device)
    with pytest.raises(ckptfmt.MismatchError, match="mismatched='skip'"):
        ckptfmt_torch.load_into(tmp_path / "x.ckpt", other)
    report = ckptfmt_torch.load_into(tmp_path / "x.ckpt", other, mismatched="skip", mmap=mmap)
    assert [label for label, _, _ in report.skipped] == [f"{name}.weight"]
    assert (f"{name}.weight" in report.meta) is (device == "meta") is sub.weight.is_meta
    assert device == "meta" or (sub.weight == 7).all()
    for key, value in model.state_dict().items():
        if key != f"{name}.weight":
            assert torch.equal(other.state_dict()[key], value)


def test_a_part_of_a_module_is_selected(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    fresh = Model()
    held = fresh.conv.weight.detach().clone()
    report = ckptfmt_torch.load_into(tmp_path / "c", fresh, select="blocks.*")
    assert report.ok
    assert torch.equal(fresh.blocks[2].weight, model.blocks[2].weight)
    assert torch.equal(fresh.conv.weight, held)


@pytest.mark.parametrize("select", ["conv.*", "norm.weight", ["conv.*", "norm.*"]])
@pytest.mark.parametrize("blank", [False, True])
def test_a_part_is_selected_of_a_module_with_code_of_its_own(
    tmp_path: Path, model: Any, select: Any, blank: bool
) -> None:
    """Also where that is given less than all of its names."""
    ckptfmt_torch.save(tmp_path / "c", model)
    fresh = on_meta() if blank else Model()
    report = ckptfmt_torch.load_into(tmp_path / "c", fresh, select=select)
    assert report.ok
    assert ("conv.weight" in report.meta) == (blank and select == "norm.weight")
    state = model.state_dict()
    del state["norm.bias"], state["embed.weight"]
    ckptfmt_torch.save(tmp_path / "d", state)
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load_into(tmp_path / "d", fresh, select="norm.*")
    assert caught.value.report == ckptfmt.MatchReport(missing=("norm.bias",))


class Checking(torch.nn.Linear):
    """Has a say in its loading, and is strict."""

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(dict(state), strict, assign)


def test_a_part_is_selected_of_what_loads_itself(tmp_path: Path) -> None:
    module, fresh = Checking(2, 2), Checking(2, 2)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.5)
    ckptfmt_torch.save(tmp_path / "c", {"model": module, "optimizer": torch.optim.SGD(module.parameters(), lr=0.1)})
    ckptfmt_torch.load(tmp_path / "c", into={"model": fresh, "optimizer": optimizer}, select="model/weight")
    assert torch.equal(module.weight, fresh.weight)
    assert not torch.equal(module.bias, fresh.bias)
    assert optimizer.param_groups[0]["lr"] == 0.5
    ckptfmt_torch.load(tmp_path / "c", into={"model": fresh, "optimizer": optimizer}, select="optimizer")
    assert optimizer.param_groups[0]["lr"] == 0.1
    ckptfmt_torch.save(tmp_path / "d", {"model": module})
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load(
            tmp_path / "d",
            into={"model": fresh, "other": optimizer},
            select=["model", "other/state", "other/param_groups/0/lr"],
        )
    assert caught.value.report.missing == ("other/param_groups/0/lr",)


def test_a_damaged_checkpoint_leaves_a_module_on_the_meta_device(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", model)
    raw = bytearray((tmp_path / "c").read_bytes())
    at = raw.index(model.conv.weight.detach().numpy().tobytes())
    raw[at] ^= 1
    (tmp_path / "c").write_bytes(raw)
    blank = on_meta()
    with pytest.raises(ckptfmt.CorruptError, match=r"conv\.weight"):
        ckptfmt_torch.load_into(tmp_path / "c", blank)
    assert all(p.is_meta for p in blank.parameters())


class Pair(NamedTuple):
    ema: Any
    step: int


def _trained(model: Any, steps: int) -> tuple[Any, Any]:
    weights = [
        {"params": [*model.blocks.parameters()], "lr": 0.1},
        {"params": [model.embed.weight], "betas": (0.5, 0.6)},
    ]
    optimizer = torch.optim.AdamW(weights, lr=0.01, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(steps):
        x = model.embed(torch.arange(5))
        for block in model.blocks:
            x = block(x).tanh()
        x.sum().backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return optimizer, scheduler


def test_a_whole_training_state_resumes_to_the_bit(tmp_path: Path, model: Any) -> None:
    optimizer, scheduler = _trained(model, 3)
    state = {"model": model, "train": [optimizer, scheduler], "step": 3, "rng": torch.get_rng_state()}
    ckptfmt_torch.save(tmp_path / "c", state)
    stored = ckptfmt_torch.load(tmp_path / "c")
    assert stored["train"][0]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert list(stored["train"][0]["state"]) == list(optimizer.state_dict()["state"])  # ints

    other = Model()
    new_optimizer, new_scheduler = _trained(other, 0)
    target = {"model": other, "train": [new_optimizer, new_scheduler], "step": 0, "rng": torch.get_rng_state()}
    found = ckptfmt_torch.load(tmp_path / "c", into=target)
    assert (found["model"], found["train"], found["step"]) == (other, [new_optimizer, new_scheduler], 3)
    assert_same_state(other, model)
    assert new_scheduler.state_dict() == scheduler.state_dict()
    expected, actual = optimizer.state_dict(), new_optimizer.state_dict()
    assert actual["param_groups"] == expected["param_groups"]
    for index, slots in expected["state"].items():
        assert list(actual["state"][index]) == list(slots)
        assert all(torch.equal(actual["state"][index][name], tensor) for name, tensor in slots.items())

    for twin, its_optimizer in ((model, optimizer), (other, new_optimizer)):
        twin.embed(torch.arange(5)).pow(2).sum().backward()
        its_optimizer.step()
    assert_same_state(other, model)


def test_an_optimizer_without_a_state_in_the_checkpoint_is_missing(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", {"model": model})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load(tmp_path / "c", into={"model": model, "optimizer": optimizer})
    assert "optimizer/param_groups/0/lr" in caught.value.report.missing
    found = ckptfmt_torch.load(tmp_path / "c", into={"model": model, "optimizer": optimizer}, strict=False)
    assert found == {"model": model, "optimizer": optimizer}


class WithExtra(nn.Module):  # type: ignore[misc,name-defined]
    """A module that keeps more than tensors."""

    def __init__(self, seen: int) -> None:
        super().__init__()
        self.seen = {"tokens": seen, "order": (1, 2)}
        self.weight = nn.Parameter(torch.full((2,), float(seen)))

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


def test_extra_state_is_set(tmp_path: Path) -> None:
    ckptfmt_torch.save(tmp_path / "c", nn.Sequential(WithExtra(7), WithExtra(8)))
    module = nn.Sequential(WithExtra(0), WithExtra(0))
    ckptfmt_torch.load_into(tmp_path / "c", module)
    assert [part.seen for part in module] == [{"tokens": 7, "order": (1, 2)}, {"tokens": 8, "order": (1, 2)}]
    assert module[1].weight.tolist() == [8, 8]


@pytest.mark.filterwarnings("ignore::ckptfmt.UnknownTagWarning")
def test_modules_in_other_containers_are_filled(tmp_path: Path) -> None:
    saved = Pair(nn.Linear(2, 2), 5)
    ckptfmt_torch.save(tmp_path / "c", saved)
    target = Pair(nn.Linear(2, 2), 0)
    found = ckptfmt_torch.load(tmp_path / "c", into=target)
    assert (type(found), found.step) == (Pair, 5)
    assert torch.equal(target.ema.weight, saved.ema.weight)


@pytest.mark.parametrize("layout", ["file", "loose", "packed"])
def test_every_layout(tmp_path: Path, model: Any, layout: str) -> None:
    ckptfmt_torch.save(tmp_path / "c", model, layout=layout, compression={"conv*": "zstd"})
    blank = on_meta()
    ckptfmt_torch.load_into(tmp_path / "c", blank)
    assert_same_state(blank, model)


def test_frameworks_are_mixed_in_one_tree(tmp_path: Path, model: Any) -> None:
    ckptfmt_torch.save(tmp_path / "c", {"numpy": np.arange(3), "torch": model.conv.weight})
    found = ckptfmt_torch.load(tmp_path / "c", into={"numpy": np.zeros(3, np.int64), "torch": torch.zeros(3, 2, 2, 2)})
    assert found["numpy"].tolist() == [0, 1, 2]
    assert torch.equal(found["torch"], model.conv.weight)


def test_different_values_do_not_become_one_tied_parameter(tmp_path: Path) -> None:
    """`load_state_dict` would keep the last of them."""

    class Net(nn.Module):
        def __init__(self, *, tied: bool) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
            if tied:
                self.head.weight = self.embed.weight

    path = tmp_path / "untied.ckpt"
    ckptfmt_torch.save(path, Net(tied=False))
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load_into(path, Net(tied=True))
    assert caught.value.report.shared == (("embed.weight", "head.weight"),)


def test_tied_tensors_come_back_tied_like_a_template(tmp_path: Path) -> None:  # [TREE-010]
    weight, plain = nn.Parameter(torch.arange(4.0)), torch.ones(3)
    tree = {"a": weight, "b": weight, "c": [plain, plain], "d": nn.Parameter(torch.arange(4.0))}
    ckptfmt_torch.save(tmp_path / "c", tree)
    found = ckptfmt.load(tmp_path / "c", like=tree)
    assert found["a"] is found["b"]
    assert found["c"][0] is found["c"][1]
    assert type(found["a"]) is nn.Parameter
    assert found["a"] is not weight
    assert found["d"] is not found["a"]
    assert found["d"].data_ptr() != found["a"].data_ptr()


def test_gradient_checkpointing_changes_no_names(tmp_path: Path) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    plain, wrapped = nn.Sequential(nn.Linear(3, 3)), nn.Sequential(checkpoint_wrapper(nn.Linear(3, 3)))
    for number, (saved, filled) in enumerate([(plain, wrapped), (wrapped, plain)]):
        nn.init.normal_(next(saved.parameters()))
        ckptfmt_torch.save(tmp_path / str(number), saved)
        assert ckptfmt_torch.load_into(tmp_path / str(number), filled).ok
        assert_same_state(filled, saved)
