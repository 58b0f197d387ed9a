"""Several loads from one open checkpoint at the same time: each has a progress and a bound of memory of its own."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS
from inside import inside
from migrations import document

import ckptfmt

SMALL, LARGE = np.arange(1 << 18, dtype=np.float32), np.arange(1 << 22, dtype=np.float32)
TREE = {"small": SMALL, "large": LARGE}
ZIPPED = {"compression": "gzip"}
VIEWS: dict[str, dict[str, Any]] = {
    "stored": {},
    "renamed": {"add_prefix": "x."},
    "moved": {"schema": "2", "migrations": document(rest="keep")},
    "computed": {"schema": "2", "migrations": document({"from": "{n}", "with": [{"op": "neg"}], "to": "{n}"})},
}


class Told:
    """A progress which goes on only when the other load has been told something, too."""

    def __init__(self, me: threading.Event, other: threading.Event) -> None:
        self.me, self.other = me, other
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        self.me.set()
        assert self.other.wait(60)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_is_told_of_its_own_bytes(tmp_path: Path, layout: str, view: str) -> None:
    path = tmp_path / "c.ckpt"
    ckptfmt.save(path, TREE, layout=layout, schema=("s", "1"), durable=False)
    events = threading.Event(), threading.Event()
    told = [Told(*events), Told(*events[::-1])]
    found: dict[str, Any] = {}
    with ckptfmt.open(path, **VIEWS[view]) as checkpoint:
        names = [name for name in checkpoint if isinstance(name, str)]
        names.sort(key=lambda name: "large" in name)

        def load(name: str, progress: Told) -> None:
            found.update(checkpoint.load(select=name, progress=progress))

        threads = [threading.Thread(target=load, args=pair) for pair in zip(names, told, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    sign = -1 if view == "computed" else 1
    for name, progress, array in zip(names, told, (SMALL, LARGE), strict=True):
        assert np.array_equal(found[name], sign * array)
        done = [count for count, _ in progress.seen]
        assert {total for _, total in progress.seen} == {array.nbytes}
        assert done == sorted(done)
        assert done[-2] == array.nbytes, "all of it was counted before the end was told, and nothing else"
        assert done[0] <= array.nbytes // 2 or len(done) == 2


def test_a_bound_is_that_of_its_load(tmp_path: Path) -> None:
    """What one load may take says nothing to another one, nor to a slice."""
    path = tmp_path / "c.ckpt"
    ckptfmt.save(path, TREE, durable=False)
    with ckptfmt.open(path) as checkpoint:
        before = inside(checkpoint).blocks.in_flight
        loader = inside(checkpoint).loader(max_bytes_in_flight=1 << 20)
        assert (loader.blocks.in_flight, inside(checkpoint).loader().blocks.in_flight) == (1 << 20, before)
        checkpoint.load(max_bytes_in_flight=1, progress=lambda done, total: None)
        assert (inside(checkpoint).blocks.in_flight, inside(checkpoint).blocks.on_read) == (before, None)
        assert checkpoint.bytes_read >= sum(array.nbytes for array in TREE.values()), "the total is of all loads"
