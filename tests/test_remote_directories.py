"""Directories on object stores: claimed first, committed last, never mixed and never replaced (SPEC.md section 11,
PUB-009 and PUB-012 to PUB-017); and saves by many processes to them."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pytest
import s3
from damage import rewrite_manifest
from ranks import run, tree_of, whole_tree
from stores import (
    LARGE,
    LARGE_TREE,
    TREE,
    Failing,
    Store,
    endpoint,
    load,
    objects,
    proxy,
    s3_store,
    save,
    store,
    watched,
)

import ckptfmt
from ckptfmt.layouts import packed
from ckptfmt.storage import remote_directory, upload
from ckptfmt.storage.engine import engine_for
from ckptfmt.testing import assert_same_tree

__all__ = ["endpoint", "proxy", "s3_store", "store"]  # fixtures

LAYOUTS = ("packed", "loose")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_saved_is_loaded(store: Store, layout: str) -> None:
    report = save(store, LARGE_TREE, layout=layout, metadata={"loss": 1.5})
    assert_same_tree(load(store), LARGE_TREE)
    with ckptfmt.open(store.url, storage_options=store.options) as checkpoint:
        assert (checkpoint.layout, checkpoint.metadata) == (layout, {"loss": 1.5})
        assert checkpoint.manifest_sha256 == report.manifest_sha256
        assert np.array_equal(checkpoint["model/w"][100:102], LARGE[100:102])
        assert np.array_equal(checkpoint.zarr["model/w"][7], LARGE[7])  # type: ignore[index]
        assert not checkpoint.was_replaced()
    assert ckptfmt.verify(store.url, storage_options=store.options).ok
    assert not [key for key in objects(store) if "CLAIM" in key or "tmp" in key]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_objects_as_on_a_disk(s3_store: Store, tmp_path: Path, layout: str) -> None:  # [MAN-009]
    save(s3_store, layout=layout)
    ckptfmt.save(tmp_path / "model.ckpt", TREE, layout=layout)
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folder, client = s3_store.url.split("/")[3], s3.client(s3_store.endpoint)
    assert objects(s3_store) == sorted(files)
    for name, data in files.items():
        assert client.get_object(Bucket=s3.BUCKET, Key=f"{folder}/{name}")["Body"].read() == data


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_a_save(s3_store: Store, proxy: s3.Proxy, layout: str) -> None:  # [PUB-009] [PUB-012]
    with watched(s3_store, proxy) as (place, seen):
        save(place, layout=layout)
        changes = [
            request.path.partition("?")[0].partition("model.ckpt/")[2]
            for request in seen.requests
            if request.method in ("PUT", "POST") and "probe" not in request.path and "?delete" not in request.path
        ]
    assert changes[0] == "CLAIM"
    assert changes[-2:] == ["manifest.msgpack", "COMMIT"]
    assert {name.partition("/")[0] for name in changes[1:-2]} == (
        {"tensors"} if layout == "loose" else {"packs", "parts"}
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_exists_is_not_touched(store: Store, layout: str) -> None:  # [PUB-003] [PUB-014]
    """Neither a checkpoint of any layout, nor what is none, and no overwriting either."""
    codes = {False: "exists", True: "not-replaceable"}
    for other in ("file", "packed", "loose"):
        place = store.at(f"of {other}")
        save(place, layout=other)
        before = objects(place)
        for overwrite, code in codes.items():
            with pytest.raises(ckptfmt.ExistsError) as caught:
                save(place, {"other": 1}, layout=layout, overwrite=overwrite)
            assert caught.value.code == code
        assert objects(place) == before
        assert_same_tree(load(place), TREE)
    save(store.at("directory"), layout=layout)
    for overwrite, code in codes.items():  # nor is a directory hidden by a file
        with pytest.raises(ckptfmt.ExistsError) as caught:
            save(store.at("directory"), {"other": 1}, overwrite=overwrite)
        assert caught.value.code == code
    engine, key = engine_for(store.at("foreign").url, store.options)
    engine.put(f"{key}/notes.txt", b"mine", exclusive=False)
    for overwrite in codes:
        with pytest.raises(ckptfmt.ExistsError) as caught:
            save(store.at("foreign"), layout=layout, overwrite=overwrite)
        assert caught.value.code == "exists"
    assert [entry.key for entry in engine.entries(key)] == [f"{key}/notes.txt"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overwrite_where_nothing_is(store: Store, layout: str) -> None:
    save(store, layout=layout, overwrite=True)
    assert_same_tree(load(store), TREE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_save_that_fails_leaves_nothing(store: Store, layout: str) -> None:  # [PUB-007]
    many = {str(number): np.full(10, number) for number in range(40)}
    with pytest.raises(RuntimeError, match="gone"):
        save(store, {"a": TREE, "m": many, "w": Failing()}, layout=layout)
    assert objects(store) == []
    if store.endpoint:
        assert not s3.unfinished(store.endpoint, store.url.split("/")[3])
    save(store, layout=layout)
    assert_same_tree(load(store), TREE)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_claim_keeps_others_out(store: Store, layout: str) -> None:  # [PUB-012]
    """While a save runs, and after it has died; then the message says since when."""
    engine, key = engine_for(store.url, store.options)
    running = remote_directory.RemoteDirectory.begin(engine, key, store.url, overwrite=False)
    for overwrite in (False, True):
        with pytest.raises(ckptfmt.ExistsError, match="another save is writing here, or has died") as caught:
            save(store, layout=layout, overwrite=overwrite)
        assert caught.value.code == "exists"
    with pytest.raises(ckptfmt.NotACheckpointError):  # [COM-005]
        load(store)
    with pytest.raises(ckptfmt.ExistsError):
        save(store)
    running.abort()
    save(store, layout=layout)
    assert_same_tree(load(store), TREE)


def test_a_save_whose_claim_was_removed_does_not_commit(store: Store) -> None:  # [PUB-013]
    """Someone took it for dead; another save has the place now, and loses nothing."""
    engine, key = engine_for(store.url, store.options)
    slow = remote_directory.RemoteDirectory.begin(engine, key, store.url, overwrite=False)
    for name in ("packs/00000.zip", "manifest.msgpack", "COMMIT"):
        out = slow.create(name)
        out.write(0, b"slow")
        out.finish(4)
    for found in [entry.key for entry in engine.entries(key)]:
        engine.delete(found)
    save(store, layout="packed")
    with pytest.raises(ckptfmt.ExistsError, match="claim of this save was removed"):
        slow.publish()
    slow.abort()
    assert_same_tree(load(store), TREE)
    assert ckptfmt.verify(store.url, storage_options=store.options).ok


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_save_between_look_and_claim(store: Store, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Another save ends, claim and all, after this one has looked: this one finds its checkpoint and leaves it."""
    listed = remote_directory.RemoteDirectory._refuse
    looks: list[int] = []

    def look(self: Any, there: set[str], overwrite: bool) -> None:
        listed(self, there, overwrite)
        if not looks:
            looks.append(1)
            save(store, layout=layout)

    monkeypatch.setattr(remote_directory.RemoteDirectory, "_refuse", look)
    with pytest.raises(ckptfmt.ExistsError):
        save(store, {"late": 1}, layout=layout)
    monkeypatch.undo()
    assert_same_tree(load(store), TREE)
    assert not [key for key in objects(store) if "CLAIM" in key]


