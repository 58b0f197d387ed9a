"""Chains of torch's modules give the outputs and gradients of the modules themselves, to the bit, in little memory."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_models import KINDS, Steps, bits

import ckptfmt
from ckptfmt.recompute import Costs, RecomputeReport, SnapshotWarning
from ckptfmt.recompute.optimum import fewest_steps
from ckptfmt.recompute.schedules import SCHEDULES

torch = pytest.importorskip("torch")
chain = pytest.importorskip("ckptfmt_torch.recompute").chain
Scratch = Callable[[], AbstractContextManager[str]]


@settings(max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=9),
    dtype=st.sampled_from(["float32", "float64"]),
    schedule=st.sampled_from([None, *SCHEDULES, "auto"]),
    memory=st.one_of(st.none(), st.integers(1, 5), st.just("unlimited")),
    disk=st.one_of(st.none(), st.integers(1, 3), st.just("unlimited")),
    check=st.booleans(),
)
def test_a_chain_leaves_what_its_steps_leave(scratch: Scratch, kinds: list[str], dtype: str, **options: Any) -> None:
    """Outputs, gradients of inputs, of parameters, tied ones among them, and of captured tensors; buffers; and the
    random numbers that are drawn next. Nothing is left on the disk."""
    made = Steps(kinds, dtype)
    made.steps = [step if step is not made.tied else partial(_first, made.tied) for step in made.steps]
    reports: list[RecomputeReport] = []
    with scratch() as folder:
        if options["disk"] is not None:
            options["folder"] = folder
        try:
            found = made.trained(lambda x: chain(made.steps, x, report=reports.append, **options))
        except ckptfmt.InputError as error:
            assert error.code == "bad-option"
            assert "memory" in str(error) or "disk" in str(error) or "snapshots" in str(error)
            return
        assert os.listdir(folder) == []
    assert found == made.trained(made.plain)
    (report,) = reports
    assert report.forward_steps == report.planned_steps
    assert report.adjoint_steps == len(kinds)


def _first(module: Any, x: Any, *rest: Any) -> Any:
    return module(x), *rest


def layers(count: int, width: int = 6) -> list[Any]:
    torch.manual_seed(0)
    return [torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh()) for _ in range(count)]


def gradients(modules: list[Any], loss: Any) -> list[bytes]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return [bits(one) for one in torch.autograd.grad(loss, parameters)]


def through(modules: list[Any], x: Any) -> Any:
    for module in modules:
        x = module(x)
    return x


def batch(width: int = 6) -> Any:
    torch.manual_seed(1)
    return torch.randn(4, width)


def test_the_fewest_steps_and_the_gradients_of_torch_utils_checkpoint() -> None:
    modules, x = layers(30), batch()
    reports: list[RecomputeReport] = []
    found = gradients(modules, chain(modules, x, memory=4, report=reports.append).sum())
    assert reports[0].forward_steps == fewest_steps(30, 4)
    assert reports[0].memory_snapshots == 4

    def by_torch(*modules: Any) -> Any:
        y = x.clone().requires_grad_()
        for module in modules:
            y = torch.utils.checkpoint.checkpoint(module, y, use_reentrant=False)
        return y.sum()

    assert found == gradients(modules, by_torch(*modules))


@pytest.mark.parametrize("options", [{"memory": 2}, {"memory": 1, "disk": 2}])
def test_autocast_is_what_it_was(tmp_path: Path, options: dict[str, Any]) -> None:
    """And its cache has no casts without a graph, which would take the gradients of whoever comes after."""
    if "disk" in options:
        options = {**options, "folder": tmp_path}
    modules, x = layers(6), batch().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = chain(modules, x, **options)
        z = through(modules, x)
    assert y.dtype == z.dtype == torch.bfloat16
    assert bits(y) == bits(z)
    assert gradients(modules, y.float().sum()) == gradients(modules, z.float().sum())


def test_buffers_that_decide_what_a_step_gives() -> None:
    """Of a spectral norm, each call moves the vectors that the weight is divided with."""
    norm = torch.nn.utils.parametrizations.spectral_norm
    torch.manual_seed(0)
    modules = [norm(torch.nn.Linear(6, 6)) for _ in range(6)]
    other, x = copy.deepcopy(modules), batch()
    assert gradients(modules, chain(modules, x, memory=2).sum()) == gradients(other, through(other, x).sum())
    for mine, its in zip(modules, other, strict=True):
        assert list(map(bits, mine.buffers())) == list(map(bits, its.buffers()))


def test_strides_and_shared_memory_come_back_from_the_disk(tmp_path: Path) -> None:
    """A sum over another order in memory would be another one; and what is a view is one again."""
    seen: dict[int, list[Any]] = {}

    def look(number: int, *values: Any) -> Any:
        shown: list[Any] = [(v.stride(), v.is_conj(), v.is_neg()) for v in values]
        pairs = ((1, 0), (4, 0), (3, 2)) if number else ()
        shown += [values[one].data_ptr() - values[other].data_ptr() for one, other in pairs]
        assert seen.setdefault(number, shown) == shown
        images = values[0] * 1.5
        odd = torch.complex(images, images).conj()
        return images, images[:, 1:], odd[0], odd.imag[1:], images[:1].expand(3, *images.shape[1:]), images[:0]

    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    steps = [partial(look, number) for number in range(6)]
    y = chain(steps, x, disk=2, folder=tmp_path, check=True)
    y[0].sum().backward()
    assert bits(x.grad) == bits(torch.full_like(x, 1.5**6))


def test_chains_in_chains_and_checkpoints() -> None:
    modules, x = layers(5), batch().requires_grad_()

    def inner(x: Any) -> Any:
        return chain(modules, x, memory=2)

    def twice(x: Any) -> Any:
        return through(modules, through(modules, x))

    wanted = [bits(torch.autograd.grad(twice(x).sum(), x)[0]), gradients(modules, twice(x).sum())]
    checkpoint = torch.utils.checkpoint.checkpoint
    ways: list[Callable[[Any], Any]] = [
        lambda x: chain([inner, inner], x, memory=1),
        lambda x: inner(checkpoint(inner, x, use_reentrant=False)),
        lambda x: chain([partial(checkpoint, module, use_reentrant=False) for module in modules] * 2, x, memory=3),
    ]
    for nested in ways:
        y = nested(x)
        assert bits(torch.autograd.grad(nested(x).sum(), x)[0]) == wanted[0]
        for mine, other in zip(gradients(modules, y.sum()), wanted[1], strict=True):
            assert mine == other
    y = checkpoint(inner, x, use_reentrant=True)
    y.sum().backward()
    assert bits(x.grad) == bits(torch.autograd.grad(through(modules, x).sum(), x)[0])


def test_hooks() -> None:
    """Those of a tensor see its whole gradient, once; those of a module each call."""
    (module,) = layers(1)
    calls: list[str] = []
    seen: list[Any] = []

    def doubled(gradient: Any) -> Any:
        seen.append(gradient)
        return 2 * gradient

    module.register_forward_hook(lambda *_: calls.append("forward"))
    module.register_full_backward_hook(lambda *_: calls.append("backward"))
    module[0].weight.register_hook(doubled)
    x = batch().requires_grad_()
    x.register_hook(seen.append)
    reports: list[RecomputeReport] = []
    chain([module] * 4, x, memory=2, report=reports.append).sum().backward()
    assert calls.count("forward") == reports[0].forward_steps + 4
    assert calls.count("backward") == 4
    assert len(seen) == 2
    assert torch.equal(module[0].weight.grad, 2 * next(one for one in seen if one.shape == (6, 6)))


def test_what_needs_no_gradient_is_just_called() -> None:
    modules, x = layers(3), batch()
    with torch.no_grad():
        assert not chain(modules, x, memory=1).requires_grad
    with torch.inference_mode():
        assert chain(modules, x, memory=1).is_inference()
    assert not chain([torch.sin, torch.cos], x, memory=1).requires_grad
    counts = chain([lambda x: (x.argmax(), x, None, 3), lambda i, x, none, n: [i, n * x]], x, memory=1)
    assert isinstance(counts, tuple)


def test_what_is_frozen_is_not_gone_back_over() -> None:
    modules, x = layers(6), batch()
    calls: list[int] = []
    for number, module in enumerate(modules):
        module.register_forward_pre_hook(lambda *_, n=number: calls.append(n) if torch.is_grad_enabled() else None)
        module.requires_grad_(number in (3, 5))
    parameters = [*modules[3].parameters(), *modules[5].parameters()]
    found = torch.autograd.grad(chain(modules, x, memory=2).sum(), parameters)
    assert calls == [5, 4, 3]
    wanted = torch.autograd.grad(through(modules, x).sum(), parameters)
    assert list(map(bits, found)) == list(map(bits, wanted))
    (last,) = torch.autograd.grad(chain(modules, x, memory=2).sum(), parameters[-1:])
    assert bits(last) == bits(wanted[-1])


def test_what_is_not_differentiable() -> None:
    x = batch().requires_grad_()
    index, plain, y = chain([lambda x: (x.argmax(), "as it is", x * 2), lambda *values: values], x, memory=1)
    assert (index.requires_grad, plain, y.requires_grad) == (False, "as it is", True)
    y.relu_().sum().backward()  # the output is like any other tensor
    assert bits(x.grad) == bits(2 * (x > 0).float())


def test_what_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closures, defaults, partials, methods and globals; else the backward pass says that something was not found."""
    a, b, c, d = (torch.full((6,), float(n), requires_grad=True) for n in range(1, 5))
    (module,) = layers(1)
    monkeypatch.setitem(globals(), "SOMEWHERE", [d])
    inner = c * 2  # of a graph that goes on
    steps = [
        lambda x: x * a,
        lambda x, b=b: x * b,
        partial(torch.mul, inner),
        module.forward,
        lambda x: x * SOMEWHERE[0],
    ]
    wanted = torch.autograd.grad(through(steps, batch()).sum(), [a, b, c, d, module[0].weight], retain_graph=True)
    found = torch.autograd.grad(chain(steps, batch(), memory=2).sum(), [a, b, c, d, module[0].weight])
    assert list(map(bits, found)) == list(map(bits, wanted))

    class Hidden:
        weight = torch.ones(6, requires_grad=True)

        def __call__(self, x: Any) -> Any:
            return x * self.weight

    steps = [module, Hidden()]
    with pytest.raises(ckptfmt.InputError, match=r"step 1 uses a tensor .* captured="):
        chain(steps, batch(), memory=1).sum().backward()
    chain(steps, batch(), memory=1, captured=[Hidden.weight]).sum().backward()
    assert bits(Hidden.weight.grad) == bits(module(batch()).sum(0))


