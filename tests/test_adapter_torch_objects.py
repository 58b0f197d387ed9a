"""Optimizers, schedulers, metrics and other objects that get their state through their own `load_state_dict`: what they
hold is what was saved, and theirs alone."""

from __future__ import annotations

import collections
import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modules import assert_same, values

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn


class Sampler:
    """Keeps what it is given."""

    def __init__(self, seed: int = 0) -> None:
        self.state = {"order": np.random.default_rng(seed).permutation(1000), "at": seed, "t": torch.full((9,), seed)}

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def test_an_object_keeps_what_it_is_given(tmp_path: Path) -> None:
    ckptfmt_torch.save(tmp_path / "c", {"sampler": Sampler(5), "module": nn.Linear(2, 2)})
    for load in (ckptfmt_torch.load, ckptfmt.load):
        one, other = Sampler(), Sampler()
        for target in (one, other):
            found = load(tmp_path / "c", into={"sampler": target, "module": nn.Linear(2, 2)})
            assert found["sampler"] is target
        assert type(one.state["order"]) is np.ndarray
        assert one.state["order"].tolist() == Sampler(5).state["order"].tolist()
        assert (one.state["at"], one.state["t"].tolist()) == (5, [5] * 9)
        one.state["order"][:] = 0  # memory of its own, and not the file's
        one.state["t"].zero_()
        assert other.state["t"].tolist() == [5] * 9
    assert ckptfmt.verify(tmp_path / "c").ok


def test_objects_of_a_training_run(tmp_path: Path) -> None:
    def run(steps: int) -> dict[str, Any]:
        model = nn.Linear(3, 2).to(torch.bfloat16)
        optimizer = torch.optim.AdamW(model.parameters())
        scheduler = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [torch.optim.lr_scheduler.ConstantLR(optimizer), torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)],
            [2],
        )
        for _ in range(steps):
            model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
            scheduler.step()
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": torch.amp.GradScaler("cpu")}

    saved = run(4)
    saved["scaler"].load_state_dict({**saved["scaler"].state_dict(), "scale": 7.0})
    ckptfmt.save(tmp_path / "c", saved)
    for load in (ckptfmt_torch.load, ckptfmt.load):
        target = run(0)
        assert load(tmp_path / "c", into=target) == target
        assert target["scheduler"].state_dict() == saved["scheduler"].state_dict()
        assert target["scaler"].get_scale() == 7
        for index, slots in saved["optimizer"].state_dict()["state"].items():
            ours = target["optimizer"].state_dict()["state"][index]
            assert {name: (t.dtype, t.tolist()) for name, t in ours.items()} == {
                name: (t.dtype, t.tolist()) for name, t in slots.items()
            }


@pytest.mark.parametrize("kind", ["steps", "in turn", "chained"])
def test_a_scheduler_gets_its_counter_back(tmp_path: Path, kind: str) -> None:
    schedulers = torch.optim.lr_scheduler

    def make() -> Any:
        optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)
        steps = schedulers.MultiStepLR(optimizer, [2, 2, 4])
        if kind == "in turn":
            return schedulers.SequentialLR(optimizer, [schedulers.ConstantLR(optimizer), steps], [2])
        return schedulers.ChainedScheduler([steps]) if kind == "chained" else steps

    saved, theirs = make(), make()
    saved.optimizer.step() if kind == "steps" else None
    theirs.load_state_dict(copy.deepcopy(saved.state_dict()))
    ckptfmt_torch.save(tmp_path / "c", {"scheduler": saved})
    for load in (ckptfmt_torch.load, ckptfmt.load):
        ours = make()
        load(tmp_path / "c", into={"scheduler": ours})
        assert repr(ours.state_dict()) == repr(theirs.state_dict())