def test_nothing_is_removed_once_commit_was_sent(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # [PUB-015]
    """The answer to COMMIT was lost, and the store cannot be asked: the checkpoint may be there, and is."""
    complete = upload.RemoteObject.complete

    def deaf(self: upload.RemoteObject) -> None:
        complete(self)
        if self.key.endswith("COMMIT"):
            raise ConnectionResetError("gone")

    monkeypatch.setattr(upload.RemoteObject, "complete", deaf)
    with pytest.raises(ConnectionResetError):
        save(store, layout="packed")
    monkeypatch.undo()
    assert_same_tree(load(store), TREE)


def test_memory_is_bounded_by_objects_under_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more small objects wait than are sent at a time."""
    under_way, most = 0, 0
    complete, lock, go_on = upload.RemoteObject.complete, threading.Lock(), threading.Event()

    def slow(self: upload.RemoteObject) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            if under_way == remote_directory.SENDERS:
                go_on.set()
        go_on.wait(5)
        complete(self)
        with lock:
            under_way -= 1

    monkeypatch.setattr(upload.RemoteObject, "complete", slow)
    tree = {str(number): np.full(10, number) for number in range(60)}
    save(store, tree, layout="loose")
    assert most == remote_directory.SENDERS
    assert_same_tree(load(store), tree)


def test_chunks_without_number_take_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [LIM-003]
    """A manifest of some kB claims 2^61 chunks in two parts: their tables are loaded ahead, but not for each chunk."""
    monkeypatch.setattr(packed, "PACK_BYTES", 1 << 10)
    ckptfmt.save(tmp_path / "x", {"w": np.zeros(2000, np.uint8), "x": np.zeros(2000, np.uint8)}, layout="packed")

    def vast(document: dict[str, Any]) -> None:
        assert len(document["parts"]) == 2
        document["tensors"].update(shape=[[1 << 61], [2000]], grid=[[1], [2000]])
        document["placement"].update(count=struct.pack("<2Q", 1 << 61, 1))

    rewrite_manifest(tmp_path / "x", vast)
    fsspec.filesystem("memory").put(str(tmp_path / "x"), "/vast", recursive=True)
    for select in (None, "w"):
        with pytest.raises(ckptfmt.CkptError):
            ckptfmt.load("memory://vast", select=select)
    assert not ckptfmt.verify("memory://vast").ok


# ---- many processes


class SaveToStore(NamedTuple):
    """Saves what `test_parallel_save` saves, to a store; rank `failing` fails in the middle."""

    store: Store
    failing: int | None = None
    paged: bool | None = None

    def __call__(self, folder: Path, coordinator: Any) -> Any:
        tree = tree_of(coordinator.rank, coordinator.size)
        if coordinator.rank == self.failing:
            tree["own"] = {f"rank {coordinator.rank}": Failing()}
        return save(self.store, tree, coordinator=coordinator, compression={"zipped": "zstd"}, paged=self.paged)


@pytest.mark.parametrize("paged", [None, True])
def test_many_processes_save_to_a_store(s3_store: Store, tmp_path: Path, paged: bool | None) -> None:
    reports = run(SaveToStore(s3_store, paged=paged), tmp_path, 3)
    assert_same_tree(load(s3_store), whole_tree(3))
    assert ckptfmt.verify(s3_store.url, storage_options=s3_store.options).ok
    assert len({report.manifest_sha256 for report in reports}) == 1
    names = objects(s3_store)
    tables = ["pages.bin"] if paged else ["parts"] * 3
    assert [name.partition("/")[2].partition("/")[0] for name in names] == [
        "COMMIT",
        "manifest.msgpack",
        *["packs"] * 3,
        *tables,
    ]
    codes = [outcome.code for outcome in run(SaveToStore(s3_store), tmp_path, 3)]
    assert codes == ["exists"] * 3


@pytest.mark.parametrize("paged", [None, True])
def test_a_process_that_fails_leaves_nothing(s3_store: Store, tmp_path: Path, paged: bool | None) -> None:  # [PUB-007]
    outcomes = run(SaveToStore(s3_store, failing=1, paged=paged), tmp_path, 2)
    assert outcomes[0].code == "rank-failed"
    assert objects(s3_store) == []
    run(SaveToStore(s3_store, paged=paged), tmp_path, 2)
    assert_same_tree(load(s3_store), whole_tree(2))
