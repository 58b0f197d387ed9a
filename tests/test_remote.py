"""Checkpoints on object stores: a real S3 server on this machine through both engines, and fsspec's memory (SPEC.md
section 11). Directories, faults and races stand in test_remote_*.py."""

from __future__ import annotations

import contextlib
import functools
import http.server
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import s3
from damage import small_chunks
from stores import (
    LARGE,
    LARGE_TREE,
    TREE,
    Failing,
    Store,
    endpoint,
    load,
    objects,
    open_,
    proxy,
    s3_store,
    save,
    store,
    watched,
)

import ckptfmt
from ckptfmt.layouts import packed
from ckptfmt.reading import neighbours, pace
from ckptfmt.reading.neighbours import RUN, SMALL
from ckptfmt.storage import TAIL, exclusive, fsspec_engine, remote, retry
from ckptfmt.storage.engine import PART, engine_for
from ckptfmt.testing import assert_same_tree

__all__ = ["endpoint", "proxy", "s3_store", "store"]  # fixtures


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_saved_is_loaded(store: Store, compression: str | None) -> None:
    report = save(store, LARGE_TREE, compression=compression, metadata={"loss": 1.5})
    assert_same_tree(load(store), LARGE_TREE)
    with open_(store) as checkpoint:
        assert checkpoint.metadata == {"loss": 1.5}
        assert checkpoint.manifest_sha256 == report.manifest_sha256
        assert np.array_equal(checkpoint["model/w"][100:102], LARGE[100:102])
        assert np.array_equal(checkpoint.zarr["model/w"][7], LARGE[7])  # type: ignore[index]
        assert not checkpoint.was_replaced()
    assert ckptfmt.verify(store.url, storage_options=store.options).ok
    assert objects(store) == ["model.ckpt"]  # nothing is left beside it


def test_the_same_bytes_as_on_a_disk(store: Store, tmp_path: Path) -> None:  # [MAN-009]
    save(store, LARGE_TREE)
    ckptfmt.save(tmp_path / "model.ckpt", LARGE_TREE)
    options = store.options if store.options.get("engine") != "obstore" else s3.options("fsspec", store.endpoint)
    with fsspec.open(store.url, "rb", **options) as file:
        assert file.read() == (tmp_path / "model.ckpt").read_bytes()


def test_a_slice_reads_its_blocks_alone(s3_store: Store, proxy: s3.Proxy) -> None:  # [READ-004]
    """Counted where they pass: 1 % of a tensor costs that, the blocks at its ends and the end of the file."""
    save(s3_store, LARGE_TREE)
    with watched(s3_store, proxy) as (store, seen):
        with open_(store) as checkpoint:
            assert np.array_equal(checkpoint["model/w"][2000:2050], LARGE[2000:2050])
            assert checkpoint.bytes_read == 4 << 20
        assert seen.bytes_got <= LARGE.nbytes // 100 + 2 * (4 << 20) + TAIL
    with watched(s3_store, proxy) as (store, seen):
        with open_(store, verify=False) as checkpoint:
            assert np.array_equal(checkpoint["model/w"][3], LARGE[3])
            assert checkpoint.bytes_read == 4000
        assert seen.bytes_got == 4000 + TAIL


@pytest.mark.parametrize("tensors", [1, 2000], ids=["small", "large manifest"])
def test_opening_a_file_takes_two_requests_at_most(s3_store: Store, proxy: s3.Proxy, tensors: int) -> None:
    save(s3_store, {str(number): np.zeros(1) for number in range(tensors)})
    with watched(s3_store, proxy) as (store, seen):
        with open_(store) as checkpoint:
            assert len(checkpoint) == tensors
        assert [request.method for request in seen.requests] == ["GET"] * (1 if tensors == 1 else 2)


MANY = {f"layer{number}.w": np.full(8, number, np.float32) for number in range(20_000)}


