"""Modules and other objects that have a say in their loading: what comes in is what torch's own `load_state_dict` of
the same state gives, or the load is refused before anything is written. [READ-006]"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn

Scratch = Callable[[], AbstractContextManager[str]]


def values(module: Any) -> dict[str, Any]:
    """What a module is, not what it says of itself: its tensors by where they are."""
    found = {name: value.detach().clone() for name, value in module.named_parameters(remove_duplicate=False)}
    return found | {name: value.clone() for name, value in module.named_buffers(remove_duplicate=False)}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def beside_torch(folder: Path, state: Any, make: Callable[[], Any]) -> tuple[Any, ckptfmt.MatchReport]:
    """A module that we filled with a state, which is what torch makes of it."""
    theirs, ours = make(), make()
    ckptfmt_torch.save(folder / "c", state, overwrite=True, durable=False)
    torch.save(state, folder / "c.pt")
    theirs.load_state_dict(torch.load(folder / "c.pt", weights_only=False))
    report = ckptfmt_torch.load_into(folder / "c", ours)
    assert_same(values(ours), values(theirs))
    through_core = make()
    assert ckptfmt.load(folder / "c", into=through_core) is through_core
    assert_same(values(through_core), values(theirs))
    return ours, report


class Transposed(nn.Linear):  # type: ignore[misc,name-defined]
    """Stored transposed, by hooks."""

    def __init__(self, *sides: int) -> None:
        super().__init__(*sides)
        self.register_state_dict_post_hook(_turn)
        self.register_load_state_dict_pre_hook(_turn)


def _turn(module: Any, state: Any, prefix: str, *_: Any) -> None:
    if prefix + "weight" in state:
        state[prefix + "weight"] = state[prefix + "weight"].T.contiguous()


class Halved(nn.Linear):  # type: ignore[misc,name-defined]
    """Stored as half of what it is, by `_save_to_state_dict` and `_load_from_state_dict`."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = destination[prefix + "weight"] / 2

    def _load_from_state_dict(self, state: Any, prefix: str, *more: Any) -> None:
        if prefix + "weight" in state:
            state[prefix + "weight"].mul_(2)  # which may not reach the file or a second load
        super()._load_from_state_dict(state, prefix, *more)


class Renamed(nn.Linear):  # type: ignore[misc,name-defined]
    """Takes the names and the version of an older program."""

    _version = 3

    def _load_from_state_dict(self, state: Any, prefix: str, local: Any, *more: Any) -> None:
        if prefix + "kernel" in state:
            state[prefix + "weight"] = state.pop(prefix + "kernel")
        self.read = local.get("version")
        super()._load_from_state_dict(state, prefix, local, *more)


class Counting(nn.Linear):  # type: ignore[misc,name-defined]
    """Extra state of any form."""

    seen: Any = None

    def get_extra_state(self) -> Any:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state


class Derived(nn.Linear):  # type: ignore[misc,name-defined]
    """Computes a buffer once it is loaded."""

    def __init__(self, *sides: int) -> None:
        super().__init__(*sides)
        self.register_buffer("total", torch.zeros(()), persistent=False)
        self.register_load_state_dict_post_hook(_sum)


def _sum(module: Any, _: Any) -> None:
    module.total.copy_(module.weight.detach().sum())


