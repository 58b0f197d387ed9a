"""Ranks that disagree about what they save together: nothing is committed, and all are told the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from ranks import Failed, run

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded

X = np.arange(6, dtype=np.float32)
# each: what ranks 0, 1 and 2 save, and options; 2 is like 0
DIFFERENT: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any], str | None]] = {
    "plain values": ({"a": {"step": 1}}, {"a": {"step": 2}}, {}, {}, "a/step"),
    "kinds of plain values": ({"a": 1}, {"a": 1.0}, {}, {}, "a"),
    "truth": ({"a": 1}, {"a": True}, {}, {}, "a"),
    "signs of zero": ({"a": 0.0}, {"a": -0.0}, {}, {}, "a"),
    "shapes": ({"x": X}, {"x": X[:5]}, {}, {}, "x"),
    "dtypes": ({"x": X}, {"x": X.astype(np.float64)}, {}, {}, "x"),
    "kinds of leaves": ({"x": X}, {"x": 1}, {}, {}, "x"),
    "a tensor and a dict": ({"x": X}, {"x": {"y": X}}, {}, {}, "x"),
    "list and tuple": ({"x": [X]}, {"x": (X,)}, {}, {}, "x"),
    "lengths of lists": ([1, 2], [1, 2, 3], {}, {}, ""),
    "items of lists": ({"x": [1, [2]]}, {"x": [1, [3]]}, {}, {}, "x/1/0"),
    "aliases": ({"x": X, "y": X}, {"x": X, "y": X.copy()}, {}, {}, "y"),
    "compression": ({"x": X}, {"x": X}, {}, {"compression": "zstd"}, "x"),
    "levels": ({"x": X}, {"x": X}, {"compression": "zstd"}, {"compression": {"name": "zstd", "level": 9}}, "x"),
    "metadata": ({"x": X}, {"x": X}, {"metadata": 1}, {"metadata": 1.0}, None),
    "schemas": ({"x": X}, {"x": X}, {"schema": ("a", "1")}, {"schema": ("a", "2")}, None),
    "digests": ({"x": X}, {"x": X}, {}, {"digest": "sha256"}, None),
    "overwrite": ({"x": X}, {"x": X}, {}, {"overwrite": True}, None),
    "durable": ({"x": X}, {"x": X}, {}, {"durable": False}, None),
    "layout": ({"x": X}, {"x": X}, {}, {"layout": "file"}, None),
    "pages": ({"x": X}, {"x": X}, {}, {"paged": True}, None),
    "no pages": ({"x": X}, {"x": X}, {"paged": None}, {"paged": False}, None),
}


def save_all_different(folder: Path, coordinator: Any) -> Any:
    """Each case in turn, through one coordinator."""
    found = {}
    for number, (case, (good, other, options, changed, _)) in enumerate(DIFFERENT.items()):
        odd = coordinator.rank == 1
        try:
            ckptfmt.save(
                folder / str(number),
                other if odd else good,
                coordinator=coordinator,
                **(options | changed if odd else options),
            )
        except ckptfmt.CkptError as error:
            found[case] = Failed(error.code, str(error), error.tensor)
    return found


def test_ranks_that_differ(tmp_path: Path) -> None:
    """All are told, with the same words, which two ranks differ, and where; nothing is committed."""
    outcomes = run(save_all_different, tmp_path, 3)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert {case: failed.code for case, failed in outcomes[0].items()} == dict.fromkeys(DIFFERENT, "ranks-differ")
    for case, (*_, tensor) in DIFFERENT.items():
        failed = outcomes[0][case]
        assert failed.tensor == tensor
        assert "ranks 0 and 1" in failed.message
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


def save_shards(folder: Path, coordinator: Any) -> Any:
    """Shards that leave a hole, overlap, or cannot be stored; each in turn."""
    rank, found = coordinator.rank, []
    holds = {
        "shards-missing": [slice(0, 4), slice(4, 8), slice(9, 12)],
        "shards-overlap": [slice(0, 4), slice(3, 8), slice(8, 12)],
        "unsupported-dtype": [slice(0, 3), slice(3, 8), slice(8, 12)],
    }
    for number, (code, mine) in enumerate(holds.items()):
        dtype = np.dtype(ml_dtypes.int4) if code == "unsupported-dtype" else np.dtype(np.int8)
        array = np.zeros(12, dtype)
        tensor = Sharded((12,), dtype, (Shard((mine[rank].start,), array[mine[rank]]),))
        with pytest.raises(ckptfmt.InputError) as caught:
            ckptfmt.save(folder / str(number), {"a": {"x": tensor}}, coordinator=coordinator)
        found.append((caught.value.code == code, caught.value.tensor))
    return found


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    assert run(save_shards, tmp_path, 3) == [[(True, "a/x")] * 3] * 3
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]