def test_a_slice_of_very_many_tensors_takes_few_requests(s3_store: Store, proxy: s3.Proxy) -> None:  # [PAGE-003]
    """The end of the file with the record, the manifest's own document if it is not there, a page, a block; then what
    is not on that page. A whole load reads all pages together."""
    save(s3_store, MANY)
    with watched(s3_store, proxy) as (store, seen):
        with open_(store) as checkpoint:
            assert len(seen.requests) <= 2
            assert seen.bytes_got <= 2 * TAIL
            assert np.array_equal(checkpoint["layer7777.w"][2:5], np.full(3, 7777, np.float32))
            assert len(seen.requests) <= 4
            before = len(seen.requests)
            assert np.array_equal(checkpoint["layer7778.w"][...], np.full(8, 7778, np.float32))
            assert len(seen.requests) <= before + 1
        assert seen.bytes_got < 2 << 20
    with watched(s3_store, proxy) as (store, seen):
        assert_same_tree(load(store), MANY)
        assert len(seen.requests) <= 4


def test_few_requests_to_save(s3_store: Store, proxy: s3.Proxy) -> None:
    """A small tree is one upload, besides the look whether the place is free; the store is probed once."""
    save(s3_store.at("first"), 1)
    with watched(s3_store, proxy) as (store, seen):
        save(store.at("second"), 2)  # through the proxy it is another store, which is probed, too
        before = len(seen.requests)
        save(store, 3)
        made = [request.method for request in seen.requests[before:]]
        assert made == ["HEAD", "GET", "PUT"]


def test_requests_are_of_one_span_and_many_at_a_time(s3_store: Store, proxy: s3.Proxy) -> None:
    """Consecutive blocks are read together, several requests are under way at a time, and nothing is read twice."""
    tree = {"w": np.arange(6 << 20, dtype=np.float64)}
    save(s3_store, tree)
    under_way: list[int] = []
    running = 0
    lock = threading.Lock()

    def count(*_: Any) -> str:
        nonlocal running
        with lock:
            running += 1
            under_way.append(running)
        return "delay"

    with watched(s3_store, proxy, fault=count) as (store, seen):
        assert_same_tree(load(store), tree)
        ranges = [request.got for request in seen.requests[1:]]
        assert sorted(ranges) == [16 << 20] * 3
        assert sum(ranges) == tree["w"].nbytes
    assert under_way == [1, 2, 3, 4]


