"""Saves on object stores that share what has not changed: the store copies it, nothing of it is sent. [LAY-008]
[PUB-009]"""

from __future__ import annotations

from typing import Any

import fsspec
import numpy as np
import pytest
import s3
from stores import Store, endpoint, objects, proxy, s3_store, store, watched  # noqa: F401  fixtures

import ckptfmt
from ckptfmt.manager import CheckpointManager
from ckptfmt.testing import assert_same_tree

FROZEN = np.random.default_rng(0).standard_normal((300, 1000)).astype(np.float32)
LAYOUTS = ("packed", "loose")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def tree(step: int) -> dict[str, Any]:
    return {"frozen": {"a": FROZEN, "b": FROZEN[:100]}, "adapter": np.full(100, step), "step": step}


def save(place: Store, step: int, base: Store | None = None, **more: Any) -> Any:
    more |= {} if base is None else {"share_with": base.url}
    return ckptfmt.save(place.url, tree(step), storage_options=place.options, **more)


def check(place: Store, step: int) -> None:
    assert ckptfmt.verify(place.url, storage_options=place.options).ok
    assert_same_tree(ckptfmt.load(place.url, storage_options=place.options), tree(step))


def remove(place: Store) -> None:
    fs, path = fsspec.core.url_to_fs(place.url, **(s3.options("fsspec", place.endpoint) if place.endpoint else {}))
    fs.rm(path, recursive=True)


@each_layout
def test_the_store_copies_what_has_not_changed(store: Store, layout: str) -> None:  # noqa: F811
    first, second, third = (store.at(f"{step}.ckpt") for step in range(3))
    save(first, 0, layout=layout)
    for step, (place, base) in enumerate(((second, first), (third, second)), 1):
        report = save(place, step, base)
        assert report.not_shared is None
        assert report.shared > 0.95 * FROZEN.nbytes
    remove(first)
    remove(second)
    check(third, 2)
    assert not [name for name in objects(store) if name.endswith("CLAIM")]


@each_layout
def test_nothing_of_it_is_sent(s3_store: Store, proxy: s3.Proxy, layout: str) -> None:  # noqa: F811
    save(s3_store.at("0.ckpt"), 0, layout=layout)
    with watched(s3_store, proxy) as (place, case):
        save(place.at("1.ckpt"), 1, place.at("0.ckpt"))
        assert sum(request.sent for request in case.requests) < 100_000 < FROZEN.nbytes
        assert case.bytes_got < 200_000, "nor read"
    check(s3_store.at("1.ckpt"), 1)


@pytest.mark.parametrize("fault", ["500 after", "drop"])
def test_requests_that_fail_once(s3_store: Store, proxy: s3.Proxy, fault: str) -> None:  # noqa: F811
    """Each of them, one at a time: all is saved in the end, shared or not."""
    save(s3_store.at("0.ckpt"), 0, layout="packed")
    with watched(s3_store, proxy) as (place, case):
        save(place.at("all.ckpt"), 1, place.at("0.ckpt"))
        count = len(case.requests)
    for number in range(0, count, 4):
        with watched(s3_store, proxy, fault=lambda n, _, wanted=number: fault if n == wanted else None) as (place, _):
            save(place.at(f"n{number}.ckpt"), 1, place.at("0.ckpt"))
        check(s3_store.at(f"n{number}.ckpt"), 1)


def test_a_store_that_refuses_to_copy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """All is sent, and the report says why."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no rights to copy")

    save(store.at("0.ckpt"), 0, layout="packed")
    for engine in ("fsspec_engine.FsspecEngine", "obstore_engine.ObstoreEngine"):
        monkeypatch.setattr(f"ckptfmt.storage.{engine}.copy", refuse)
    report = save(store.at("1.ckpt"), 1, store.at("0.ckpt"))
    assert report.shared == 0
    assert "no rights to copy" in report.not_shared
    monkeypatch.undo()
    check(store.at("1.ckpt"), 1)


def test_a_base_whose_pack_is_gone(store: Store) -> None:  # noqa: F811
    save(store.at("0.ckpt"), 0, layout="packed")
    remove(store.at("0.ckpt/packs"))
    report = save(store.at("1.ckpt"), 1, store.at("0.ckpt"))
    assert report.shared == 0
    assert report.not_shared
    check(store.at("1.ckpt"), 1)


def test_a_run(store: Store) -> None:  # noqa: F811
    run = {"directory": store.at("run").url, "storage_options": store.options}
    reports: list[Any] = []
    with CheckpointManager(**run, share=True, keep=2, on_commit=lambda _, report: reports.append(report)) as manager:
        for step in range(4):
            manager.save(step, tree(step), block=step % 2 == 0)
    assert [report.shared > FROZEN.nbytes for report in reports] == [False, True, True, True]
    with CheckpointManager(**run) as manager:
        assert [step.step for step in manager.steps()] == [2, 3]
        for step in (2, 3):
            check(Store(manager.steps()[step - 2].path, store.options), step)