class Ema(nn.Module):  # type: ignore[misc,name-defined]
    """A plain value in an overridden state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.updates = nn.Linear(3, 3), 0

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        return super().state_dict(*arguments, **options) | {"updates": self.updates}

    def load_state_dict(self, state: Any, *arguments: Any, **options: Any) -> Any:
        rest = dict(state)
        self.updates = rest.pop("updates")
        return super().load_state_dict(rest, *arguments, **options)


KINDS = (nn.Linear, Transposed, Halved, Renamed, Counting, Derived)


def net(plan: Any) -> Any:
    """A plan is a number, for a layer of that kind, a pair of plans, or a plan that a shared layer stands behind."""
    if isinstance(plan, int):
        return KINDS[plan](3, 3)
    parts = nn.Sequential(*map(net, plan[1]), nn.BatchNorm1d(3))
    if "tied" in plan[0] and len(parts) > 2:
        first, last = (next(parts[i].parameters()) for i in (0, -2))
        if first.shape == last.shape:
            owner = next(part for part in parts[-2].modules() if last in set(part._parameters.values()))
            owner.weight = first
    if "hook" in plan[0]:
        parts.register_load_state_dict_pre_hook(lambda *_: None)
    return parts


plans = st.recursive(
    st.integers(0, len(KINDS) - 1),
    lambda inner: st.tuples(
        st.sampled_from(["", "hook", "tied", "hook tied"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=5,
)


@given(plan=plans, meta=st.booleans(), leave_out=st.integers(0, 30), strict=st.booleans())
def test_any_module_is_what_torch_makes_of_it(
    scratch: Scratch, plan: Any, meta: bool, leave_out: int, strict: bool
) -> None:
    torch.manual_seed(1)
    state = net(plan).state_dict()
    for name in list(state)[leave_out : leave_out + 1]:
        del state[name]
    theirs, ours = net(plan), net(plan)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        other.data.copy_(one.data)
    before = values(ours)
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a module on the meta device
        ckptfmt_torch.save(Path(folder) / "c", state, durable=False)
        try:
            theirs.load_state_dict(copy.deepcopy(state), strict=strict)
            accepted = True
        except RuntimeError:
            accepted = False
        if meta and accepted and leave_out >= 30:
            ours.to("meta")
        try:
            ckptfmt_torch.load_into(Path(folder) / "c", ours, strict=strict)
        except ckptfmt.MismatchError as error:
            assert not error.report.ok
            assert_same(values(ours), before)
            assert not accepted or error.report.shared
            return
    # torch takes a tied tensor for missing that came under its other name
    assert accepted or "tied" in str(plan)
    if accepted and not meta:
        assert_same(values(ours), values(theirs))
    elif accepted:
        persistent = set(theirs.state_dict())
        for name, value in values(theirs).items():
            if name in persistent:
                assert torch.equal(values(ours)[name], value)


def test_hooks_and_overrides_in_a_larger_module(tmp_path: Path) -> None:
    def make() -> Any:
        return nn.Sequential(nn.Linear(3, 4), Transposed(4, 5), Halved(5, 3), nn.Sequential(Derived(3, 3), nn.ReLU()))

    saved = make()
    ours, report = beside_torch(tmp_path, saved.state_dict(), make)
    assert report.ok
    assert_same({k: v for k, v in values(ours).items() if "total" not in k},
                {k: v for k, v in values(saved).items() if "total" not in k})  # fmt: skip
    assert ours[3][0].total == saved[3][0].weight.sum()


def test_a_load_state_dict_of_its_own_gets_all(tmp_path: Path) -> None:
    saved = Ema()
    saved.updates = 5000
    ckptfmt_torch.save(tmp_path / "c", {"ema": saved, "other": nn.Linear(2, 2)})
    for target in (Ema(), Ema().to("meta")):
        ckptfmt_torch.load(tmp_path / "c", into={"ema": target, "other": nn.Linear(2, 2)})
        assert target.updates == 5000
        assert_same(values(target), values(saved))


@pytest.mark.parametrize(
    ("fresh", "trained"),
    [
        ({}, {"calls": 7}),
        (None, {"a": [1, (2, "x")]}),
        (torch.zeros(0, dtype=torch.uint8), torch.ones(5, dtype=torch.uint8)),
        ((1,), (1, 2)),
        ({"hist": np.zeros(2)}, {"hist": np.arange(3.0), "of": [np.ones(1, np.float32)]}),
        ({"a": torch.ones(2)}, {}),
    ],
)
def test_extra_state_is_handed_over_whole(tmp_path: Path, fresh: Any, trained: Any) -> None:
    saved = nn.Sequential(Counting(2, 2), nn.Linear(2, 2))
    saved[0].seen = trained

    def make() -> Any:
        module = nn.Sequential(Counting(2, 2), nn.Linear(2, 2))
        module[0].seen = fresh
        return module

    ours, _ = beside_torch(tmp_path, saved.state_dict(), make)
    theirs = make()
    theirs.load_state_dict(saved.state_dict())
    assert _form(ours[0].seen) == _form(theirs[0].seen)


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _form(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), list(map(_form, value))
    if isinstance(value, torch.Tensor | np.ndarray):
        return type(value), value.dtype, value.tolist()
    return value


def _batch_norm_before_its_counter() -> tuple[Any, Callable[[], Any]]:
    state = dict(nn.BatchNorm1d(2).state_dict())
    del state["num_batches_tracked"]
    return state, lambda: nn.BatchNorm1d(2)


def _old_weight_norm() -> tuple[Any, Callable[[], Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = nn.utils.weight_norm(nn.Linear(3, 3)).state_dict()
    return state, lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))


def _observer(name: str) -> Callable[[], tuple[Any, Callable[[], Any]]]:
    def case() -> tuple[Any, Callable[[], Any]]:
        from torch.ao import quantization

        make = getattr(quantization, name)
        trained = make()
        trained(torch.randn(4, 3))
        return trained.state_dict(), make

    return case


def _whole(make: Callable[[], Any]) -> Callable[[], tuple[Any, Callable[[], Any]]]:
    return lambda: (make().state_dict(), make)


def _lazy() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))


OF_TORCH = {
    "BatchNorm before its counter": _batch_norm_before_its_counter,
    "weight_g and weight_v": _old_weight_norm,
    "weight_norm": _whole(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
    "spectral_norm": _whole(lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))),
    "old spectral_norm": _whole(lambda: nn.utils.spectral_norm(nn.Linear(3, 3))),
    "PerChannelMinMaxObserver": _observer("PerChannelMinMaxObserver"),
    "HistogramObserver": _observer("HistogramObserver"),
    "MinMaxObserver": _observer("MinMaxObserver"),
    "InstanceNorm": _whole(lambda: nn.InstanceNorm1d(2, affine=True, track_running_stats=True)),
    "MultiheadAttention": _whole(lambda: nn.MultiheadAttention(4, 2)),
    "LSTM": _whole(lambda: nn.LSTM(2, 3, 2)),
    "EmbeddingBag": _whole(lambda: nn.EmbeddingBag(5, 3)),
    "lazy": lambda: (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).state_dict(), _lazy),
    "script": _whole(lambda: torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))),
    "AveragedModel": _whole(lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", OF_TORCH)
def test_torch_s_own_modules(tmp_path: Path, name: str) -> None:
    torch.manual_seed(3)
    state, make = OF_TORCH[name]()

    def seeded() -> Any:
        torch.manual_seed(4)
        return make()

    beside_torch(tmp_path, state, seeded)


def test_an_lstm_on_the_meta_device_computes_with_what_was_loaded(tmp_path: Path) -> None:
    saved = nn.LSTM(2, 3)
    ckptfmt_torch.save(tmp_path / "c", saved)
    with torch.device("meta"):
        blank = nn.LSTM(2, 3)
    ckptfmt_torch.load_into(tmp_path / "c", blank)
    x = torch.ones(1, 1, 2)
    assert torch.equal(blank(x)[0], saved(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_reaches_the_code_that_asks_for_it(tmp_path: Path, kind: Any) -> None:
    """As `torch.save` keeps it; a plain dict, and a checkpoint of before, has none."""
    saved = nn.Sequential(Renamed(2, 2), kind(2, 2))
    own = saved.state_dict()
    for state, version in ((saved, 3), (own, 3), (dict(own), None)):
        ckptfmt_torch.save(tmp_path / "c", state, overwrite=True)
        target = nn.Sequential(Renamed(2, 2), kind(2, 2))
        ckptfmt_torch.load_into(tmp_path / "c", target)
        assert target[0].read == version
        twin = nn.Sequential(Renamed(2, 2), kind(2, 2))
        twin.load_state_dict(ckptfmt_torch.load(tmp_path / "c"))
        assert twin[0].read == version
    assert isinstance(ckptfmt.load(tmp_path / "c"), dict)


def test_old_names_are_not_missing_where_the_code_takes_them(tmp_path: Path) -> None:
    def make() -> Any:
        return nn.Sequential(nn.Linear(2, 2), Renamed(2, 2))

    state = make().state_dict()
    state["1.kernel"] = state.pop("1.weight")
    assert beside_torch(tmp_path, state, make)[1].ok


@pytest.mark.parametrize(("name", "value"), [("1.weight", None), ("1.more", torch.ones(1)), ("1.bias", torch.ones(3))])
def test_what_the_code_does_not_take_is_told_before_anything_is_written(tmp_path: Path, name: str, value: Any) -> None:
    for kind in (Renamed, Halved, Derived, Counting, Transposed):
        module = nn.Sequential(nn.Linear(2, 2), kind(2, 2))
        state = nn.Sequential(nn.Linear(2, 2), kind(2, 2)).state_dict()
        if value is None:
            del state[name]
        else:
            state[name] = value
        ckptfmt_torch.save(tmp_path / "c", {"m": state}, overwrite=True)
        before = values(module)
        with pytest.raises(ckptfmt.MismatchError, match=f"m/{name}") as caught:
            ckptfmt_torch.load(tmp_path / "c", into={"m": module})
        report = caught.value.report
        assert (*report.missing, *report.unexpected, *(row[0] for row in report.shape)) == (f"m/{name}",)
        assert_same(values(module), before)
        if name != "1.bias":
            torch_says = module.load_state_dict(copy.deepcopy(state), strict=False)
            reports: list[Any] = []
            ckptfmt_torch.load(tmp_path / "c", into={"m": module}, strict=False, on_match=reports.append)
            assert reports[0].missing == tuple(f"m/{key}" for key in torch_says.missing_keys)
            assert reports[0].unexpected == tuple(f"m/{key}" for key in torch_says.unexpected_keys)


def test_a_tied_tensor_is_not_missing_under_its_other_name(tmp_path: Path) -> None:
    """As in files of safetensors, which hold it once."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    saved = Tied()
    ckptfmt_torch.save(tmp_path / "c", {"embed.weight": saved.embed.weight.detach()})
    for target in (Tied(), Tied().to("meta")):
        target.head.weight = target.embed.weight
        assert ckptfmt_torch.load_into(tmp_path / "c", target).ok
        assert target.head.weight is target.embed.weight
        assert torch.equal(target.head.weight, saved.embed.weight)
    ckptfmt_torch.save(tmp_path / "c", {"other": torch.ones(5, 3)}, overwrite=True)
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt_torch.load_into(tmp_path / "c", Tied())
    assert caught.value.report.missing == ("embed.weight", "head.weight")