class UnderWay:
    """Adds up what is under way at a time; `most` is what it was at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        with self._lock:
            self.now += amount
            self.most = max(self.most, self.now)
        yield
        with self._lock:
            self.now -= amount


@pytest.fixture
def reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    """The bytes that all reads which the engine is asked for at a time hold beside their destinations, and those that
    are a destination themselves only on the way: groups of small tensors, parts of blocks, chunks to decode."""
    engine = type(engine_for(store.url, store.options)[0])
    before, run, reads = engine.read_into, neighbours.read_run, UnderWay()

    def counted(self: Any, key: str, offset: int, out: memoryview, seen: Any) -> int:
        with reads.hold(len(out) if engine.held is None else min(len(out), engine.held)):
            time.sleep(0.01)
            return before(self, key, offset, out, seen)

    def counted_run(blocks: Any, group: Any, *more: Any) -> None:
        with reads.hold(sum(group.lengths.tolist())):
            run(blocks, group, *more)

    monkeypatch.setattr(engine, "read_into", counted)
    monkeypatch.setattr(neighbours, "read_run", counted_run)
    return reads


@contextlib.contextmanager
def requests_under_way(proxy: s3.Proxy, name: str) -> Iterator[UnderWay]:
    """Requests for objects with a name in their path, each of which takes a while."""
    under_way, passed = UnderWay(), proxy._pass_on

    def counted(handler: http.server.BaseHTTPRequestHandler) -> None:
        with under_way.hold(name in handler.path):
            time.sleep(0.05)
            passed(handler)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "_pass_on", counted)
        yield under_way


@pytest.mark.parametrize("verify", [True, False])
def test_bytes_in_flight_bound_what_is_read(store: Store, reads: UnderWay, verify: bool) -> None:
    tree = {"w": np.arange(3 << 20, dtype=np.float64), "small": [np.full(1000, n) for n in range(800)]}
    save(store, tree)
    for budget in (1, 9 << 20, 12 << 20, 256 << 20):
        reads.most = 0
        assert_same_tree(load(store, verify=verify, max_bytes_in_flight=budget), tree)
        assert reads.most <= max(budget, 2 * (RUN + SMALL))  # one group, and its request, there is in any case
        assert budget == 1 or reads.most > RUN


@pytest.mark.parametrize("waits", [False, True])
def test_requests_become_more_where_they_take_no_longer(
    store: Store, reads: UnderWay, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """Of a store whose requests take as long as ever, or longer by as many as there are, by a clock that says so; and
    never more than memory has room for."""
    monkeypatch.setattr(remote.RemoteStorage, "span", span := 1 << 14)
    requests, clock, ticks = UnderWay(), threading.local(), itertools.count(1)
    held = engine_for(store.url, store.options)[0].held
    tree = {"w": np.arange(1 << 20, dtype=np.int32)}
    save(store, tree)
    fill = remote.RemoteStorage.read_into

    def counted(*arguments: Any) -> None:
        with requests.hold(1):
            time.sleep(0.001)  # so that all that are let be under way at once are
            fill(*arguments)

    ended = pace.Pace.ended

    def told(self: pace.Pace, begun: float, room: int) -> bool:
        clock.now = 1000 * next(ticks)
        return ended(self, clock.now - (self.threads if waits else 1), room)

    monkeypatch.setattr(remote.RemoteStorage, "read_into", counted)
    monkeypatch.setattr(pace.Pace, "ended", told)
    monkeypatch.setattr(pace, "monotonic", lambda: getattr(clock, "now", 0))
    assert_same_tree(load(store, verify=False), tree)
    assert 16 < requests.most <= (24 if waits else 64)
    assert waits or requests.most > 36
    requests.most = 0
    assert_same_tree(load(store, verify=False, max_bytes_in_flight=4 * (held or span)), tree)
    assert requests.most <= 4


def test_bytes_in_flight_bound_what_is_decoded(store: Store, reads: UnderWay) -> None:
    tree = {"w": np.random.default_rng(0).integers(0, 99, 12 << 16, np.uint8)}
    with small_chunks(chunk=1 << 16):
        save(store, tree, compression="zstd")
    chunks = 2 << 16  # as it is stored, and decoded
    for budget in (1, 3 * chunks):
        reads.most = 0
        assert_same_tree(load(store, max_bytes_in_flight=budget), tree)
        assert 0 < reads.most <= max(1, budget // chunks) << 16


# what is asked for beside the values: options of a load, for a tree
ASKED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "new": lambda tree: {},
    "into": lambda tree: {"into": {name: np.zeros_like(array) for name, array in tree.items()}},
    "into columns": lambda tree: {"into": {n: np.zeros((*a.shape, 2), a.dtype)[..., 0] for n, a in tree.items()}},
    "like": lambda tree: {"like": tree},
    "cast": lambda tree: {"like": {name: array.astype(np.float64) for name, array in tree.items()}, "cast": True},
}


@pytest.mark.parametrize("way", ["load", "like", "columns", "verify"])
def test_part_manifests_are_read_many_at_a_time(
    s3_store: Store, proxy: s3.Proxy, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(packed, "PACK_BYTES", 1 << 10)
    tree = {str(number): np.full((8, 16), number) for number in range(24)}
    save(s3_store, tree, layout="packed")
    with watched(s3_store, proxy) as (store, seen), requests_under_way(proxy, "/parts/") as under_way:
        if way == "verify":
            assert ckptfmt.verify(store.url, storage_options=store.options).ok
        elif way == "columns":
            into = {name: np.zeros((16, 8), int).T for name in tree}
            assert_same_tree(load(store, into=into), tree)
        else:
            assert_same_tree(load(store, like=tree if way == "like" else None), tree)
        assert sum("/parts/" in request.path for request in seen.requests) >= 24
        assert under_way.most >= 4


def test_a_verification_reads_many_at_a_time(s3_store: Store, proxy: s3.Proxy) -> None:
    """Small chunks together, and what lies between them, too."""
    tree = {str(number): np.full(1 << 10, number) for number in range(400)}
    for layout, most in (("file", 2 + 2 * 4), ("packed", 8 + 2 * 4)):
        save(s3_store.at(layout), tree, layout=layout)
        with watched(s3_store.at(layout), proxy) as (store, seen):
            assert ckptfmt.verify(store.url, storage_options=store.options).ok
            assert len(seen.requests) <= most


@pytest.fixture(scope="module")
def saved_once(endpoint: str) -> Callable[[int, int], tuple[str, dict[str, Any]]]:
    """Gives the URL of so many tensors of a length, and the tree, which is saved when it is first asked for."""

    @functools.cache
    def made(count: int, length: int) -> tuple[str, dict[str, Any]]:
        tree = {str(number): np.full(length, number) for number in range(count)}
        url = f"s3://bucket/saved-once-{count}-{length}/model.ckpt"
        ckptfmt.save(url, tree, storage_options=s3.options("obstore", endpoint))
        return url, tree

    return made


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("count", "length"), [(4000, 1 << 10), (16, 128 << 10)], ids=["small", "of a megabyte"])
def test_tensors_are_read_many_at_a_time(
    s3_store: Store, saved_once: Any, proxy: s3.Proxy, count: int, length: int, asked: str
) -> None:
    """Small neighbours in one request, and the requests beside each other."""
    url, tree = saved_once(count, length)
    options = ASKED[asked](tree)
    with watched(s3_store._replace(url=url), proxy) as (store, seen), requests_under_way(proxy, "") as under_way:
        assert_same_tree({name: array.astype(int) for name, array in load(store, **options).items()}, tree)
        assert len(seen.requests) <= 2 + max(16, 4000 * (8 << 10) // (3 << 20))
        assert under_way.most >= 4


def save_by_two(store: Store, tree: Any, folder: Path, **options: Any) -> None:
    """Save together with another thread, which holds as much."""

    def take_part(rank: int) -> None:
        with ckptfmt.FileCoordinator(folder, rank, 2, timeout=30) as coordinator:
            save(store, {str(rank): tree}, coordinator=coordinator, **options)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(take_part, range(2)))


@pytest.mark.parametrize("layout", ["file", "packed", "loose", "by two"])
def test_bytes_in_flight_bound_uploads(s3_store: Store, proxy: s3.Proxy, tmp_path: Path, layout: str) -> None:
    """Counted where they pass, which is after they were copied."""
    tree = {"a": np.zeros(3 << 20), "b": np.ones(3 << 20)}  # of 24 MiB each
    under_way = UnderWay()
    passed = proxy._pass_on
    sizes = set()

    def counted(handler: http.server.BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("Content-Length", 0)) if "partNumber" in handler.path else 0
        sizes.add(size)
        with under_way.hold(size):
            time.sleep(0.02)
            passed(handler)

    with watched(s3_store, proxy) as (store, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "_pass_on", counted)
        if layout == "by two":
            save_by_two(store, tree, tmp_path, max_bytes_in_flight=64 << 20)
        else:
            save(store, tree, layout=layout, max_bytes_in_flight=64 << 20)
    savers = 2 if layout == "by two" else 1
    assert max(sizes) == (8 << 20 if layout == "file" else 5 << 20)
    assert 0 < under_way.most <= savers * (32 << 20)
    twin = {name: array.copy() for name, array in tree.items()}
    assert_same_tree(load(s3_store), {"0": tree, "1": twin} if savers == 2 else tree)


def test_what_exists_is_not_touched(store: Store) -> None:  # [PUB-003]
    save(store)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        save(store, {"other": 1})
    assert caught.value.code == "exists"
    assert_same_tree(load(store), TREE)
    save(store, {"other": 1}, overwrite=True)
    assert load(store) == {"other": 1}
    save(store, overwrite=True)
    assert_same_tree(load(store), TREE)


def test_a_save_that_fails_leaves_what_was_there(store: Store) -> None:  # [PUB-007]
    for overwrite in (False, True):
        before = objects(store)
        with pytest.raises(RuntimeError, match="gone"):
            save(store, {"w": Failing()}, overwrite=overwrite)
        assert objects(store) == before
        if store.endpoint:
            assert not s3.unfinished(store.endpoint, store.url.split("/")[3])
        if not overwrite:
            save(store)
    assert_same_tree(load(store), TREE)


def test_a_reader_that_is_overtaken_never_mixes(store: Store) -> None:
    """What is read after another save is either refused, and `load` opens anew, or fails."""
    save(store)
    with open_(store, verify=False) as checkpoint:
        save(store, {"model": {"w": -TREE["model"]["w"], "b": np.arange(10)}, "step": 7}, overwrite=True)
        assert checkpoint.was_replaced()
        if store.endpoint:
            with pytest.raises(ckptfmt.CorruptError, match="replaced by another save"):
                checkpoint["model/w"].read()
    assert np.array_equal(load(store)["model"]["w"], -TREE["model"]["w"])


LAZY = """
import json, resource, sys
import numpy as np
import ckptfmt
from ckptfmt.frameworks.sources import Lazy

