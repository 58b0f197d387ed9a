"""Chains of torch's modules beside `torch.utils.checkpoint`, and saved activations on a disk beside those in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ckptfmt_torch.recompute import OffloadTraffic, chain, offload
from torch.utils.checkpoint import checkpoint

WIDTH, STEPS, BATCH = 512, 24, 256


def model() -> list[Any]:
    torch.manual_seed(0)
    nn = torch.nn
    return [
        nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))
        for _ in range(STEPS)
    ]


def through(modules: list[Any], x: Any, call: Callable[[Any, Any], Any]) -> Any:
    for module in modules:
        x = call(module, x)
    return x


def least(modules: list[Any], ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least seconds that each way takes, forward and back, in turns; without gradients of a batch before."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, forward in ways.items():
            torch.nn.ModuleList(modules).zero_grad()
            start = time.perf_counter()
            forward().sum().backward()
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def chains(rounds: int) -> dict[str, Any]:
    """A step of training with the input of each block kept, by a chain and by torch of both kinds."""
    modules, x = model(), torch.randn(BATCH, WIDTH, requires_grad=True)
    ways: dict[str, Callable[[], Any]] = {
        "chain": lambda: chain(modules, x, memory="unlimited", schedule="memory"),
        "not reentrant": lambda: through(modules, x, lambda m, y: checkpoint(m, y, use_reentrant=False)),
        "reentrant": lambda: through(modules, x, lambda m, y: checkpoint(m, y, use_reentrant=True)),
    }
    found = least(modules, ways, rounds)
    shown: dict[str, Any] = {f"{name} ms": round(seconds * 1e3) for name, seconds in found.items()}
    for name in ("not reentrant", "reentrant"):
        shown[f"÷ {name}"] = round(found["chain"] / found[name], 3)
    return shown


def offloading(folder: Path, rounds: int) -> dict[str, Any]:
    """A step of training with what is saved on the disk, beside one with that in memory."""
    modules, x = model(), torch.randn(BATCH, WIDTH, requires_grad=True)
    reports: list[OffloadTraffic] = []

    def plain() -> Any:
        return through(modules, x, lambda m, y: m(y))

    def offloaded() -> Any:
        with offload(folder) as report:
            y = plain()
        reports.append(report)
        return y

    found = least(modules, {"plain": plain, "offload": offloaded}, rounds)
    report = reports[-1]
    return {
        "ms": round(found["offload"] * 1e3),
        "plain ms": round(found["plain"] * 1e3),
        "ratio": round(found["offload"] / found["plain"], 3),
        "saved MiB": report.saved >> 20,
        "share in memory": round(report.peak_bytes / report.saved, 3),
        "MB/s written and read": round((report.written + report.read) / found["offload"] / 1e6),
    }