# ---- autograd


def test_autograd_learns_of_a_load_as_of_torch_s(tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Transposed(2, 2))
    ckptfmt_torch.save(tmp_path / "c", saved)
    ours, theirs = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), Transposed(2, 2)) for _ in range(2))
    ckptfmt_torch.load_into(tmp_path / "c", ours)
    theirs.load_state_dict(saved.state_dict())
    assert [p._version for p in ours.parameters()] == [p._version for p in theirs.parameters()]
    assert [b._version for b in ours.buffers()] == [b._version for b in theirs.buffers()]

    for load in (lambda m: m.load_state_dict(saved.state_dict()), lambda m: ckptfmt_torch.load_into(tmp_path / "c", m)):
        loss = ours(torch.ones(3, 2, requires_grad=True)).pow(2).sum()
        load(ours)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_leaves_views_of_leaves_and_inference_tensors(tmp_path: Path) -> None:
    ckptfmt_torch.save(tmp_path / "c", {"a": torch.arange(4.0), "b": torch.arange(2.0)})
    leaf = torch.zeros(4, requires_grad=True)
    base = torch.zeros(4, requires_grad=True)
    with torch.no_grad():
        part = base[1:3]
    ckptfmt_torch.load(tmp_path / "c", into={"a": leaf, "b": part})
    assert (leaf.tolist(), base.tolist(), leaf.requires_grad) == ([0, 1, 2, 3], [0, 0, 1, 0], True)
    assert (leaf._version, base._version) == (1, 1)
    with torch.inference_mode():
        frozen = {"a": torch.zeros(4), "b": torch.zeros(2)}
        ckptfmt_torch.load(tmp_path / "c", into=frozen)
        module = nn.Linear(2, 2)
    assert frozen["a"].tolist() == [0, 1, 2, 3]
    other = nn.Linear(2, 2)
    ckptfmt_torch.save(tmp_path / "m", other)
    ckptfmt_torch.load_into(tmp_path / "m", module)
    assert torch.equal(module.weight, other.weight)
    with torch.inference_mode():
        ckptfmt_torch.load_into(tmp_path / "m", nn.Linear(2, 2))


