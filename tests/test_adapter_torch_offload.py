"""Saved activations on a disk: gradients stay what they were, to the bit; what is shared is written once, what is
changed is refused, and nothing is left."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_models import KINDS, Steps, bits

import ckptfmt

torch = pytest.importorskip("torch")
recompute = pytest.importorskip("ckptfmt_torch.recompute")
offload = recompute.offload
Scratch = Callable[[], AbstractContextManager[str]]


@settings(max_examples=25)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7),
    dtype=st.sampled_from(["float32", "float64"]),
    memory=st.sampled_from([0, 300, "1KiB", "1MiB"]),
    checkpoint=st.sampled_from([None, False, True]),
    autocast=st.booleans(),
)
def test_gradients_are_what_they_were(
    scratch: Scratch, kinds: list[str], dtype: str, memory: int | str, checkpoint: bool | None, autocast: bool
) -> None:
    """Also where torch recomputes what is between, of either kind, and casts."""
    made = Steps(kinds, dtype)
    steps = list(made.steps)

    def passed_on(step: Any) -> Any:
        def call(*values: Any) -> Any:
            found = step(values[0]) if step is made.tied else step(*values)
            return found if isinstance(found, tuple) else (found,)

        return call

    def forward(x: Any) -> Any:
        values: Any = (x * 1,)
        for step in map(passed_on, steps):
            if checkpoint is None:
                values = step(*values)
            else:
                values = torch.utils.checkpoint.checkpoint(step, *values, use_reentrant=checkpoint)
        return values

    with scratch() as folder, torch.autocast("cpu", torch.bfloat16, autocast and dtype == "float32"):

        def offloaded(x: Any) -> Any:
            with offload(folder, memory=memory, smallest=100):
                return forward(x)

        found = made.trained(offloaded)
        gc.collect()
        assert os.listdir(folder) == []
        assert found == made.trained(forward)


def files(folder: Path) -> Iterator[Path]:
    return folder.glob("*/saved-*.ckpt")


def test_what_shares_a_storage_is_written_once(tmp_path: Path) -> None:
    """And what stays where it is is not written: parameters and their views, what is kept, small tensors."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
    model[0].weight.requires_grad_(False)
    mask = torch.rand(64, 64)
    small = torch.rand(2, 3, requires_grad=True)
    x = torch.rand(64, 64, requires_grad=True)
    with offload(tmp_path, smallest=1000, keep=[model, mask]) as report:
        h = model(x) * mask
        y = h.sin() + h.t().cos() + h[:60].exp().sum() + h[:, :60].exp().sum() + (small * small).exp().sum()
    sizes = [64 * 64 * 4, 60 * 64 * 4, 64 * 60 * 4]  # h; the two that exp gives; and what enters the second layer
    assert report.storages == 4
    assert report.saved == 2 * sizes[0] + sizes[1] + sizes[2]
    (found,) = torch.autograd.grad(y.sum(), x)
    h = model(x) * mask
    y = h.sin() + h.t().cos() + h[:60].exp().sum() + h[:, :60].exp().sum() + (small * small).exp().sum()
    assert bits(found) == bits(torch.autograd.grad(y.sum(), x)[0])
    assert 0 < report.read <= report.saved


def test_a_small_part_of_a_large_storage_is_written_alone(tmp_path: Path) -> None:
    data = torch.rand(1000, 100)
    weight = torch.rand(100, requires_grad=True)
    with offload(tmp_path, smallest=1) as report:
        y = (data[3:5] * weight).sum()
    assert report.saved < 2 * 100 * 4 + 64
    y.backward()
    assert bits(weight.grad) == bits(data[3:5].sum(0))


def squares(x: Any, count: int) -> Any:
    for _ in range(count):
        x = x.square()  # which saves its input
    return x


def ones(**options: Any) -> Any:
    return torch.full((100, 100), 0.99, **options)


