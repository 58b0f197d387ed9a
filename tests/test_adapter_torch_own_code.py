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
from modules import Counting, Derived, Ema, Halved, Renamed, Transposed, assert_same, beside_torch, values

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
nn = torch.nn

Scratch = Callable[[], AbstractContextManager[str]]


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


class Number(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def test_a_number_that_is_stored_with_one_axis(tmp_path: Path) -> None:
    """As torch did before 0.4, and takes it still."""
    beside_torch(tmp_path, {"scale": torch.tensor([5.0])}, Number)
    ckptfmt_torch.save(tmp_path / "d", {"scale": torch.tensor([5.0, 6.0])})
    with pytest.raises(ckptfmt.MismatchError, match="scale"):
        ckptfmt_torch.load_into(tmp_path / "d", Number())


# ---- large tensors, of which the file is mapped


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("can_map", [True, False])
def test_large_tensors_through_a_module_s_own_code(
    tmp_path: Path, layout: str, can_map: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes and keeps them, changes neither the file nor a second load; damage is told before it is given."""
    if not can_map:
        monkeypatch.setattr("ckptfmt.reading.mapping._POPULATE_READ", -1)
    saved = nn.Sequential(Halved(300, 300), Transposed(300, 300))
    kept: list[Any] = []
    ckptfmt_torch.save(tmp_path / "c", saved, layout=layout)
    done: list[int] = []
    for _ in range(2):
        target = nn.Sequential(Halved(300, 300), Transposed(300, 300))
        target.register_load_state_dict_pre_hook(lambda module, state, *_: kept.append(state["1.weight"].zero_()))
        other = nn.Sequential(Halved(300, 300), Transposed(300, 300))
        other[1].register_load_state_dict_pre_hook(lambda module, state, *_: kept.append(state["1.weight"]))
        ckptfmt_torch.load_into(tmp_path / "c", target, progress=lambda n, total: done.append(n))
        assert done[-1] >= 2 * 300 * 300 * 4
        assert torch.equal(target[0].weight, saved[0].weight)
        assert not target[1].weight.any()
        ckptfmt_torch.load_into(tmp_path / "c", other)
        assert_same(values(other), values(saved))
    assert ckptfmt.verify(tmp_path / "c").ok
    _damage(tmp_path / "c", saved.state_dict()["1.weight"].numpy()[150:152].tobytes())
    before = values(target)
    with pytest.raises(ckptfmt.CkptError, match=r"1\.weight"):
        ckptfmt_torch.load_into(tmp_path / "c", target)
    assert_same(values(target), before)


def _damage(place: Path, found: bytes) -> None:
    """Change a byte of what is stored, wherever that is."""
    for path in [place, *place.rglob("*")]:
        if path.is_file() and found in (data := path.read_bytes()):
            path.write_bytes(data.replace(found, bytes([found[0] ^ 1]) + found[1:]))


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


class Versioned(nn.Module):
    """Reads what its first version wrote as ten times less."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.rand(3))

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version") is None or metadata["version"] < 2:
            state[f"{prefix}w"] = state[f"{prefix}w"] * 10
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("below", [(), ("model",)], ids=["whole", "below"])
def test_versions_of_modules_come_along_from_files_of_torch_and_back(tmp_path: Path, below: tuple[str, ...]) -> None:
    source = nn.Sequential(Versioned())
    torch.save({"model": source.state_dict()} if below else source.state_dict(), tmp_path / "a.pt")
    assert not ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt").losses
    target = nn.Sequential(Versioned())
    ckptfmt_torch.load_into(tmp_path / "a.ckpt", target, prefix=below or None)
    assert_same(values(target), values(source))
    assert not ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "b.pt").losses
    again = torch.load(tmp_path / "b.pt")
    state = again["model"] if below else again
    assert state._metadata == source.state_dict()._metadata
    assert ckptfmt.diff(tmp_path / "a.pt", tmp_path / "a.ckpt").equal


@pytest.mark.parametrize("written", [False, True])
def test_versions_of_modules_come_along_through_migrations(tmp_path: Path, written: bool) -> None:
    source, target = nn.Sequential(Versioned(), nn.Linear(1, 1)), nn.Sequential(Versioned())
    ckptfmt_torch.save(tmp_path / "a", {"net": source}, schema=("net", "1"))
    rules = [{"from": "net/0.w", "to": "model/0.w"}, {"from": "net/1.{name}", "with": [{"op": "drop"}], "to": []}]
    options: dict[str, Any] = {
        "schema": "2",
        "migrations": {"ckptfmt_migration": 1, "schema": "net", "from": "1", "to": "2", "rules": rules},
    }
    if written:
        ckptfmt.migrate(tmp_path / "a", tmp_path / "b", options["migrations"], schema="2")
        ckptfmt_torch.load_into(tmp_path / "b", target, prefix="model")
        state = ckptfmt_torch.load(tmp_path / "b")["model"]
    else:
        ckptfmt_torch.load(tmp_path / "a", into={"model": target}, **options)
        state = ckptfmt_torch.load(tmp_path / "a", **options)["model"]
    assert_same(values(target), {"0.w": source[0].w})
    assert state._metadata == {"": {"version": 1}, "0": {"version": 2}}


def test_what_is_saved_of_a_module_goes_into_a_file_of_torch(tmp_path: Path) -> None:
    source, target = nn.Sequential(Versioned()), nn.Sequential(Versioned())
    ckptfmt_torch.save(tmp_path / "a.ckpt", source)
    assert not ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.pt").losses
    target.load_state_dict(torch.load(tmp_path / "a.pt"))
    assert_same(values(target), values(source))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