def test_swapped_parameters(tmp_path: Path) -> None:
    saved = nn.Sequential(nn.Linear(2, 2), Halved(2, 2))
    ckptfmt_torch.save(tmp_path / "c", saved)
    target = nn.Sequential(nn.Linear(2, 2), Halved(2, 2))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        ckptfmt_torch.load_into(tmp_path / "c", target)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert_same(values(target), values(saved))


# ---- other objects


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


def test_what_streams_keeps_what_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is used again only where nobody has kept it."""
    monkeypatch.setattr("ckptfmt.reading.loading.STREAM", 64)
    saved = nn.Sequential(*(Counting(4, 4) for _ in range(9)))
    for number, part in enumerate(saved):
        part.seen = torch.full((40,), number)
    ckptfmt_torch.save(tmp_path / "c", saved)
    target = nn.Sequential(*(Counting(4, 4) for _ in range(9)))
    ckptfmt_torch.load_into(tmp_path / "c", target)
    assert [part.seen.tolist() for part in target] == [[number] * 40 for number in range(9)]
    assert_same(values(target), values(saved))


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


def test_a_migration_leads_into_a_module(tmp_path: Path) -> None:
    wrapped = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), Transposed(2, 3)))
    ckptfmt_torch.save(tmp_path / "c", wrapped)
    rules = [{"from": "module.{rest:**}", "to": "{rest}"}]
    migration = {"ckptfmt_migration": 1, "schema": "net", "from": "ddp", "to": "plain", "rules": rules}
    target = nn.Sequential(nn.Linear(2, 2), Transposed(2, 3))
    ckptfmt_torch.load_into(
        tmp_path / "c", target, source_schema=("net", "ddp"), schema="plain", migrations=[migration]
    )
    assert_same(values(target), values(wrapped.module))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