SOMEWHERE: list[Any] = []


def test_the_files_go_with_the_graph(tmp_path: Path) -> None:
    y = chain(layers(6), batch(), disk=3, folder=tmp_path)
    assert len(os.listdir(tmp_path)) == 1
    del y
    gc.collect()
    assert os.listdir(tmp_path) == []


def test_a_damaged_snapshot_is_computed_again(tmp_path: Path) -> None:
    modules, x = layers(9), batch()
    y = chain(modules, x, memory=1, disk=3, folder=tmp_path)
    for path in tmp_path.glob("*/snapshot-*.ckpt"):
        if int(path.stem.partition("-")[2]):
            path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(SnapshotWarning):
        found = gradients(modules, y.sum())
    assert found == gradients(modules, through(modules, x).sum())


PEAK = """
import json, sys, torch
from ckptfmt_torch.recompute import chain
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) << 10
weight = torch.full((1,), 0.5, requires_grad=True)
def step(x):
    return torch.tanh(x * weight)
torch.set_num_threads(1)
x = torch.ones(1 << 20)
chain([step] * 3, torch.ones(9), memory=2, folder=sys.argv[1]).sum().backward()  # imports
for options in ({"memory": 6}, {"memory": 3, "folder": sys.argv[1], "schedule": "two-level"}):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    chain([step] * 50, x, **options).sum().backward()
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_peak_memory(tmp_path: Path) -> None:
    """50 steps of 4 MiB, which all together would be 400 MiB with what the operations save."""
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path], check=True, capture_output=True, text=True)
    for budget, rise in zip((6, 3), map(int, done.stdout.split()), strict=True):
        assert rise <= (budget * 4 + 10 * 4 + 64) << 20


def bad_step(x: Any) -> Any:
    return x.add_(1)


@pytest.mark.parametrize(
    ("steps", "options", "code", "says"),
    [
        ([], {"memory": 1}, "bad-option", "at least one"),
        ([torch.sin, 3], {"memory": 1}, "bad-option", "steps= .found 3"),
        ([torch.sin] * 2, {}, "bad-option", "no snapshots"),
        ([torch.sin] * 2, {"memory": 0}, "bad-option", "no snapshots"),
        ([torch.sin] * 2, {"memory": -1}, "bad-option", "memory="),
        ([torch.sin] * 2, {"disk": 2}, "bad-option", "folder="),
        ([torch.sin] * 2, {"memory": 1, "period": 0}, "bad-option", "period="),
        ([torch.sin] * 2, {"memory": 1, "schedule": "revolv"}, "bad-option", "did you mean 'revolve'"),
        ([torch.sin] * 2, {"memory": 1, "schedule": "multistage"}, "bad-option", "memory= and disk="),
        ([torch.sin] * 2, {"memory": "1B"}, "bad-option", "not enough for one snapshot"),
        ([lambda x: {"a": x}], {"memory": 1}, "unsupported-leaf", "found dict"),
        ([torch.sin, bad_step], {"memory": 1}, "state-changed", "step 1 changes"),
    ],
)
def test_what_is_refused(steps: list[Any], options: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=says) as caught:
        chain(steps, batch().requires_grad_(), **options)
    assert caught.value.code == code


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # which forward_ad comes to
def test_transforms_and_second_derivatives_are_refused() -> None:
    modules, x = layers(2), batch()

    def call(x: Any) -> Any:
        return chain(modules, x, memory=1).sum()

    for transformed in (torch.func.grad(call), torch.func.vmap(call), torch.func.jacrev(call)):
        with pytest.raises(ckptfmt.InputError, match=r"torch\.func"):
            transformed(x)
    y = call(x.requires_grad_())
    with pytest.raises(ckptfmt.InputError, match="differentiated twice"):
        torch.autograd.grad(y, x, create_graph=True)
    y.backward(retain_graph=True)
    with pytest.raises(ckptfmt.InputError, match="gone back through once"):
        y.backward()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(ckptfmt.InputError, match="forward-mode"):
        call(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()))


def test_changes_in_place_are_found() -> None:
    modules, x = layers(3), batch().requires_grad_()
    given = x * 1
    y = chain(modules, given, memory=2)
    given.add_(1)
    with pytest.raises(ckptfmt.InputError, match="changed in place"):
        y.sum().backward()
    y = chain(modules, x, memory=2)
    with torch.no_grad():
        modules[1][0].weight.add_(1)
    with pytest.raises(ckptfmt.InputError, match=r"a parameter was changed .* optimizer\.step"):
        y.sum().backward()


def test_a_step_that_is_not_deterministic() -> None:
    calls: list[int] = []

    def step(x: Any) -> Any:
        calls.append(0)
        return x + len(calls)

    y = chain([step] * 6, batch().requires_grad_(), memory=1, check=True)
    with pytest.raises(ckptfmt.InputError, match="step 0 gives another state") as caught:
        y.sum().backward()
    assert caught.value.code == "not-deterministic"


def test_costs_choose_a_schedule(tmp_path: Path) -> None:
    modules, x = layers(20), batch()
    reports: list[RecomputeReport] = []
    options = {"memory": 2, "disk": 5, "folder": tmp_path, "schedule": "auto", "report": reports.append}
    for costs in (Costs(write=100, read=100), Costs(write=0.01, read=0.01)):
        found = gradients(modules, chain(modules, x, costs=costs, **options).sum())
        assert found == gradients(modules, through(modules, x).sum())
    assert reports[0].disk_snapshots < reports[1].disk_snapshots


@pytest.fixture
def alone() -> Iterator[Any]:
    """A mesh of this process."""
    from torch.distributed.device_mesh import init_device_mesh

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        torch.distributed.destroy_process_group()


class Chained(torch.nn.Module):
    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Any) -> Any:
        return chain(self.layers, x, memory=2)


@pytest.mark.filterwarnings("ignore")  # of a mesh of one process
def test_ranks(alone: Any) -> None:
    """A chain within a module of which each rank has a copy, or a part: the same gradients. Its steps cannot be
    divided."""
    from torch.distributed.fsdp import fully_shard

    layers = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()) for _ in range(6))
    x = torch.randn(4, 8)
    value = x
    for layer in layers:
        value = layer(value)
    value.square().mean().backward()
    expected = [parameter.grad for parameter in layers.parameters()]

    def copied() -> Any:
        made = copy.deepcopy(layers)
        made.zero_grad()
        return made

    whole = fully_shard(Chained(copied()), mesh=alone)
    for module in (torch.nn.parallel.DistributedDataParallel(Chained(copied())), whole):
        module(x).square().mean().backward()
        found = [parameter.grad for parameter in module.parameters()]
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.full_tensor() if hasattr(one, "full_tensor") else one, other)

    divided = copied()
    for layer in divided:
        fully_shard(layer, mesh=alone)
    with pytest.raises(ckptfmt.InputError, match="step 0 has a module of FSDP") as caught:
        Chained(divided)(x)
    assert caught.value.code == "unsupported-leaf"
