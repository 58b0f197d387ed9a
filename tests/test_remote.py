"""Checkpoints on object stores: a real S3 server on this machine, and fsspec's memory (SPEC.md section 11)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import boto3
import fsspec
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

import ckptfmt
from ckptfmt.sources import Lazy
from ckptfmt.storage import remote
from ckptfmt.testing import assert_same_tree

LARGE = np.random.default_rng(0).standard_normal((5000, 1000)).astype(np.float32)  # more than one part of an upload
TREE = {"model": {"w": LARGE, "b": np.arange(10)}, "step": 7}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def options(endpoint: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options for `s3://bucket/…`, which is empty."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="bucket")
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    return {"endpoint_url": endpoint, "key": "test", "secret": "test", "use_listings_cache": False}


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """A URL at which nothing is, and its options."""
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        return "memory://folder/model.ckpt", {}
    return "s3://bucket/model.ckpt", request.getfixturevalue("options")


Store = tuple[str, dict[str, Any]]


def save(store: Store, tree: Any = TREE, **more: Any) -> Any:
    return ckptfmt.save(store[0], tree, storage_options=store[1], **more)


def load(store: Store, **more: Any) -> Any:
    return ckptfmt.load(store[0], storage_options=store[1], **more)


def objects(store: Store) -> list[str]:
    fs, path = fsspec.core.url_to_fs(store[0], **store[1])
    fs.invalidate_cache()
    return sorted(fs.find(path.rpartition("/")[0]))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_is_saved_is_loaded(store: Store, compression: str | None) -> None:
    report = save(store, compression=compression, metadata={"loss": 1.5})
    assert_same_tree(load(store), TREE)
    with ckptfmt.open(store[0], storage_options=store[1]) as checkpoint:
        assert checkpoint.metadata == {"loss": 1.5}
        assert checkpoint.manifest_sha256 == report.manifest_sha256
        assert np.array_equal(checkpoint["model/w"][100:102], LARGE[100:102])
        assert np.array_equal(checkpoint.zarr["model/w"][7], LARGE[7])  # type: ignore[index]
    assert ckptfmt.verify(store[0], storage_options=store[1]).ok
    assert len(objects(store)) == 1  # nothing is left beside it


def test_the_same_bytes_as_on_a_disk(store: Store, tmp_path: Any) -> None:  # [MAN-009]
    save(store)
    ckptfmt.save(tmp_path / "model.ckpt", TREE)
    with fsspec.open(store[0], "rb", **store[1]) as file:
        assert file.read() == (tmp_path / "model.ckpt").read_bytes()


def test_a_slice_reads_its_blocks_alone(store: Store) -> None:  # [READ-004]
    save(store)
    with ckptfmt.open(store[0], storage_options=store[1]) as checkpoint:
        assert checkpoint["model/w"][0].shape == (1000,)
        assert checkpoint.bytes_read == 4 << 20
    with ckptfmt.open(store[0], verify=False, storage_options=store[1]) as checkpoint:
        assert np.array_equal(checkpoint["model/w"][3], LARGE[3])
        assert checkpoint.bytes_read == 4000


def test_opening_takes_two_requests(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    save(("s3://bucket/model.ckpt", options))
    made: list[str] = []
    fs = fsspec.filesystem("s3", **options)
    for name in ("info", "cat_file"):
        call = getattr(fs, name)
        monkeypatch.setattr(fs, name, lambda *a, _call=call, _name=name, **k: (made.append(_name), _call(*a, **k))[1])
    with ckptfmt.open("s3://bucket/model.ckpt", storage_options=options):
        assert made == ["info", "cat_file"]


def test_what_exists_is_not_touched(store: Store) -> None:  # [PUB-003]
    save(store)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        save(store, {"other": 1})
    assert caught.value.code == "exists"
    assert_same_tree(load(store), TREE)
    save(store, {"other": 1}, overwrite=True)
    assert load(store) == {"other": 1}


def test_a_save_that_fails_leaves_what_was_there(store: Store) -> None:  # [PUB-007]
    class Failing(Lazy):
        shape, dtype = (3 << 20,), np.dtype(np.float64)

        def __getitem__(self, region: Any) -> Any:
            if region[0].start > 0:
                raise RuntimeError("gone")
            return np.zeros(region[0].stop - region[0].start)

    for overwrite in (False, True):
        before = objects(store)
        with pytest.raises(RuntimeError, match="gone"):
            save(store, {"w": Failing()}, overwrite=overwrite)
        assert objects(store) == before
        if not overwrite:
            save(store)
    assert_same_tree(load(store), TREE)


def test_one_of_many_savers_wins(options: dict[str, Any]) -> None:  # [PUB-008]
    """Each saves another tree; exactly one is told that it won, and its tree is there."""
    store = ("s3://bucket/model.ckpt", options)
    won: list[int] = []
    lost: list[str] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        try:
            save(store, {"who": number, "w": np.full(1000, number)})
            won.append(number)
        except ckptfmt.ExistsError as error:
            lost.append(error.code)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), lost) == (1, ["exists"] * 7)
    assert load(store)["who"] == won[0]


def test_a_lost_response_is_no_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # [PUB-010]
    """The object is there, but the answer to the last request was not heard, or was one to a second try."""
    commit = remote.RemoteFile.commit
    for error in (ConnectionResetError("gone"), FileExistsError("412")):

        def deaf(self: remote.RemoteFile, error: Exception = error) -> None:
            commit(self)
            raise error

        monkeypatch.setattr(remote.RemoteFile, "commit", deaf)
        save(store, {"heard": str(error)}, overwrite="heard" in str(objects(store)) or bool(objects(store)))
        assert load(store) == {"heard": str(error)}


def test_a_failure_to_complete_is_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: remote.RemoteFile) -> None:
        raise OSError(5, "the store failed")

    monkeypatch.setattr(remote.RemoteFile, "commit", fail)
    with pytest.raises(ckptfmt.StorageError) as caught:
        save(store)
    assert caught.value.code == "io"
    assert objects(store) == []


def test_a_store_that_ignores_conditions_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # [PUB-011]
    remote._honours.cache_clear()
    fs, _ = fsspec.core.url_to_fs(store[0], **store[1])
    opened = type(fs).open
    monkeypatch.setattr(
        type(fs), "open", lambda self, path, mode="rb", **k: opened(self, path, mode.replace("x", "w"), **k)
    )
    with pytest.raises(ckptfmt.StorageError) as caught:
        save(store)
    assert caught.value.code == "exclusive-unsupported"
    save(store, {"a": 1}, overwrite=True)  # which needs no condition
    assert load(store) == {"a": 1}
    remote._honours.cache_clear()


def test_requests_that_may_succeed_later_are_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store)
    fs, _ = fsspec.core.url_to_fs(store[0], **store[1])
    call, failures = fs.cat_file, [ConnectionResetError("gone"), TimeoutError("slow")]

    def flaky(*arguments: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return call(*arguments, **more)

    monkeypatch.setattr(fs, "cat_file", flaky)
    assert_same_tree(load(store), TREE)
    assert not failures


def test_what_cannot_succeed_is_not_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    save(store)
    fs, _ = fsspec.core.url_to_fs(store[0], **store[1])
    tries: list[int] = []

    def refuse(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise PermissionError(13, "no")

    monkeypatch.setattr(fs, "cat_file", refuse)
    with pytest.raises(ckptfmt.StorageError) as caught:
        load(store)
    assert (caught.value.code, len(tries)) == ("permission", 1)


def test_a_body_that_is_cut_short(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # [READ-005]
    save(store)
    with ckptfmt.open(store[0], storage_options=store[1]) as checkpoint:
        fs, _ = fsspec.core.url_to_fs(store[0], **store[1])
        call = fs.cat_file
        monkeypatch.setattr(fs, "cat_file", lambda *a, **k: call(*a, **k)[:-1])
        with pytest.raises(ckptfmt.CorruptError) as caught:
            checkpoint["model/w"].read()
        assert caught.value.code == "short-object"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_bucket_that_is_not_there(options: dict[str, Any], overwrite: bool) -> None:
    with pytest.raises(ckptfmt.StorageError) as caught:
        save(("s3://elsewhere/model.ckpt", options), overwrite=overwrite)
    assert caught.value.path == "s3://elsewhere/model.ckpt"
    with pytest.raises(ckptfmt.MissingError):
        load(("s3://elsewhere/model.ckpt", options))


def test_bad_urls(store: Store) -> None:
    with pytest.raises(ckptfmt.MissingError) as caught:
        load((store[0] + "x", store[1]))
    assert caught.value.code == "not-found"
    save(store)
    for call in (lambda: load(store, mmap=True), lambda: save((store[0] + "y", store[1]), layout="loose")):
        with pytest.raises(ckptfmt.InputError) as refused:
            call()
        assert refused.value.code == "bad-option"
    fs, path = fsspec.core.url_to_fs(store[0], **store[1])
    fs.pipe_file(path, b"no checkpoint at all")
    with pytest.raises(ckptfmt.NotACheckpointError):
        load(store)


def test_directories_are_read(options: dict[str, Any], tmp_path: Any) -> None:
    """A checkpoint that was copied up from a disk."""
    fs = fsspec.filesystem("s3", **options)
    for layout in ("loose", "packed"):
        ckptfmt.save(tmp_path / layout, TREE, layout=layout)
        fs.put(str(tmp_path / layout), f"bucket/{layout}", recursive=True)
        assert_same_tree(ckptfmt.load(f"s3://bucket/{layout}", storage_options=options), TREE)
        assert ckptfmt.verify(f"s3://bucket/{layout}", storage_options=options).ok