def test_the_latest_stay_in_memory(tmp_path: Path) -> None:
    """As many as the budget has; they are asked for first."""
    x = ones(requires_grad=True)
    with offload(tmp_path, memory=4 * 40_000, smallest=1) as report:
        y = squares(x * 1, 12)
    assert report.storages == 12
    y.sum().backward()
    assert report.read <= 8 * 40_000  # what waits to be written is there
    assert report.written >= 6 * 40_000
    assert report.peak_bytes <= (4 + 2 + 2) * 40_000
    assert bits(x.grad) == bits(torch.autograd.grad(squares(x * 1, 12).sum(), x)[0])


def test_files_go_with_the_graph(tmp_path: Path) -> None:
    """With each part of it as soon as it is done; at the latest when the program ends."""
    x = ones(requires_grad=True)
    with offload(tmp_path, smallest=1) as report:
        y = squares(x * 1, 5)
    while report.written < 5 * 40_000:
        pass
    y.sum().backward(retain_graph=True)
    found, x.grad = x.grad, None
    assert len(list(files(tmp_path))) == 5
    y.sum().backward()
    assert bits(found) == bits(x.grad)
    gc.collect()
    assert os.listdir(tmp_path) == []
    with offload(tmp_path, smallest=1):
        y = squares(x * 1, 5)
    del y
    assert os.listdir(tmp_path) == []
    with pytest.raises(ZeroDivisionError), offload(tmp_path, smallest=1):
        squares(x * 1, 5) / (1 // 0)
    gc.collect()
    assert os.listdir(tmp_path) == []
    with offload(tmp_path / "never made", memory="1GiB"):
        squares(x * 1, 5)
    assert not (tmp_path / "never made").exists()


ENDED = """
import os, sys, torch
from ckptfmt_torch.recompute import offload
x = torch.ones(100, 100, requires_grad=True)
with offload(sys.argv[1], smallest=1) as report:
    y = (x * 1).square().square()
if sys.argv[2] == "crash":
    while report.written < 2 * 40_000: pass
    os._exit(1)
"""


@pytest.mark.parametrize("how", ["end", "crash"])
def test_what_is_left_when_the_process_ends(tmp_path: Path, how: str) -> None:
    subprocess.run([sys.executable, "-c", ENDED, tmp_path, how], check=how == "end")
    if how == "crash":
        assert len(list(files(tmp_path))) == 2
        ckptfmt.gc(tmp_path, delete=True, grace=0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("memory", [0, "1GiB"])
def test_changes_in_place_are_found(tmp_path: Path, memory: int | str) -> None:
    """Through any view, before or after the bytes are written; as torch does itself. What nobody asks for may."""
    x = ones(requires_grad=True)
    changes: list[Callable[[Any], Any]] = [
        lambda h: h.add_(1),
        lambda h: h.detach()[3:].zero_(),
        lambda h: h.view(-1)[:1].copy_(torch.ones(1)),
    ]
    for change in changes:
        for context in (nullcontext(), offload(tmp_path, smallest=1, memory=memory)):
            with context:
                h = x * 1
                y = h.square().sum()
                with torch.no_grad():
                    change(h)
            with pytest.raises((RuntimeError, ckptfmt.InputError), match=r"in ?place") as caught:
                y.backward()
            if isinstance(caught.value, ckptfmt.InputError):
                assert caught.value.code == "state-changed"
    with offload(tmp_path, smallest=1, memory=memory):
        h = x * 1
        unused = h.square()
        h.add_(1)
        y = h.square().sum()  # the same storage, in another version
    y.backward()
    del unused
    assert bits(x.grad) == bits(2 * (x.detach() + 1))
    weight = torch.ones(100, 100, requires_grad=True)
    with offload(tmp_path, smallest=1):
        y = (x * 1 * weight).sum()
    with torch.no_grad():
        weight.add_(1)
    with pytest.raises(ckptfmt.InputError, match="in place"):
        y.backward()


def test_second_derivatives(tmp_path: Path) -> None:
    x = ones(requires_grad=True)
    with offload(tmp_path, smallest=1):
        y = squares(x * 1, 3).sum()
        (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    (plain,) = torch.autograd.grad(squares(x * 1, 3).sum(), x, create_graph=True)
    assert bits(second) == bits(torch.autograd.grad(plain.sum(), x)[0])


def test_other_tensors_stay(tmp_path: Path) -> None:
    """Sparse ones, and subclasses."""
    x = torch.rand(9, 9, requires_grad=True)
    sparse = torch.eye(9).to_sparse()
    with offload(tmp_path, smallest=1):
        y = torch.sparse.mm(sparse, x * 1).exp().sum()
    y.backward()
    assert bits(x.grad) == bits(x.detach().exp())


def test_a_chain_within(tmp_path: Path) -> None:
    """Its snapshots are its own; of what is around it activations go to the disk."""
    modules = [torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Dropout()) for _ in range(6)]
    x = ones(requires_grad=True)

    def forward(chained: bool) -> Any:
        torch.manual_seed(0)
        y = (x * 1).square()
        if chained:
            y = recompute.chain(modules, y, memory=2)
        else:
            for module in modules:
                y = module(y)
        return y.square().sum()

    with offload(tmp_path, smallest=1) as report:
        y = forward(True)
    assert report.storages == 2
    assert bits(torch.autograd.grad(y, x)[0]) == bits(torch.autograd.grad(forward(False), x)[0])


def test_a_damaged_file_is_no_gradient(tmp_path: Path) -> None:
    x = ones(requires_grad=True)
    with offload(tmp_path, smallest=1) as report:
        y = squares(x * 1, 4).sum()
    while report.written < 4 * 40_000:
        pass
    for path in files(tmp_path):
        whole = bytearray(path.read_bytes())
        whole[5000] ^= 1
        path.write_bytes(whole)
    with pytest.raises(ckptfmt.CorruptError):
        y.backward()
    assert x.grad is None


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forward pass ends with the error of the save that failed."""

    def fail(*_: Any, **__: Any) -> Any:
        raise ckptfmt.StorageError("disk-full", "no space left")

    monkeypatch.setattr("ckptfmt_torch.recompute.offloading.save", fail)
    with pytest.raises(ckptfmt.StorageError) as caught, offload(tmp_path, smallest=1):
        squares(ones(requires_grad=True) * 1, 9)
    assert caught.value.code == "disk-full"
    del caught
    gc.collect()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": -1}, "memory="),
        ({"memory": "much"}, "memory="),
        ({"smallest": 1.5}, "smallest="),
        ({"keep": [3]}, "keep="),
        ({"memry": 1}, "did you mean 'memory'"),
    ],
)
def test_what_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ckptfmt.InputError, match=says) as caught, offload(tmp_path, **options):
        pass
    assert caught.value.code == "bad-option"


PEAK = """
import sys, torch
from torch.utils.checkpoint import checkpoint
from ckptfmt_torch.recompute import offload
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) << 10
torch.set_num_threads(1)
def forward(x, count, kind):
    for _ in range(count):
        x = torch.sin(x) if kind is None else checkpoint(torch.sin, x, use_reentrant=kind)
    return x.sum()
def run(x, count, kind):
    x = x.requires_grad_() * 1
    with offload(sys.argv[1]):
        y = forward(x, count, kind)
    y.backward()
for kind in (None, False, True):
    run(torch.ones(1 << 19), 3, kind)  # imports, of which torch has 80 MiB for one of them
x = torch.ones(1 << 20)
for kind in (None, False, True):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    run(x, 45, kind)
    print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_peak_memory(tmp_path: Path) -> None:
    """Of 45 activations of 4 MiB; also where they are inputs of what torch recomputes, of either kind."""
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path], check=True, capture_output=True, text=True)
    rises = list(map(int, done.stdout.split()))
    assert len(rises) == 3
    assert max(rises) <= (16 * 4 + 64) << 20