def test_dicts_of_other_kinds_in_the_state_of_an_object(tmp_path: Path) -> None:
    def make(*, full: bool) -> Any:
        found = Sampler()
        found.state = {"seen": collections.defaultdict(list), "n": [collections.Counter()]}
        found.state["own"] = collections.defaultdict(lambda: 7)
        if full:
            found.state["seen"]["a"].append(1)
            found.state["own"]["a"] = 1
            found.state["n"][0].update("aab")
        return found

    saved, target = make(full=True), make(full=False)
    ckptfmt_torch.save(tmp_path / "c", {"x": saved})
    ckptfmt_torch.load(tmp_path / "c", into={"x": target})
    assert target.state == saved.state
    assert target.state["seen"]["b"] == []
    assert target.state["n"][0]["z"] == 0
    assert target.state["own"]["b"] == 7
    plain = ckptfmt.load(tmp_path / "c")["x"]
    assert plain == {"seen": {"a": [1]}, "n": [{"a": 2, "b": 1}], "own": {"a": 1}}
    assert [type(plain["seen"]), type(plain["n"][0]), type(plain["own"])] == [
        collections.defaultdict,
        collections.Counter,
        dict,
    ]


def test_other_groups_of_parameters_are_told_before_anything_is_written(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    ckptfmt_torch.save(tmp_path / "c", {"m": model, "o": torch.optim.Adam(model.parameters())})
    target = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam([{"params": part.parameters()} for part in target])
    before = values(target)
    with pytest.raises(ckptfmt.MismatchError, match="o/param_groups"):
        ckptfmt_torch.load(tmp_path / "c", into={"m": target, "o": optimizer})
    assert_same(values(target), before)


class Refusing(Sampler):
    def load_state_dict(self, state: Any) -> None:
        raise KeyError("epoch")


def test_an_object_that_refuses_is_named(tmp_path: Path) -> None:
    ckptfmt_torch.save(tmp_path / "c", {"data": [Sampler(1)]})
    message = "Refusing at 'data/0' refuses its state: KeyError: 'epoch'"
    with pytest.raises(ckptfmt.MismatchError, match=message) as caught:
        ckptfmt_torch.load(tmp_path / "c", into={"data": [Refusing()]})
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.path == str(tmp_path / "c")


def test_what_was_loaded_before_a_refusal_is_said(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    ckptfmt_torch.save(tmp_path / "c", {"a": Sampler(1), "m": model, "x": Sampler(1), "y": 1})
    with pytest.raises(ckptfmt.MismatchError, match=r"KeyError: 'epoch'; loaded before: a, m\."):
        ckptfmt_torch.load(tmp_path / "c", into={"a": Sampler(), "m": nn.Linear(2, 2), "x": Refusing(), "y": 1})
    ckptfmt_torch.save(tmp_path / "d", {"x": Sampler(1)})
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load(tmp_path / "d", into={"x": Refusing()})
    assert "loaded before" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"o": 3}, "o (found int, expected the state of the Adam)"),
        ({"o": [1, 2]}, "o/param_groups"),
        ({"o": {"state": {}}}, "o/param_groups"),
        ({"s": 3}, "s (found int, expected the state of the StepLR)"),
        ({"d": 3}, "d (found int, expected the state of the Sampler)"),
    ],
    ids=str,
)
def test_what_is_no_state_is_told_before_anything_is_written(tmp_path: Path, stored: Any, words: str) -> None:
    def make() -> dict[str, Any]:
        model = nn.Linear(2, 2)
        optimizer = torch.optim.Adam(model.parameters())
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        return {"m": model, "o": optimizer, "s": scheduler, "d": Sampler()}

    ckptfmt_torch.save(tmp_path / "c", {**make(), **stored})
    target = make()
    before = values(target["m"])
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load(tmp_path / "c", into=target)
    assert words in str(caught.value)
    assert_same(values(target["m"]), before)


def test_metrics(tmp_path: Path) -> None:
    metrics = pytest.importorskip("torchmetrics")

    def make() -> Any:
        found = nn.ModuleDict({"mean": metrics.MeanMetric(), "all": metrics.CatMetric()})
        for metric in found.values():
            metric.persistent(True)
        return found

    saved = make()
    for metric in saved.values():
        metric.update(torch.tensor([1.0, 2.0]))
        metric.update(torch.tensor([4.0]))
    ckptfmt_torch.save(tmp_path / "c", saved)
    target = make()
    ckptfmt_torch.load_into(tmp_path / "c", target)
    for name, metric in target.items():
        metric._update_count = 1
        assert torch.equal(metric.compute(), saved[name].compute())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("load", [ckptfmt.load, ckptfmt_torch.load])
