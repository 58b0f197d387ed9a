"""The lines that are drawn, and the points on them: many small tensors, ever more bytes, many plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.states import State

FEW = 16  # tensors of a tree that grows by its bytes, until they are LARGE
LARGE = 16 << 20
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """A tree of equal float32 tensors; without bytes, of as many small dicts of plain values."""

    count: int
    nbytes: int  # of each

    @property
    def total(self) -> int:
        return self.count * self.nbytes

    @property
    def is_small(self) -> bool:
        return self.count <= 10_000 and self.total < 32 * MB

    def records(self) -> dict[str, Any]:
        numbers = range(self.count)
        return {"records": [{"step": n, "loss": n / 7, "name": f"run-{n}", "done": n % 2 == 0} for n in numbers]}

    def state(self) -> State:
        shapes: dict[str, tuple[int, ...]] = {
            f"layers.{n // 1000}.experts.{n % 1000}.weight": (self.nbytes // 4,) for n in range(self.count)
        }
        return State("growth", f"{self.count:,} of {self.nbytes:,} B", np.dtype(np.float32), shapes)


@dataclass(frozen=True, slots=True)
class Line:
    """Points along which one thing grows, and what is timed at each of them."""

    title: str
    unit: str
    actions: tuple[str, ...]
    points: tuple[Point, ...]
    baseline: str = "safetensors.numpy"
    beside: tuple[str, ...] = ()  # who can do it beside ckptfmt, where most cannot

    @property
    def counts(self) -> bool:
        return self.unit != "MB"

    def at(self, point: Point) -> int:
        """Where on the line a point stands."""
        return point.count if self.counts else point.total // MB


def by_count(nbytes: int, counts: tuple[int, ...]) -> Line:
    points = tuple(Point(count, nbytes) for count in counts)
    return Line(f"tensors of {nbytes:,} B", "tensors", ("save", "load", "first"), points)


def by_bytes(megabytes: tuple[int, ...]) -> Line:
    points = []
    for size in megabytes:
        each = min(size * MB // FEW, LARGE) // 4 * 4
        points.append(Point(round(size * MB / each), each))
    return Line("bytes of the tree", "MB", ("save", "load"), tuple(points))


def by_values(counts: tuple[int, ...]) -> Line:
    """Without a tensor; torch reads them with `weights_only=True`."""
    points = tuple(Point(count, 0) for count in counts)
    return Line("dicts of four plain values", "dicts", ("save", "load"), points, "torch.save", ("torch.save",))
