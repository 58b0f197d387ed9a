"""What a gradient keeps goes with its graph, however that ends: no thread is without work, and no file and no tensor
stays. What raised an error stays no longer than the error."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.recompute import gradient

try:
    import torch
    from ckptfmt_torch.recompute import chain, offload, offloading
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


def idle() -> list[str]:
    """The threads of gradients, once those have ended that are about to."""
    end = time.monotonic() + 30
    while (names := [t.name for t in threading.enumerate() if "recompute" in t.name]) and time.monotonic() < end:
        time.sleep(0.01)
    return names


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Any:
    yield
    gc.collect()
    assert idle() == []
    assert os.listdir(tmp_path) == []


def steps(count: int = 9) -> list[Callable[[Any], Any]]:
    return [lambda x: x * 0.5] * count


def ones() -> Any:
    return torch.ones(1000, requires_grad=True)


class Model:
    """One of whose steps are its own methods, and that keeps what it gave."""

    def step(self, x: Any) -> Any:
        return x * 0.5

    def __call__(self, folder: Path) -> None:
        self.given = chain([self.step] * 9, ones(), memory=1, disk=4, folder=folder)


@needs_torch
def test_a_chain_without_a_way_back(tmp_path: Path) -> None:
    """Has no thread while its graph waits; alone, in an offload, and with one within it."""
    for _ in range(3):
        y = chain(steps(), ones(), memory=1, disk=4, folder=tmp_path)
        assert idle() == []
        assert len(os.listdir(tmp_path)) == 1
        del y
        gc.collect()
        assert os.listdir(tmp_path) == []
    with offload(tmp_path, smallest=1):
        inner = [*steps(), lambda x: chain(steps(4), x, memory=1, disk=2, folder=tmp_path)]
        y = chain(inner, ones() * 1, memory=1, disk=4, folder=tmp_path).square()
    assert idle() == []
    del y


@needs_torch
def test_what_closes_a_chain_holds_none_of_it(tmp_path: Path) -> None:
    """Else a model that keeps what its own steps gave is held for ever."""
    model = Model()
    model(tmp_path)
    run = model.given.grad_fn.run
    found, seen = [run._close.peek()[1:]], set()
    while found:  # all that the registry of finalizers comes to, as far as the steps go
        each = found.pop()
        if id(each) not in seen and not isinstance(each, type) and type(each).__name__ not in ("module", "dict"):
            seen.add(id(each))
            assert each is not model
            assert each is not run
            found += gc.get_referents(each) if type(each).__module__ != "builtins" else _held(each)


def _held(each: Any) -> list[Any]:
    """What builtin containers, methods and functions hold, without their globals."""
    if isinstance(each, (list, tuple, set)):
        return list(each)
    own = [getattr(each, name, None) for name in ("__self__", "__func__", "__wrapped__", "gi_frame")]
    cells = [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
    return [value for value in [*own, *cells] if value is not None]


@needs_torch
def test_a_chain_whose_way_back_raised(tmp_path: Path) -> None:
    def fail(x: Any) -> Any:
        if torch.is_grad_enabled():
            raise ZeroDivisionError
        return x * 0.5

    x = ones()
    y = chain([*steps(5), fail, *steps(3)], x, memory=1, disk=4, folder=tmp_path).sum()
    with pytest.raises(ZeroDivisionError):
        y.backward()
    assert idle() == []
    assert os.listdir(tmp_path) == []


def raised(folder: Path) -> weakref.ref[Any]:
    """Where reading a file has failed; gives a tensor of the graph, whose frame the error holds."""
    with offload(folder, smallest=1) as report:
        y = ones() * 1
        for _ in range(5):
            y = y * y
    while report.written < 5 * 4000:
        time.sleep(0.01)
    for path in folder.glob(".*/saved-*.ckpt"):
        path.write_bytes(path.read_bytes()[:-200])
    try:
        y.sum().backward()
    except ckptfmt.CorruptError:
        return weakref.ref(y)
    raise AssertionError("a damaged file was read")


@needs_torch
def test_an_offload_whose_way_back_raised(tmp_path: Path) -> None:
    """The error has the frames that hold the graph, which must not hold the error."""
    there = raised(tmp_path)
    gc.collect()
    assert there() is None


@needs_torch
def test_an_offload_without_a_way_back(tmp_path: Path) -> None:
    with offload(tmp_path, smallest=1):
        y = (ones() * 1).square().square()
    assert idle() == []
    assert len(os.listdir(tmp_path)) == 1
    del y


@needs_torch
@pytest.mark.parametrize("memory", [0, 8000])
def test_the_last_write_of_an_offload_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """Nobody saves after it: who goes back is told, once; the tensor is still there."""
    save = offloading.save
    left = iter(range(3))

    def full(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise ckptfmt.StorageError("disk-full", "no space left")
        return save(*arguments, **options)

    monkeypatch.setattr(offloading, "save", full)
    x = ones()
    with offload(tmp_path, smallest=1, memory=memory):
        y = x * 1
        for _ in range(4 + memory // 4000):
            y = torch.sin(y)
        y = y.sum()
    with pytest.raises(ckptfmt.StorageError) as caught:
        y.backward(retain_graph=True)
    assert caught.value.code == "disk-full"
    y.backward()
    assert x.grad is not None


def test_a_driver_that_is_interrupted(tmp_path: Path) -> None:
    """Forward, and on the way back."""
    for forward, back in ((5, 99), (99, 4)):

        def step(x: Any, number: int, *, last: int = forward) -> Any:
            if number == last:
                raise KeyboardInterrupt
            return x * 0.5

        def adjoint(x: Any, number: int, a: Any, *, last: int = back) -> Any:
            if number == last:
                raise KeyboardInterrupt
            return a * 0.5

        with pytest.raises(KeyboardInterrupt):
            gradient(step, adjoint, np.ones(9), 9, lambda final: final, memory=1, disk=4, folder=tmp_path)
        assert idle() == []
        assert os.listdir(tmp_path) == []


def test_a_scan_without_a_way_back(tmp_path: Path) -> None:
    """Under jit nobody can tell that it will not come: its files stay until the process ends, and no thread does."""
    jax = pytest.importorskip("jax")
    recompute = pytest.importorskip("ckptfmt_jax.recompute")
    from ckptfmt_jax import spills

    def loss(x: Any) -> Any:
        last, _ = recompute.scan(lambda c, _: (c * 0.5, None), x, length=6, memory=1, disk=3, folder=tmp_path)
        return last.sum()

    x = jax.numpy.ones(9)
    _, back = jax.vjp(loss, x)
    assert idle() == []
    assert len(os.listdir(tmp_path)) == 1
    del back
    gc.collect()
    assert os.listdir(tmp_path) == []
    before = len(spills.open_runs())
    forward = jax.jit(lambda x: jax.vjp(loss, x)[0])
    for _ in range(3):
        jax.block_until_ready(forward(x))
    jax.effects_barrier()
    assert len(spills.open_runs()) == before + 3
    assert idle() == []
    spills.give_up_all()
