"""A disk that is slower than the steps: what waits for it stays within the budget. What lives is counted, to the
snapshot; no figure of the system is looked at."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptfmt import threads
from ckptfmt.recompute import gradient, snapshots

MIB = 1 << 20
WAITS = READ = 1  # copies that wait to be written, or were read ahead
IN_HAND = 2  # the state that a step is given, and the one that it gives


def slowed(call: Any) -> Any:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.02)
        try:
            return call(*arguments, **options)
        finally:
            time.sleep(0.02)

    return slow


@pytest.fixture(params=["slow", "late", "both"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One that writes slowly, or whose threads go on late once they have told that something is done."""
    if request.param != "late":
        monkeypatch.setattr(snapshots, "save", slowed(snapshots.save))
    if request.param != "slow":
        ring, main = threads.Bell.ring, threading.current_thread()

        def rung(bell: threads.Bell) -> None:
            ring(bell)
            if threading.current_thread() is not main:
                time.sleep(0.02)

        monkeypatch.setattr(threads.Bell, "ring", rung)
    return monkeypatch


class Storages:
    """Counts those that live of the storages of tensors."""

    def __init__(self) -> None:
        self._all: list[Any] = []
        self.peak = 0

    def seen(self, tensor: Any) -> Any:
        from torch.multiprocessing.reductions import StorageWeakRef

        self._all.append(StorageWeakRef(tensor.untyped_storage()))
        self.peak = max(self.peak, sum(not each.expired() for each in tuple(self._all)))
        return tensor

    def __bool__(self) -> bool:
        return any(not each.expired() for each in self._all)


@pytest.mark.parametrize("schedule", ["two-level", "disk-revolve"])
def test_plain_functions(disk: Any, tmp_path: Path, schedule: str) -> None:
    """Also those of which some are written on the way back."""
    options: dict[str, Any] = {"memory": 3, "disk": 20, "folder": tmp_path, "schedule": schedule}

    def run(size: int) -> None:
        gradient(lambda x, _: x * 0.5, lambda x, _, a: a * 0.5, np.ones(size), 30, lambda final: final, **options)

    run(9)  # imports
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run(4 * MIB // 8)
        rise = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    adjoints, initial, buffers = 2, 1, 2  # the last are those of a save, of 2 MiB, and of a read
    assert rise <= (3 + WAITS + READ + IN_HAND + adjoints + initial + buffers) * 4 * MIB


@pytest.mark.parametrize("schedule", ["two-level", "disk-revolve"])
def test_a_chain(disk: Any, tmp_path: Path, schedule: str) -> None:
    torch = pytest.importorskip("torch")
    steps = pytest.importorskip("ckptfmt_torch.recompute.steps")
    from ckptfmt_torch.recompute import chain

    count, unpack = Storages(), steps.ChainSteps.unpack

    def unpacked(*arguments: Any) -> Any:
        held = unpack(*arguments)
        count.seen(held.state.values[0])
        return held

    disk.setattr(steps.ChainSteps, "unpack", unpacked)
    x = torch.ones(1000, requires_grad=True)
    options: dict[str, Any] = {"memory": 3, "disk": 20, "folder": tmp_path, "schedule": schedule}
    chain([lambda x: count.seen(x * 0.5)] * 30, x, **options).sum().backward()
    assert count.peak <= 3 + WAITS + READ + IN_HAND
    assert not count  # once it is over


@pytest.mark.parametrize("memory", [0, 12_000])
def test_an_offload(disk: Any, tmp_path: Path, memory: int) -> None:
    """Also where its graph is kept, and gone back through again and again."""
    torch = pytest.importorskip("torch")
    offloading = pytest.importorskip("ckptfmt_torch.recompute.offloading")
    count, save, read = Storages(), offloading.save, offloading._read
    disk.setattr(offloading, "save", slowed(save))
    disk.setattr(offloading, "_read", lambda *arguments: count.seen(read(*arguments)))
    x = torch.ones(1000, requires_grad=True)
    with offloading.offload(tmp_path, memory=memory, smallest=1) as report:
        y = x
        for _ in range(30):
            y = count.seen(torch.sin(y))
        y = y.sum()
    waiting = read_ahead = offloading.AHEAD
    most = memory // 4000 + waiting + read_ahead + IN_HAND
    for _ in range(2):
        y.backward(retain_graph=True)
        assert count.peak <= most
        assert report.peak_bytes <= 4000 * most
    del y
    assert not count