class Ones(Lazy):
    shape, dtype = (96 << 17,), np.dtype(np.float64)  # 96 MiB

    def __getitem__(self, region):
        return np.ones(region[0].stop - region[0].start)

url, options = sys.argv[1], json.loads(sys.argv[2])
ckptfmt.save(url + "-warm", {"w": np.ones(4 << 20)}, storage_options=options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ckptfmt.save(url, {"w": Ones()}, storage_options=options, max_bytes_in_flight=int(sys.argv[3]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


@pytest.mark.parametrize("budget", [256 << 20, 40 << 20])
def test_uploads_are_never_held_whole(s3_store: Store, budget: int) -> None:
    """A tree far larger than the parts under way costs the memory of some parts, in a process of its own."""
    arguments = [sys.executable, "-c", LAZY, s3_store.url, json.dumps(s3_store.options), str(budget)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    place = {"Bucket": s3.BUCKET, "Key": s3_store.url.removeprefix("s3://bucket/")}
    assert s3.client(s3_store.endpoint).head_object(**place)["ContentLength"] > 96 << 20
    assert int(done.stdout) < min(budget, 6 * PART)
    s3.client(s3_store.endpoint).delete_object(**place)  # the server has it in memory


def test_a_store_that_ignores_conditions_is_refused(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # [PUB-011]
    """A server of S3's that knows no condition: the proxy takes it out of every request."""
    proxy = s3.Proxy(endpoint)
    passed = proxy._pass_on

    def without_conditions(handler: http.server.BaseHTTPRequestHandler) -> None:
        del handler.headers["If-None-Match"]
        passed(handler)

    monkeypatch.setattr(proxy, "_pass_on", without_conditions)
    for engine in s3.ENGINES:
        store = Store(f"s3://bucket/ignores-{engine}/model.ckpt", s3.options(engine, proxy.endpoint), endpoint)
        for layout in ("file", "packed", "loose"):
            with pytest.raises(ckptfmt.StorageError) as caught:
                save(store, layout=layout)
            assert caught.value.code == "exclusive-unsupported"
        assert objects(store) == []
        save(store, {"a": 1}, overwrite=True)  # which needs no condition
        assert load(store) == {"a": 1}
    proxy.close()


class Flaky:
    """A call that fails a few times first."""

    def __init__(self, call: Any, failures: list[Exception]) -> None:
        self.call, self.failures, self.tries = call, failures, 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.call(*arguments, **more)


@pytest.mark.parametrize(
    ("failures", "code", "tries"),
    [
        ([ConnectionResetError("gone"), TimeoutError("slow"), OSError(5, "I/O")], None, 4),
        ([ConnectionResetError("gone")] * 9, "io", retry.TRIES),
        ([PermissionError(13, "no")], "permission", 1),
        ([OSError(22, "no such thing")], "io", 1),
        ([ValueError("a mistake")], "io", 1),
    ],
    ids=["passing", "lasting", "permission", "invalid", "mistake"],
)
def test_what_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, failures: list[Exception], code: str | None, tries: int
) -> None:
    """Of a file system that makes no request again by itself, and only where that may help."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    store = Store("memory://folder/model.ckpt", {})
    save(store, LARGE_TREE, overwrite=True)
    with open_(store) as checkpoint:
        fs = fsspec.filesystem("memory")
        flaky = Flaky(fs.cat_file, list(failures))
        monkeypatch.setattr(fs, "cat_file", flaky)
        if code is None:
            assert checkpoint["model/w"].read().shape == LARGE.shape
            tries += 1  # another request, as the tensor is longer than one
        else:
            with pytest.raises(ckptfmt.StorageError) as caught:
                checkpoint["model/w"][0]
            assert caught.value.code == code
        assert flaky.tries == tries


def test_a_body_that_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:  # [READ-005]
    store = Store("memory://folder/model.ckpt", {})
    save(store, LARGE_TREE, overwrite=True)
    with open_(store) as checkpoint:
        fs = fsspec.filesystem("memory")
        call = fs.cat_file
        monkeypatch.setattr(fs, "cat_file", lambda *a, **k: call(*a, **k)[:-1])
        with pytest.raises(ckptfmt.CorruptError) as caught:
            checkpoint["model/w"].read()
        assert caught.value.code == "short-object"
        monkeypatch.setattr(fs, "cat_file", lambda path, start, end: call(path))  # a server that ignores ranges
        with pytest.raises(ckptfmt.StorageError, match="ignores ranges"):
            checkpoint["model/w"].read()


@pytest.mark.parametrize("layout", ["file", "packed"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_bucket_that_is_not_there(s3_store: Store, overwrite: bool, layout: str) -> None:
    store = s3_store._replace(url="s3://elsewhere/model.ckpt")
    with pytest.raises(ckptfmt.MissingError) as caught:
        save(store, overwrite=overwrite, layout=layout)
    assert caught.value.path == "s3://elsewhere/model.ckpt"
    with pytest.raises(ckptfmt.MissingError):
        load(store)


def test_bad_urls(store: Store) -> None:
    with pytest.raises(ckptfmt.MissingError) as caught:
        load(store.at("nothing"))
    assert caught.value.code == "not-found"
    save(store)
    with pytest.raises(ckptfmt.InputError) as refused:
        load(store, mmap=True)
    assert refused.value.code == "bad-option"
    fs, path = fsspec.core.url_to_fs(store.url, **s3.options("fsspec", store.endpoint) if store.endpoint else {})
    fs.pipe_file(path, b"no checkpoint at all")
    with pytest.raises(ckptfmt.NotACheckpointError):
        load(store)
    fs.pipe_file(path, b"")
    with pytest.raises(ckptfmt.NotACheckpointError):
        load(store)
    temporary = store.at(".model.ckpt.abc.ckptfmt-tmp")  # [PUB-001]
    with pytest.raises(ckptfmt.NotACheckpointError) as abandoned:
        load(temporary)
    assert abandoned.value.code == "temporary"
    for layout in ("file", "loose"):
        with pytest.raises(ckptfmt.InputError):
            save(temporary, layout=layout)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("nosuch://bucket/model.ckpt", {}),
        ("s3://bucket/model.ckpt", {"engine": "magic"}),
        ("s3://bucket/model.ckpt", {"engine": "obstore", "no_such_option": 1}),
        ("sftp://host/model.ckpt", {"engine": "obstore"}),
    ],
)
def test_engines_and_protocols_that_there_are_not(url: str, options: dict[str, Any]) -> None:
    for call in (functools.partial(ckptfmt.save, url, 1), functools.partial(ckptfmt.load, url)):
        with pytest.raises(ckptfmt.InputError) as caught:
            call(storage_options=options)
        assert caught.value.code == "bad-option"
        assert caught.value.path == url


def test_a_protocol_that_nobody_knows() -> None:
    with pytest.raises(ckptfmt.InputError, match="cannot reach nobody://") as caught:
        ckptfmt.load("nobody://x/model.ckpt")
    assert str(caught.value).count("bad-option") == 1


def test_a_local_url_is_a_path(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/model.ckpt", {})
    ckptfmt.save(store.url, TREE)
    assert_same_tree(ckptfmt.load(tmp_path / "model.ckpt"), TREE)
    assert_same_tree(ckptfmt.load(store.url, mmap=True), TREE)


def test_names_that_mean_something_elsewhere(s3_store: Store) -> None:
    """Keys are taken as they are, by both engines alike."""
    tree = {name: np.arange(3) for name in ("ä b%c#d", "a~b", "x*y", "q?z", "[x]", "a/b", "..", "%41", "k^`{}|<>\"'")}
    for layout in ("file", "loose"):
        place = s3_store.at(f"my model %41 #1 ä {layout}")
        save(place, tree, layout=layout)
        for engine in s3.ENGINES:
            assert_same_tree(load(place._replace(options=s3.options(engine, place.endpoint))), tree)


def test_memory_has_one_winner() -> None:
    """fsspec's own exclusive creation there looks first and writes then."""
    fsspec.filesystem("memory").store.clear()
    engine, _ = fsspec_engine.connect("memory://folder/x", {})
    won: list[int] = []

    def race(number: int) -> None:
        with contextlib.suppress(FileExistsError):
            engine.put("/folder/x", bytes([number]), exclusive=True)
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert engine.tail("/folder/x", 9)[1] == bytes(won)
    assert exclusive.honours(engine, "/folder", "memory://folder/x")