@pytest.mark.parametrize("option", ["into", "like"])
def test_a_generator_comes_back_as_one_where_the_target_has_one(tmp_path: Path, load: Any, option: str) -> None:
    generator = torch.Generator().manual_seed(5)
    ckptfmt_torch.save(tmp_path / "a.ckpt", {"g": generator, "n": 1})
    found = load(tmp_path / "a.ckpt", **{option: {"g": torch.Generator(), "n": 0}})
    assert found["n"] == 1
    assert torch.equal(torch.rand(3, generator=found["g"]), torch.rand(3, generator=generator))


# ---- the order of parameters


def net(names: str) -> Any:
    return nn.ModuleDict({name: nn.Linear(2, 2) for name in names})


def all_of(module: Any) -> Any:
    return module.parameters()


def named(module: Any) -> Any:
    return module.named_parameters()


def two_groups(module: Any) -> Any:
    """Weights apart from biases, and these backwards."""
    weights = [one for one in module.parameters() if one.ndim == 2]
    biases = [one for one in module.parameters() if one.ndim == 1]
    return [{"params": weights}, {"params": biases[::-1], "weight_decay": 0.0}]


def stepped(module: Any, parameters: Callable[[Any], Any]) -> Any:
    optimizer = torch.optim.Adam(parameters(module))
    sum(one.sum() for one in module.parameters()).backward()
    optimizer.step()
    return optimizer


RENAMED = {
    "ckptfmt_migration": 1,
    "schema": "net",
    "from": "1",
    "to": "2",
    "at": "model",
    "rest": "keep",
    "rules": [{"from": "b.{f}", "to": "d.{f}"}, {"from": "a.{f}", "to": "c.{f}"}],
}


@pytest.mark.parametrize("way", ["as it is", "migrated on load", "migrated before"])
@pytest.mark.parametrize("parameters", [all_of, two_groups, named])
@pytest.mark.parametrize("is_turned", [False, True])
def test_another_order_of_parameters_is_told(tmp_path: Path, way: str, parameters: Any, is_turned: bool) -> None:
    """To an optimizer whose state has numbers alone: they are those of other parameters then."""
    model = net("ab")
    ckptfmt_torch.save(tmp_path / "c", {"model": model, "optimizer": stepped(model, parameters)}, schema=("net", "1"))
    path, options = tmp_path / "c", {}
    if way == "migrated on load":
        options = {"schema": "2", "migrations": RENAMED}
    elif way == "migrated before":
        path = tmp_path / "new"
        ckptfmt.migrate(tmp_path / "c", path, RENAMED, schema="2")
    names = "ab" if way == "as it is" else "cd"
    target = net(names[::-1] if is_turned else names)
    into = {"model": target, "optimizer": torch.optim.Adam(parameters(target))}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ckptfmt_torch.load(path, into=into, **options)
    assert [one.category for one in told] == [ckptfmt.ParameterOrderWarning] * (is_turned and parameters is not named)
    if told:
        assert "at 'optimizer'" in str(told[0].message)
        assert "at 'model'" in str(told[0].message)


def test_nothing_is_told_of_an_order_that_nobody_goes_by(tmp_path: Path) -> None:
    """A module alone; an optimizer without a state; one of another module."""
    model = net("ab")
    fresh = torch.optim.Adam(model.parameters())
    ckptfmt_torch.save(tmp_path / "c", {"model": model, "optimizer": stepped(model, all_of), "fresh": fresh})
    turned, other = net("ba"), net("ab")
    ckptfmt_torch.load_into(tmp_path / "c", turned, prefix="model")
    into = {"model": turned, "fresh": torch.optim.Adam(turned.parameters())}
    ckptfmt_torch.load(tmp_path / "c", into=into, select=["model/**", "fresh/**"])
    into = {"model": turned, "optimizer": torch.optim.Adam(other.parameters())}
    ckptfmt_torch.load(tmp_path / "c", into=into, select=["model/**", "optimizer/**"])
